//! Whether a device's own token is good.
//!
//! Where the gateway holds the key, it checks the signature itself ([`crate::credentials`]). Where the device is passed
//! through, the hub is asked ([`crate::tokens`]); what can be checked without the key is checked before anything leaves,
//! and all that ask about one token wait for one answer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use iothub::{Identity, Timestamp, sas};
use secrecy::{ExposeSecret as _, SecretString};
use store::{Needs, StoreError, Verdict};
use tokio::{select, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::{
    connect::chain,
    credentials::Mode,
    metrics::Meters,
    node::{Node, now, wall_now},
    probe::probe,
    tokens::{Answer, Presented, Question, Way, Word},
};

/// Judges tokens for this node's devices.
pub(crate) struct Judge {
    node: Arc<Node>,
    questions: TaskTracker,
}

impl Judge {
    /// A judge whose questions to hubs are among `questions`.
    pub(crate) const fn new(node: Arc<Node>, questions: TaskTracker) -> Self {
        Self { node, questions }
    }

    /// The gateway holds the key.
    fn check(&self, identity: &Identity, text: &str) -> Verdict {
        let Ok(token) = sas::Token::parse(text) else {
            return Verdict::Refused;
        };
        let is_good = self.node.credentials.has_signed(identity, &token);
        // A token of a shared access policy opens the whole hub; a device has no business with one. The hub's tolerance
        // for clocks is its own: what has expired here is over.
        if !is_good || token.policy().is_some() || token.expires_at() <= wall_now() {
            return Verdict::Refused;
        }
        Verdict::Checked {
            expires_at: token.expires_at(),
        }
    }

    /// The hub holds the key.
    async fn ask(&self, identity: &Identity, text: &SecretString) -> Verdict {
        let Some(token) = may_be_passed(identity, text.expose_secret()) else {
            return Verdict::Refused;
        };
        let expires_at = token.expires_at();
        let tokens = self.node.credentials.tokens();
        let answer = match tokens.present(identity, text, expires_at, now()) {
            Presented::Known(answer) => answer,
            Presented::Asked(question) => question.answered().await,
            Presented::New(question) => {
                let asking = ask_hub(Arc::clone(&self.node), Arc::clone(&question));
                let span = tracing::info_span!("judge", device = %identity);
                // A task of its own: whoever has asked first may not wait for the answer, and others may.
                self.questions.spawn(asking.instrument(span));
                question.answered().await
            }
            Presented::TooMany => Answer::Undecided,
        };
        match answer {
            Answer::Accepted => Verdict::Accepted { expires_at },
            Answer::Refused => Verdict::Refused,
            Answer::Undecided => Verdict::Undecided,
        }
    }
}

#[async_trait]
impl store::Judge for Judge {
    async fn judge(
        &self,
        identity: &Identity,
        token: &SecretString,
    ) -> Result<Verdict, StoreError> {
        let verdict = match self.node.credentials.mode(identity) {
            Some(Mode::Delegated) => self.check(identity, token.expose_secret()),
            Some(Mode::PassThrough) => self.ask(identity, token).await,
            None => Verdict::UnknownDevice,
        };
        Meters::judged(verdict);
        Ok(verdict)
    }

    async fn keep(&self, identity: &Identity) -> Result<Option<Timestamp>, StoreError> {
        self.node.keep_token(identity).await
    }

    async fn kept_until(&self, identity: &Identity) -> Result<Option<Timestamp>, StoreError> {
        self.node.kept_until(identity).await
    }
}

/// What can be said without the key: the token is one, names exactly this identity at its hub, is not over, is of no
/// policy, and is not longer than any real one.
fn may_be_passed(identity: &Identity, text: &str) -> Option<sas::Token> {
    let is_text =
        text.len() <= LONGEST_TOKEN && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    let token = sas::Token::parse(text).ok().filter(|_| is_text)?;
    let is_for_it = token.is_for(&sas::resource(identity));
    let is_alive = token.expires_at() > wall_now();
    (is_for_it && is_alive && token.policy().is_none()).then_some(token)
}

/// Finds the answer to a question, and says it to all who wait.
async fn ask_hub(node: Arc<Node>, question: Arc<Question>) {
    let found = async {
        let answer = find_out(&node, &question).await;
        if answer == Answer::Accepted {
            return introduce(&node, &question.identity).await;
        }
        answer
    };
    let answer = select! {
        answer = timeout(PATIENCE, found) => answer.unwrap_or(Answer::Undecided),
        () = node.stop.cancelled() => Answer::Undecided,
    };
    tracing::debug!(?answer, "the hub was asked about a token");
    node.credentials.tokens().conclude(&question, answer, now());
    if answer == Answer::Refused
        && let Err(error) = node.forget_refused_token(&question.identity).await
    {
        tracing::debug!(%error, "a token that the hub refuses is not forgotten yet");
    }
}

async fn find_out(node: &Node, question: &Question) -> Answer {
    let identity = &question.identity;
    let Some(hub) = node.hubs.get(identity.hub()) else {
        return Answer::Undecided;
    };
    // A token that is kept has been taken by the hub once: a stranger's does not open a session beside it.
    if let Err(error) = node.restore_token(identity).await {
        tracing::debug!(%error, "what is kept cannot be looked at");
        return Answer::Undecided;
    }
    if let Way::Connect(word) = node.credentials.tokens().way(question, now()) {
        // As long as this lives, the session is being opened.
        let demand = node.store.signals.demand(identity, Needs::default()).await;
        let Ok(_demand) = demand else {
            return Answer::Undecided;
        };
        match word.await {
            Ok(Word::Judged(answer)) => return answer,
            Ok(Word::Overtaken) => {}
            Err(_) => return Answer::Undecided,
        }
    }
    match probe(hub, identity, &question.token).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(error = chain(&error), "no answer about a token");
            Answer::Undecided
        }
    }
}

/// Makes a device known that the configuration does not list.
async fn introduce(node: &Node, identity: &Identity) -> Answer {
    let registry = &node.store.registry;
    let known = match registry.device(identity).await {
        Ok(None) => {
            registry
                .put_device(node.unlisted_device(identity.clone()))
                .await
        }
        Ok(Some(_)) => Ok(()),
        Err(error) => Err(error),
    };
    match known {
        Ok(()) => Answer::Accepted,
        Err(error) => {
            tracing::debug!(%error, "the device could not be registered");
            Answer::Undecided
        }
    }
}

/// How long anybody waits for the hub's answer: each step of a connection has as much by default.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the longest token: a host, two ids of 128 characters, each of these encoded twice.
const LONGEST_TOKEN: usize = 2048;
