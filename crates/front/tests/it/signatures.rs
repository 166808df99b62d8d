//! Shared access signatures: judged by the other half, answered as IoT Hub answers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use iothub::{Identity, Timestamp, sas};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use store::{Judge, StoreError, Verdict};

use crate::rig::{Rig, assert_status, identity, module, problem, send, serve};

const EVENTS: &str = "/devices/dev1/messages/events";

/// Judges as a test says, and keeps the questions.
pub(crate) struct TestJudge<F> {
    verdict: F,
    /// Until when it says that a token is kept.
    kept_until: Mutex<Option<Timestamp>>,
    asked: Mutex<Vec<(Identity, String)>>,
}

#[async_trait]
impl<F> Judge for TestJudge<F>
where
    F: Fn(&Identity, &str) -> Result<Verdict, StoreError> + Send + Sync,
{
    async fn judge(
        &self,
        identity: &Identity,
        token: &SecretString,
    ) -> Result<Verdict, StoreError> {
        let token = token.expose_secret().to_owned();
        let verdict = (self.verdict)(identity, &token);
        self.asked.lock().push((identity.clone(), token));
        verdict
    }

    async fn keep(&self, _: &Identity) -> Result<Option<Timestamp>, StoreError> {
        Ok(*self.kept_until.lock())
    }

    async fn kept_until(&self, _: &Identity) -> Result<Option<Timestamp>, StoreError> {
        Ok(*self.kept_until.lock())
    }
}

impl<F> TestJudge<F> {
    /// What it keeps, the hub refuses.
    pub(crate) fn keeps_no_more(&self) {
        *self.kept_until.lock() = None;
    }
}

pub(crate) fn appoint<F>(rig: &Rig, verdict: F) -> Arc<TestJudge<F>>
where
    F: Fn(&Identity, &str) -> Result<Verdict, StoreError> + Send + Sync + 'static,
{
    let judge = Arc::new(TestJudge {
        verdict,
        kept_until: Mutex::default(),
        asked: Mutex::default(),
    });
    rig.store.judge.appoint(judge.clone());
    judge
}

/// The same for every token.
pub(crate) type Always = fn(&Identity, &str) -> Result<Verdict, StoreError>;

/// The hub has taken every token, and one is kept until then.
pub(crate) fn accepts(rig: &Rig, kept_until: Option<Timestamp>) -> Arc<TestJudge<Always>> {
    let accepted: Always = |_, _| {
        Ok(Verdict::Accepted {
            expires_at: in_an_hour(),
        })
    };
    let judge = appoint(rig, accepted);
    *judge.kept_until.lock() = kept_until;
    judge
}

pub(crate) fn checked() -> Verdict {
    Verdict::Checked {
        expires_at: in_an_hour(),
    }
}

pub(crate) fn in_an_hour() -> Timestamp {
    Timestamp::from(SystemTime::now()).saturating_add(Duration::from_secs(3600))
}

/// A token for a resource, with a signature that nobody has made.
pub(crate) fn signature(resource: &str) -> String {
    let key = sas::Key::from_bytes(vec![7; 32]).unwrap();
    key.sign(resource, None, in_an_hour())
}

fn post(rig: &Rig, path: &str, signature: &str) -> RequestBuilder {
    let request = rig.anonymous(Method::POST, path);
    request.header("authorization", signature).body("x")
}

#[tokio::test]
async fn a_good_signature_speaks_for_its_device() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let judge = appoint(&rig, |_, _| Ok(checked()));
    for host in [
        "hub.example",
        "HUB.example",
        "localhost",
        "127.0.0.1",
        // As an SDK writes it whose connection string has a port behind the host name.
        "localhost:8443",
        "[::1]:8443",
    ] {
        let token = signature(&format!("{host}/devices/dev1"));
        let response = send(post(&rig, EVENTS, &token)).await;
        assert_status(&response, StatusCode::NO_CONTENT);
        let asked = judge.asked.lock().pop();
        assert_eq!(asked, Some((identity("dev1"), token)));
    }
    appoint(&rig, |_, _| {
        Ok(Verdict::Accepted {
            expires_at: in_an_hour(),
        })
    });
    let token = signature("hub.example/devices/dev1");
    let own_header = rig
        .anonymous(Method::POST, EVENTS)
        .header("tombolo-authorization", &token)
        .body("x");
    assert_status(&send(own_header).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_is_wrong_with_a_signature_is_not_said() {
    let rig = Rig::start().await;
    let token = signature("hub.example/devices/dev1");
    let mut details = Vec::new();
    for verdict in [Verdict::Refused, Verdict::UnknownDevice] {
        appoint(&rig, move |_, _| Ok(verdict));
        let response = send(post(&rig, EVENTS, &token)).await;
        assert_eq!(
            response.headers()["iothub-errorcode"],
            "IotHubUnauthorizedAccess"
        );
        details.push(problem(response, 401, "unauthenticated").await);
    }
    // A host outside the configuration is never asked, and is refused like the others.
    let judge = appoint(&rig, |_, _| Ok(checked()));
    for host in [
        "other.example",
        "other.example:8443",
        "hub.example.evil",
        "169.254.169.254",
        ":8443",
        "",
    ] {
        let token = signature(&format!("{host}/devices/dev1"));
        let response = send(post(&rig, EVENTS, &token)).await;
        details.push(problem(response, 401, "unauthenticated").await);
    }
    assert!(judge.asked.lock().is_empty());
    assert!(
        details.iter().all(|detail| *detail == details[0]),
        "{details:?}"
    );
}

#[tokio::test]
async fn not_finding_out_whether_a_signature_is_good_is_not_a_no() {
    let rig = Rig::start().await;
    let token = signature("hub.example/devices/dev1");
    let unavailable = async || {
        let response = send(post(&rig, EVENTS, &token)).await;
        assert!(response.headers().contains_key("retry-after"));
        problem(response, 503, "hub_unavailable").await;
    };
    unavailable().await;
    for verdict in [
        Ok(Verdict::Undecided),
        Err(StoreError::Unavailable),
        Err(StoreError::UnknownOutcome),
    ] {
        appoint(&rig, move |_, _| verdict.clone());
        unavailable().await;
    }
}

#[tokio::test]
async fn a_signature_is_judged_for_whom_the_path_names() {
    let rig = Rig::start().await;
    let judge = appoint(&rig, |_, _| Ok(Verdict::Refused));
    let token = signature("hub.example/devices/dev1");
    for (path, named) in [
        ("/devices/dev2/twin", identity("dev2")),
        ("/devices/dev%3A2/twin", identity("dev:2")),
        ("/devices/dev1/modules/m1/twin", module("dev1", "m1")),
    ] {
        let request = rig
            .anonymous(Method::GET, path)
            .header("authorization", &token);
        problem(send(request).await, 401, "unauthenticated").await;
        assert_eq!(judge.asked.lock().pop().unwrap().0, named);
    }
    // There is nobody to judge it for.
    problem(
        send(post(&rig, "/devices/a%2Fb/messages/events", &token)).await,
        400,
        "invalid_request",
    )
    .await;
    assert!(judge.asked.lock().is_empty());
}

#[tokio::test]
async fn a_device_acts_for_its_modules_by_signature() {
    let mut rig = Rig::start().await;
    let m1 = module("dev1", "m1");
    serve(&rig.store, &m1).await;
    let mut hub = crate::hub::Hub::new(&rig.store, &m1).await;
    hub.acknowledges().await;
    rig.hub.acknowledges().await;
    appoint(&rig, |identity, token| {
        // As the judge of the other half compares them.
        let token = sas::Token::parse(token).unwrap();
        Ok(if token.covers(&sas::resource(identity)) {
            checked()
        } else {
            Verdict::Refused
        })
    });
    let path = "/devices/dev1/modules/m1/messages/events";
    let of_device = signature("hub.example/devices/dev1");
    assert_status(
        &send(post(&rig, path, &of_device)).await,
        StatusCode::NO_CONTENT,
    );
    assert_eq!(hub.taken.lock().len(), 1);
    let of_module = signature("hub.example/devices/dev1/modules/m1");
    assert_status(
        &send(post(&rig, path, &of_module)).await,
        StatusCode::NO_CONTENT,
    );
    problem(
        send(post(&rig, EVENTS, &of_module)).await,
        401,
        "unauthenticated",
    )
    .await;
    assert!(rig.hub.taken.lock().is_empty());
}

#[tokio::test]
async fn text_that_is_no_signature_is_told_what_it_lacks() {
    let rig = Rig::start().await;
    let judge = appoint(&rig, |_, _| Ok(checked()));
    for (fields, missing) in [
        ("sig=x&se=1", "field sr"),
        ("sr=hub.example%2Fdevices%2Fdev1&se=1", "field sig"),
        (
            "sr=hub.example%2Fdevices%2Fdev1&sig=eA%3D%3D&se=1",
            "32 bytes",
        ),
    ] {
        let token = format!("SharedAccessSignature {fields}");
        let detail = problem(
            send(post(&rig, EVENTS, &token)).await,
            401,
            "unauthenticated",
        )
        .await;
        assert!(detail.contains(missing), "{detail}");
    }
    assert!(judge.asked.lock().is_empty());
}

#[tokio::test]
async fn failed_credentials_are_limited_and_good_ones_are_not() {
    let mut rig = Rig::start().await;
    rig.hub.acknowledges().await;
    let good = signature("hub.example/devices/dev1");
    let is_good = good.clone();
    appoint(&rig, move |_, token| {
        Ok(if token == is_good {
            checked()
        } else {
            Verdict::Refused
        })
    });
    let bad = signature("hub.example/devices/dev2");
    for attempt in 1..=21 {
        // A credential that is not there is no attempt.
        problem(
            send(rig.anonymous(Method::POST, EVENTS)).await,
            401,
            "unauthenticated",
        )
        .await;
        let wrong = if attempt % 2 == 0 {
            post(&rig, EVENTS, &bad)
        } else {
            post(&rig, EVENTS, "Bearer tmb_wrong")
        };
        let response = send(wrong).await;
        if attempt <= 20 {
            problem(response, 401, "unauthenticated").await;
        } else {
            let seconds: u64 = response.headers()["retry-after"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!((1..=60).contains(&seconds), "{seconds}");
            problem(response, 429, "throttled").await;
        }
    }
    // Neither the device nor anybody else at this address is locked out.
    assert_status(
        &send(post(&rig, EVENTS, &good)).await,
        StatusCode::NO_CONTENT,
    );
    assert_status(&rig.post(EVENTS, "x").await, StatusCode::NO_CONTENT);
    // Another device is named, but the failures come from the same address.
    let other = post(&rig, "/devices/dev9/messages/events", &bad);
    problem(send(other).await, 429, "throttled").await;
}
