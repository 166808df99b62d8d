//! What a device hears when the gateway itself has a fault.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use iothub::Identity;
use reqwest::{Method, StatusCode};
use serde_json::json;
use store::{
    Answer, DeviceRecord, EntryId, Fingerprint, KeyError, KeyId, KeyState, Outbox,
    OutboxDeadLetter, OutboxReader, Outcome, Page, Partition, PersistError, PutTokenError, Receipt,
    Registry, ReplayError, SealedCredential, SessionLease, SessionState, Stock, Store, StoreError,
    Submission, SubmissionId, SubmitError, Ticket, TokenHash, TokenId, TokenRecord, Work,
};

use crate::rig::{PATIENCE, Rig, assert_status, background, problem, problem_body, send, until};

/// A registry that fails when it is asked for some tokens.
struct Faulty(Arc<dyn Registry>);

const PANICS: &str = "tmb_panics";
const UNAVAILABLE: &str = "tmb_unavailable";
const UNKNOWN_OUTCOME: &str = "tmb_unknown-outcome";

#[async_trait]
impl Registry for Faulty {
    async fn device(&self, identity: &Identity) -> Result<Option<DeviceRecord>, StoreError> {
        self.0.device(identity).await
    }

    async fn put_device(&self, record: DeviceRecord) -> Result<(), StoreError> {
        self.0.put_device(record).await
    }

    async fn devices(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        self.0.devices(partition, after).await
    }

    async fn put_token(&self, record: TokenRecord) -> Result<(), PutTokenError> {
        self.0.put_token(record).await
    }

    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        if *hash == TokenHash::of(PANICS) {
            panic!("a defect");
        }
        if *hash == TokenHash::of(UNAVAILABLE) {
            return Err(StoreError::Unavailable);
        }
        if *hash == TokenHash::of(UNKNOWN_OUTCOME) {
            return Err(StoreError::UnknownOutcome);
        }
        self.0.token(hash).await
    }

    async fn revoke_token(&self, identity: &Identity, id: &TokenId) -> Result<bool, StoreError> {
        self.0.revoke_token(identity, id).await
    }

    async fn tokens(&self, identity: &Identity) -> Result<Vec<TokenRecord>, StoreError> {
        self.0.tokens(identity).await
    }

    async fn receipt(
        &self,
        identity: &Identity,
        id: SubmissionId,
    ) -> Result<Option<Receipt>, StoreError> {
        self.0.receipt(identity, id).await
    }

    async fn begin_key(
        &self,
        identity: &Identity,
        id: KeyId,
        fingerprint: Fingerprint,
    ) -> Result<KeyState, KeyError> {
        self.0.begin_key(identity, id, fingerprint).await
    }

    async fn note_key(
        &self,
        identity: &Identity,
        id: KeyId,
        note: Answer,
    ) -> Result<(), StoreError> {
        self.0.note_key(identity, id, note).await
    }

    async fn answer_key(
        &self,
        identity: &Identity,
        id: KeyId,
        answer: Answer,
    ) -> Result<(), StoreError> {
        self.0.answer_key(identity, id, answer).await
    }

    async fn forget_key(&self, identity: &Identity, id: KeyId) -> Result<(), StoreError> {
        self.0.forget_key(identity, id).await
    }

    async fn put_credential(
        &self,
        identity: &Identity,
        credential: SealedCredential,
    ) -> Result<(), StoreError> {
        self.0.put_credential(identity, credential).await
    }

    async fn forget_credential(
        &self,
        identity: &Identity,
        credential: &SealedCredential,
    ) -> Result<(), StoreError> {
        self.0.forget_credential(identity, credential).await
    }

    async fn credential(
        &self,
        identity: &Identity,
    ) -> Result<Option<SealedCredential>, StoreError> {
        self.0.credential(identity).await
    }
}

/// An outbox that fails when it is given what says so: a message's body, or the status of a method's answer.
struct FaultyOutbox {
    outbox: Arc<dyn Outbox>,
    is_hanging: Arc<AtomicBool>,
    /// Whether nothing can be taken back.
    is_away: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Panics = 1,
    Unavailable,
    UnknownOutcome,
    /// The entry is taken, and the store lets go of it without an outcome.
    LosesTicket,
    Hangs,
}

impl Fault {
    const ALL: [Self; 5] = [
        Self::Panics,
        Self::Unavailable,
        Self::UnknownOutcome,
        Self::LosesTicket,
        Self::Hangs,
    ];

    fn of(work: &Work) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| match work {
            Work::Telemetry(telemetry) => telemetry.payload == format!("{fault:?}"),
            Work::MethodAnswer { response, .. } => response.status == *fault as i32,
            Work::TwinRead | Work::ReportedPatch(_) => false,
        })
    }
}

#[async_trait]
impl Outbox for FaultyOutbox {
    fn is_durable(&self) -> bool {
        self.outbox.is_durable()
    }

    async fn submit(&self, submission: Submission) -> Result<Ticket<Outcome>, SubmitError> {
        match Fault::of(&submission.work) {
            None => self.outbox.submit(submission).await,
            Some(Fault::Panics) => panic!("a defect"),
            Some(Fault::Unavailable) => Err(StoreError::Unavailable.into()),
            Some(Fault::UnknownOutcome) => Err(StoreError::UnknownOutcome.into()),
            Some(Fault::LosesTicket) => Ok(store::ticket().1),
            Some(Fault::Hangs) => {
                self.is_hanging.store(true, Ordering::Relaxed);
                std::future::pending().await
            }
        }
    }

    async fn persist(&self, identity: &Identity, id: SubmissionId) -> Result<(), PersistError> {
        self.outbox.persist(identity, id).await
    }

    async fn take_back(&self, identity: &Identity, id: SubmissionId) -> Result<bool, StoreError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable);
        }
        self.outbox.take_back(identity, id).await
    }

    async fn open(
        &self,
        lease: &SessionLease,
        identity: &Identity,
    ) -> Result<Box<dyn OutboxReader>, StoreError> {
        self.outbox.open(lease, identity).await
    }

    async fn backlog(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<Identity>, StoreError> {
        self.outbox.backlog(partition, after).await
    }

    async fn dead_letters(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<OutboxDeadLetter>, StoreError> {
        self.outbox.dead_letters(partition, after).await
    }

    async fn dead_letter(
        &self,
        identity: &Identity,
        id: EntryId,
    ) -> Result<Option<(OutboxDeadLetter, Option<Work>)>, StoreError> {
        self.outbox.dead_letter(identity, id).await
    }

    async fn replay(&self, identity: &Identity, id: EntryId) -> Result<(), ReplayError> {
        self.outbox.replay(identity, id).await
    }

    async fn discard(&self, identity: &Identity, id: EntryId) -> Result<bool, StoreError> {
        self.outbox.discard(identity, id).await
    }

    async fn stock(&self, partition: Partition) -> Result<Stock, StoreError> {
        self.outbox.stock(partition).await
    }

    async fn stock_of(&self, identity: &Identity) -> Result<Stock, StoreError> {
        self.outbox.stock_of(identity).await
    }
}

async fn rig() -> Rig {
    rig_that_knows_of(Arc::default(), Arc::default()).await
}

async fn rig_that_knows_of(is_hanging: Arc<AtomicBool>, is_away: Arc<AtomicBool>) -> Rig {
    let memory = store::memory::open(store::memory::Config::default()).unwrap();
    let registry = Arc::new(Faulty(memory.registry.clone()));
    let outbox = Arc::new(FaultyOutbox {
        outbox: memory.outbox.clone(),
        is_hanging,
        is_away,
    });
    let store = Store {
        registry,
        outbox,
        ..memory
    };
    Rig::over(store, |_| {}).await
}

#[tokio::test]
async fn a_panic_is_the_answer_of_one_request_only() {
    let rig = rig().await;
    for _ in 0..3 {
        let request = rig
            .anonymous(Method::GET, "/devices/dev1/twin")
            .bearer_auth(PANICS);
        let detail = problem(send(request).await, 500, "internal").await;
        assert!(!detail.contains("defect"), "{detail}");
    }
    assert_status(
        &send(rig.anonymous(Method::GET, "/openapi.json")).await,
        StatusCode::OK,
    );
}

#[tokio::test]
async fn not_finding_out_is_not_a_no() {
    let rig = rig().await;
    for (token, status, code) in [
        (UNAVAILABLE, 503, "overloaded"),
        (UNKNOWN_OUTCOME, 504, "hub_timeout"),
    ] {
        let request = rig
            .anonymous(Method::GET, "/devices/dev1/twin")
            .bearer_auth(token);
        problem(send(request).await, status, code).await;
    }
}

#[tokio::test]
async fn a_write_that_is_lost_on_the_way_may_have_arrived() {
    let rig = rig().await;
    for (fault, status, code) in [
        (Fault::Panics, 500, "internal"),
        (Fault::Unavailable, 503, "overloaded"),
        (Fault::UnknownOutcome, 504, "hub_timeout"),
        (Fault::LosesTicket, 504, "hub_timeout"),
    ] {
        let response = rig
            .post("/devices/dev1/messages/events", format!("{fault:?}"))
            .await;
        problem(response, status, code).await;
    }
}

#[tokio::test]
async fn nobody_is_asked_to_answer_a_method_again_that_nobody_can_answer() {
    let mut rig = rig().await;
    rig.hub.is(SessionState::Settled).await;
    for (fault, status, code) in [
        (Fault::Panics, 500, "internal"),
        // It is certain that the answer was not sent.
        (Fault::Unavailable, 410, "method_gone"),
        (Fault::UnknownOutcome, 504, "hub_timeout"),
        (Fault::LosesTicket, 504, "hub_timeout"),
    ] {
        let id = rig.hub.invokes("m", "", PATIENCE).await;
        let path = format!("/devices/dev1/methods/{id}/response");
        let answer = json!({"status": fault as i32}).to_string();
        let body = problem_body(rig.post(&path, answer.clone()).await, status, code).await;
        assert_eq!(body["retryable"], false, "{body}");
        problem(rig.post(&path, answer).await, 410, "method_gone").await;
    }
}

#[tokio::test]
async fn what_does_not_end_is_cut_off_at_the_deadline() {
    let is_hanging = Arc::<AtomicBool>::default();
    let rig = rig_that_knows_of(is_hanging.clone(), Arc::default()).await;
    let request = rig.request(Method::POST, "/devices/dev1/messages/events");
    let post = background(request.body("Hangs").send());
    until(|| is_hanging.load(Ordering::Relaxed)).await;
    let start = Instant::now();
    let cut_off = rig
        .handle
        .shutdown(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(cut_off.connections > 0);
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(post.result().await.is_err());
}

#[tokio::test]
async fn a_store_that_takes_nothing_makes_the_gateway_unready() {
    let is_away = Arc::<AtomicBool>::default();
    let rig = rig_that_knows_of(Arc::default(), is_away.clone()).await;
    let ready = async || send(rig.admin(Method::GET, "/readyz")).await;
    assert_status(&ready().await, StatusCode::OK);
    is_away.store(true, Ordering::Relaxed);
    problem(ready().await, 503, "overloaded").await;
    is_away.store(false, Ordering::Relaxed);
    assert_status(&ready().await, StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_taken_back_may_have_been_sent() {
    let is_away = Arc::<AtomicBool>::default();
    let rig = rig_that_knows_of(Arc::default(), is_away.clone()).await;
    is_away.store(true, Ordering::Relaxed);
    let request = rig
        .request(Method::POST, "/devices/dev1/messages/events")
        .header("prefer", "wait=1")
        .body("x");
    problem(send(request).await, 504, "hub_timeout").await;
}
