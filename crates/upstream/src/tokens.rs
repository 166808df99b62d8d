//! Devices' own tokens, which the gateway passes through.
//!
//! It cannot check them: the hub alone has the key. So a token is a question until the hub has answered it, in one of two
//! ways:
//!
//! - **by CONNECT**: the session of the device is opened with the token as password;
//! - **by a probe** of the hub's HTTPS API, if there is a session, or another token that the hub has taken: an accepted
//!   CONNECT would throw that session out, and a token that nobody knows must not take the place of a good one.
//!
//! ```text
//!             present                  way, ask                  answered
//!   (judge) ----------> [ question ] -----------> CONNECT, probe ---------> [ shelf ] ---login---> (driver)
//! ```
//!
//! Each device has a *shelf* with the two tokens that its session may use: its own, and the one that ends last of the
//! others that the hub has taken. A shelf without a session is cleared soon; nothing is written down but what [`crate::vault`]
//! seals. What the hub said is remembered under a keyed hash, for a time: who sends the same token again need not wait.
//!
//! Everything here is plain data; [`crate::judge`] asks, and the driver tells what became of its attempts.

mod fingerprint;
mod remembered;
mod shelf;

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use iothub::{Identity, Timestamp};
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::sync::{oneshot, watch};

pub(crate) use self::fingerprint::Secret;
use self::{
    fingerprint::Fingerprint,
    remembered::Remembered,
    shelf::{Candidate, Shelf},
};
use crate::nudge::Nudge;

/// A device's own token, as far as the gateway can check it.
pub(crate) struct DeviceToken {
    pub(crate) text: SecretString,
    fingerprint: Fingerprint,
    pub(crate) expires_at: Timestamp,
}

/// All tokens of all devices that are passed through.
pub(crate) struct Tokens {
    secret: Secret,
    state: Mutex<State>,
}

struct State {
    shelves: HashMap<Identity, Shelf>,
    accepted: Remembered,
    refused: Remembered,
    questions: HashMap<Fingerprint, Arc<Question>>,
}

/// A token that the hub has not judged yet.
pub(crate) struct Question {
    pub(crate) identity: Identity,
    pub(crate) token: Arc<DeviceToken>,
    answer: watch::Sender<Option<Answer>>,
}

/// What the hub says of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Accepted,
    Refused,
    /// It could not be asked, or said neither.
    Undecided,
}

/// What is known of a token that somebody shows.
pub(crate) enum Presented {
    /// The hub has said so, a short while ago.
    Known(Answer),
    /// Somebody asks already: wait for the answer.
    Asked(Arc<Question>),
    /// Nobody has asked: ask.
    New(Arc<Question>),
    /// So many are asked about that this one must come again.
    TooMany,
}

/// How to ask the hub.
pub(crate) enum Way {
    Probe,
    /// With the session's CONNECT; the session must be demanded meanwhile.
    Connect(oneshot::Receiver<Word>),
}

/// What became of a token that waited for its CONNECT.
pub(crate) enum Word {
    Judged(Answer),
    /// The session was opened with another one.
    Overtaken,
}

/// What is known of the tokens of a device.
pub(crate) struct Standing {
    /// Of those that the hub has taken, the one that ends last.
    pub(crate) newest: Option<Arc<DeviceToken>>,
    /// Whether a session has looked at what is kept of it, too.
    pub(crate) is_attended: bool,
}

/// What a session wants a token for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To connect at all.
    Open,
    /// To connect anew, because what it was opened with ends soon.
    Renew,
}

/// A session's hold on the shelf of its device, until it is dropped.
pub(crate) struct Attendance {
    tokens: Arc<Tokens>,
    identity: Identity,
    fresh: Arc<Nudge>,
    /// What the attempt under way is made with.
    attempt: Option<Arc<DeviceToken>>,
}

impl Tokens {
    pub(crate) fn new(secret: Secret) -> Arc<Self> {
        Arc::new(Self {
            secret,
            state: Mutex::new(State {
                shelves: HashMap::new(),
                accepted: Remembered::new(TRUST, MOST_ACCEPTED),
                refused: Remembered::new(DISTRUST, MOST_REFUSED),
                questions: HashMap::new(),
            }),
        })
    }

    /// Somebody shows a token that has passed every check that the gateway can make.
    pub(crate) fn present(
        &self,
        identity: &Identity,
        text: &SecretString,
        expires_at: Timestamp,
        now: Instant,
    ) -> Presented {
        let fingerprint = self.secret.fingerprint(identity, text);
        let mut state = self.state.lock();
        let shelf = state.shelves.get(identity);
        if shelf.is_some_and(|shelf| shelf.is_up_with(fingerprint)) {
            // As long as the hub lets the session be, it has nothing against its token.
            return Presented::Known(Answer::Accepted);
        }
        if state.accepted.has(fingerprint, now) {
            let token = Arc::new(DeviceToken::new(text, fingerprint, expires_at));
            state.shelf(identity, now).place(token, now);
            return Presented::Known(Answer::Accepted);
        }
        if state.refused.has(fingerprint, now) {
            return Presented::Known(Answer::Refused);
        }
        if let Some(question) = state.questions.get(&fingerprint) {
            return Presented::Asked(Arc::clone(question));
        }
        let of_this = state.questions.values();
        let of_this = of_this.filter(|question| question.identity == *identity);
        if of_this.count() >= MOST_OF_ONE || state.questions.len() >= MOST_QUESTIONS {
            return Presented::TooMany;
        }
        let question = Arc::new(Question {
            identity: identity.clone(),
            token: Arc::new(DeviceToken::new(text, fingerprint, expires_at)),
            answer: watch::Sender::new(None),
        });
        state.questions.insert(fingerprint, Arc::clone(&question));
        Presented::New(question)
    }

    /// How the hub is asked.
    pub(crate) fn way(&self, question: &Question, now: Instant) -> Way {
        let mut state = self.state.lock();
        let shelf = state.shelf(&question.identity, now);
        if shelf.is_up() || shelf.has_accepted() {
            return Way::Probe;
        }
        let (word, heard) = oneshot::channel();
        shelf.queue(Candidate {
            token: Arc::clone(&question.token),
            word,
        });
        Way::Connect(heard)
    }

    /// Puts down a token that the hub has taken once, perhaps before this process began.
    pub(crate) fn restore(
        &self,
        identity: &Identity,
        text: &SecretString,
        expires_at: Timestamp,
        now: Instant,
    ) {
        let fingerprint = self.secret.fingerprint(identity, text);
        let mut state = self.state.lock();
        if !state.refused.has(fingerprint, now) {
            let token = Arc::new(DeviceToken::new(text, fingerprint, expires_at));
            state.shelf(identity, now).place(token, now);
        }
    }

    /// What is on the shelf of a device.
    pub(crate) fn standing(&self, identity: &Identity, now: Timestamp) -> Standing {
        let state = self.state.lock();
        let shelf = state.shelves.get(identity);
        Standing {
            newest: shelf.and_then(|shelf| shelf.ends_last(now)),
            is_attended: shelf.is_some_and(|shelf| shelf.attendances > 0),
        }
    }

    /// Whether the hub has refused this token a short while ago.
    pub(crate) fn is_refused(
        &self,
        identity: &Identity,
        text: &SecretString,
        now: Instant,
    ) -> bool {
        let fingerprint = self.secret.fingerprint(identity, text);
        self.state.lock().refused.has(fingerprint, now)
    }

    /// The hub has answered, or will not.
    pub(crate) fn conclude(&self, question: &Question, answer: Answer, now: Instant) {
        let fingerprint = question.token.fingerprint;
        let mut state = self.state.lock();
        state.questions.remove(&fingerprint);
        match answer {
            Answer::Accepted => {
                state.accepted.confirm(fingerprint, now);
                let token = Arc::clone(&question.token);
                state.shelf(&question.identity, now).place(token, now);
            }
            Answer::Refused => state.refused.confirm(fingerprint, now),
            Answer::Undecided => {}
        }
        question.answer.send_replace(Some(answer));
    }

    /// Follows the shelf of a device for its session.
    pub(crate) fn attend(self: &Arc<Self>, identity: &Identity, now: Instant) -> Attendance {
        let mut state = self.state.lock();
        let shelf = state.shelf(identity, now);
        shelf.attendances += 1;
        Attendance {
            tokens: Arc::clone(self),
            identity: identity.clone(),
            fresh: Arc::clone(&shelf.fresh),
            attempt: None,
        }
    }

    /// Forgets what nobody needs any more.
    pub(crate) fn tidy(&self, now: Instant) {
        let mut state = self.state.lock();
        state.accepted.tidy(now);
        state.refused.tidy(now);
        let asked: Vec<_> = state.questions.values().cloned().collect();
        state.shelves.retain(|identity, shelf| {
            shelf.is_needed(now) || asked.iter().any(|question| question.identity == *identity)
        });
    }
}

impl State {
    fn shelf(&mut self, identity: &Identity, now: Instant) -> &mut Shelf {
        let shelves = &mut self.shelves;
        shelves
            .entry(identity.clone())
            .or_insert_with(|| Shelf::new(now))
    }
}

impl DeviceToken {
    fn new(text: &SecretString, fingerprint: Fingerprint, expires_at: Timestamp) -> Self {
        Self {
            text: text.clone(),
            fingerprint,
            expires_at,
        }
    }
}

impl Question {
    /// Waits for the hub's answer.
    pub(crate) async fn answered(&self) -> Answer {
        let mut answer = self.answer.subscribe();
        let answer = answer.wait_for(Option::is_some).await;
        answer.map_or(Answer::Undecided, |answer| {
            answer.expect("it was waited for")
        })
    }
}

impl Attendance {
    /// What to connect with, and whether the hub has taken it before.
    pub(crate) fn login(
        &mut self,
        purpose: Purpose,
        wall_now: Timestamp,
    ) -> Option<(Arc<DeviceToken>, bool)> {
        let chosen = self.with(|shelf| match purpose {
            Purpose::Open => shelf.choose_to_open(wall_now),
            Purpose::Renew => Some((shelf.choose_to_renew(wall_now)?, true)),
        })?;
        self.attempt = Some(Arc::clone(&chosen.0));
        Some(chosen)
    }

    /// The hub has accepted the attempt.
    pub(crate) fn accepted(&mut self, now: Instant) {
        if let Some(token) = self.attempt.take() {
            let mut state = self.tokens.state.lock();
            state.accepted.confirm(token.fingerprint, now);
            let shelf = state.shelves.get_mut(&self.identity);
            shelf.expect(ATTENDED).accepted(token, now);
        }
    }

    /// The hub has refused the attempt's token. If there is another, [`Attendance::poll_fresh`] says so.
    pub(crate) fn refused(&mut self, now: Instant) {
        if let Some(token) = self.attempt.take() {
            let mut state = self.tokens.state.lock();
            state.accepted.forget(token.fingerprint);
            state.refused.confirm(token.fingerprint, now);
            let shelf = state.shelves.get_mut(&self.identity);
            shelf.expect(ATTENDED).refused(token.fingerprint);
        }
    }

    /// The attempt came to nothing, for reasons that are not its token's.
    pub(crate) fn failed(&mut self) {
        self.attempt = None;
        self.with(Shelf::answer_undecided);
    }

    /// The connection is lost; until then the hub had nothing against its token.
    pub(crate) fn lost(&self, now: Instant) {
        let mut state = self.tokens.state.lock();
        let shelf = state.shelves.get_mut(&self.identity);
        if let Some(fingerprint) = shelf.expect(ATTENDED).lost() {
            state.accepted.confirm(fingerprint, now);
        }
    }

    /// Waits until there may be a token to try that was not there before.
    pub(crate) fn poll_fresh(&self, cx: &Context<'_>) -> Poll<()> {
        self.fresh.poll_taken(cx)
    }

    /// Whether the hub has taken any token of the device.
    pub(crate) fn is_proved(&self) -> bool {
        self.with(|shelf| shelf.has_accepted())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut state = self.tokens.state.lock();
        act(state.shelves.get_mut(&self.identity).expect(ATTENDED))
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.with(|shelf| shelf.attendances -= 1);
    }
}

const ATTENDED: &str = "a shelf is kept while it is attended";

/// How long what the hub has accepted counts without being confirmed.
const TRUST: Duration = Duration::from_secs(15 * 60);

/// How long what the hub has refused is refused without asking: long enough to spare the hub a device that does not give
/// up, short enough for one that has just been registered.
const DISTRUST: Duration = Duration::from_secs(60);

/// Tokens that are remembered, of each kind: at 64 bytes or so, a few megabytes.
const MOST_ACCEPTED: usize = 65_536;
const MOST_REFUSED: usize = 8_192;

/// Tokens of one device that may be asked about at once.
const MOST_OF_ONE: usize = 4;

/// Tokens that may be asked about at once. A hub of tier S1 answers ten a second ([`crate::pace`]), and nobody waits
/// longer than ten seconds, so more would wait in vain.
const MOST_QUESTIONS: usize = 256;

#[cfg(test)]
mod tests;
