//! What rules have in common: asking again, waiting with a bound, and short words for long calls.

use std::{future::Future, pin::pin, sync::Arc, task::Poll, time::Duration};

use iothub::{
    CloudMessage, DeviceId, HubName, Identity, MethodName, MethodRequest, MethodResponse,
    Telemetry, topic::RequestId, twin::ReportedPatch,
};

use super::Engine;
use crate::{
    AppendError, Arrival, ArrivalId, Clock as _, Conclusion, ConnectionEpoch, DeadLetter, EntryId,
    Failure, Fingerprint, GivenUp, InboxEntry, InboxView, KeyError, LockToken, MessageEntry,
    MethodEntry, MethodRequestId, NodeId, OutboxDeadLetter, OutboxEntry, OutboxReader, Outcome,
    Page, Partition, PersistError, PutTokenError, ReceiptState, SessionLease, SettleError,
    Settlement, StoreError, Submission, SubmissionId, SubmitError, Survival, Ticket, Work,
};

/// A device that one node owns.
pub(super) struct Owned {
    pub(super) engine: Engine,
    pub(super) identity: Identity,
    pub(super) lease: SessionLease,
}

impl Engine {
    /// A device, owned by the first node.
    pub(super) async fn owned(&self, device: &str) -> Owned {
        let identity = identity(device);
        let lease = self.acquire(&node("a"), Partition::of(&identity)).await;
        Owned {
            engine: self.clone(),
            identity,
            lease: lease.expect("nobody else holds it"),
        }
    }

    pub(super) async fn acquire(
        &self,
        node: &NodeId,
        partition: Partition,
    ) -> Result<SessionLease, StoreError> {
        sure(|| self.store.leases.acquire(node, partition)).await
    }

    pub(super) async fn submit(
        &self,
        submission: Submission,
    ) -> Result<Ticket<Outcome>, SubmitError> {
        sure(|| self.store.outbox.submit(submission.clone())).await
    }

    pub(super) fn submission(&self, identity: &Identity, id: u128, work: Work) -> Submission {
        Submission {
            id: SubmissionId(id),
            identity: identity.clone(),
            work: Arc::new(work),
            survival: Survival::Ephemeral {
                deadline: self.clock.instant() + PATIENCE,
            },
            fingerprint: None,
        }
    }
}

impl Owned {
    /// The same device, owned by another node after the lease of this one is over.
    pub(super) async fn taken_over(&self, node: &NodeId) -> Self {
        self.engine.clock.advance(self.engine.bounds.session_lease);
        let lease = self.engine.acquire(node, self.lease.partition).await;
        Self {
            engine: self.engine.clone(),
            identity: self.identity.clone(),
            lease: lease.expect("the older lease is over"),
        }
    }

    pub(super) async fn submit(&self, id: u128, work: Work) -> Ticket<Outcome> {
        self.try_submit(id, work).await.expect("there is room")
    }

    pub(super) async fn try_submit(
        &self,
        id: u128,
        work: Work,
    ) -> Result<Ticket<Outcome>, SubmitError> {
        let submission = self.engine.submission(&self.identity, id, work);
        self.engine.submit(submission).await
    }

    /// Submits a durable entry; false if the engine keeps none, which it then says beforehand.
    pub(super) async fn submit_durable(&self, id: u128, work: Work) -> bool {
        let mut submission = self.engine.submission(&self.identity, id, work);
        submission.survival = Survival::Durable;
        let is_durable = self.engine.store.outbox.is_durable();
        match self.engine.submit(submission).await {
            Ok(_) => assert!(is_durable),
            Err(error) => assert_eq!((error, is_durable), (StoreError::Volatile.into(), false)),
        }
        is_durable
    }

    /// Submits an entry under a key, durable if the engine can do that.
    pub(super) async fn submit_keyed(
        &self,
        id: u128,
        text: &str,
    ) -> Result<Ticket<Outcome>, SubmitError> {
        let mut submission = self.engine.submission(&self.identity, id, telemetry(text));
        submission.fingerprint = Some(Fingerprint::of(&[text.as_bytes()]));
        if self.engine.store.outbox.is_durable() {
            submission.survival = Survival::Durable;
        }
        self.engine.submit(submission).await
    }

    pub(super) async fn receipt(&self, id: u128) -> Option<ReceiptState> {
        let registry = &self.engine.store.registry;
        let receipt = sure(|| registry.receipt(&self.identity, SubmissionId(id))).await;
        receipt.expect("the engine is there").map(|receipt| {
            assert_eq!(receipt.id, SubmissionId(id));
            receipt.state
        })
    }

    /// Dead letters of the outbox.
    pub(super) async fn unsent(&self) -> Vec<OutboxDeadLetter> {
        let outbox = &self.engine.store.outbox;
        let partition = self.lease.partition;
        let letters =
            all_pages(async |after| outbox.dead_letters(partition, after.as_deref()).await);
        let mut letters = letters.await;
        letters.retain(|letter| letter.identity == self.identity);
        letters
    }

    pub(super) async fn open(&self) -> Box<dyn OutboxReader> {
        self.try_open().await.expect("the lease stands")
    }

    pub(super) async fn try_open(&self) -> Result<Box<dyn OutboxReader>, StoreError> {
        let outbox = &self.engine.store.outbox;
        sure(|| outbox.open(&self.lease, &self.identity)).await
    }

    pub(super) async fn append(&self, id: ArrivalId, arrival: &Arrival) -> Ticket<Settlement> {
        self.try_append(id, arrival).await.expect("there is room")
    }

    pub(super) async fn try_append(
        &self,
        id: ArrivalId,
        arrival: &Arrival,
    ) -> Result<Ticket<Settlement>, AppendError> {
        let inbox = &self.engine.store.inbox;
        sure(|| inbox.append(&self.lease, &self.identity, id, arrival.clone())).await
    }

    /// Appends several arrivals in one call; how many had room.
    pub(super) async fn append_all(&self, arrivals: &[(ArrivalId, Arrival)]) -> usize {
        let inbox = &self.engine.store.inbox;
        let appended = sure(|| inbox.append_all(&self.lease, &self.identity, arrivals.to_vec()));
        match appended.await {
            Ok(tickets) => tickets.len(),
            Err(AppendError::Full) => 0,
            Err(AppendError::Store(error)) => panic!("{error}"),
        }
    }

    /// Appends a message and gives it as it is shown.
    pub(super) async fn append_shown(
        &self,
        id: ArrivalId,
        arrival: &Arrival,
    ) -> (MessageEntry, Ticket<Settlement>) {
        let ticket = self.append(id, arrival).await;
        let newest = self.messages().await.pop();
        (newest.expect("it was appended"), ticket)
    }

    pub(super) async fn withdraw(&self, connection: u64) {
        let inbox = &self.engine.store.inbox;
        let connection = ConnectionEpoch(connection);
        sure(|| inbox.withdraw(&self.lease, &self.identity, connection))
            .await
            .expect("the lease stands");
    }

    pub(super) async fn conclude(&self, id: ArrivalId, conclusion: Conclusion) {
        let inbox = &self.engine.store.inbox;
        sure(|| inbox.conclude(&self.lease, &self.identity, id, conclusion))
            .await
            .expect("the lease stands");
    }

    pub(super) async fn settle(
        &self,
        token: &LockToken,
        settlement: Settlement,
    ) -> Result<Ticket<Conclusion>, SettleError> {
        let inbox = &self.engine.store.inbox;
        sure(|| inbox.settle(&self.identity, token, settlement)).await
    }

    pub(super) async fn view(&self) -> InboxView {
        let inbox = &self.engine.store.inbox;
        sure(|| inbox.read(&self.identity))
            .await
            .expect("the engine is there")
    }

    pub(super) async fn messages(&self) -> Vec<MessageEntry> {
        let entries = self.view().await.entries.into_iter();
        entries
            .filter_map(|entry| match entry {
                InboxEntry::Message(message) => Some(message),
                InboxEntry::Method(_) => None,
            })
            .collect()
    }

    pub(super) async fn methods(&self) -> Vec<MethodEntry> {
        let entries = self.view().await.entries.into_iter();
        entries
            .filter_map(|entry| match entry {
                InboxEntry::Message(_) => None,
                InboxEntry::Method(method) => Some(method),
            })
            .collect()
    }

    pub(super) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let inbox = &self.engine.store.inbox;
        let partition = self.lease.partition;
        let letters =
            all_pages(async |after| inbox.dead_letters(partition, after.as_deref()).await);
        let mut letters = letters.await;
        letters.retain(|letter| letter.identity == self.identity);
        letters
    }

    /// A method that arrives on a connection and must be answered in time.
    pub(super) fn method(&self, connection: u64, rid: &str) -> Arrival {
        Arrival::Method {
            id: method_id(connection, rid),
            request: MethodRequest {
                name: "reboot".parse::<MethodName>().expect("a method name"),
                payload: bytes::Bytes::new(),
            },
            deadline: self.engine.clock.instant() + PATIENCE,
            deadline_at: self.engine.clock.timestamp().saturating_add(PATIENCE),
        }
    }
}

/// Calls until the outcome is known, as the contract allows for what has an id.
pub(super) async fn sure<T, E: Unsure, F: Future<Output = Result<T, E>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, E> {
    for _ in 0..MOST_LOST {
        match call().await {
            Err(error) if error.is_unknown() => {}
            known => return known,
        }
    }
    panic!("{MOST_LOST} replies were lost, one after the other")
}

/// Gives an entry of the outbox up, until it is known what that did.
pub(super) async fn give_up(
    reader: &mut Box<dyn OutboxReader>,
    id: EntryId,
    failure: Failure,
) -> Result<GivenUp, StoreError> {
    for _ in 0..MOST_LOST {
        match reader.give_up(id, failure.clone()).await {
            Err(error) if error.is_unknown() => {}
            known => return known,
        }
    }
    panic!("{MOST_LOST} replies were lost, one after the other")
}

/// Settles an entry of the outbox, until it is known.
pub(super) async fn settle(
    reader: &mut Box<dyn OutboxReader>,
    id: EntryId,
    outcome: Outcome,
) -> Result<(), StoreError> {
    for _ in 0..MOST_LOST {
        match reader.settle(id, outcome.clone()).await {
            Err(error) if error.is_unknown() => {}
            known => return known,
        }
    }
    panic!("{MOST_LOST} replies were lost, one after the other")
}

/// An error that may say that the outcome is not known.
pub(super) trait Unsure {
    fn is_unknown(&self) -> bool;
}

impl Unsure for StoreError {
    fn is_unknown(&self) -> bool {
        *self == Self::UnknownOutcome
    }
}

impl Unsure for SubmitError {
    fn is_unknown(&self) -> bool {
        *self == StoreError::UnknownOutcome.into()
    }
}

impl Unsure for AppendError {
    fn is_unknown(&self) -> bool {
        *self == StoreError::UnknownOutcome.into()
    }
}

impl Unsure for PutTokenError {
    fn is_unknown(&self) -> bool {
        *self == StoreError::UnknownOutcome.into()
    }
}

impl Unsure for PersistError {
    fn is_unknown(&self) -> bool {
        *self == StoreError::UnknownOutcome.into()
    }
}

impl Unsure for KeyError {
    fn is_unknown(&self) -> bool {
        *self == StoreError::UnknownOutcome.into()
    }
}

impl Unsure for SettleError {
    fn is_unknown(&self) -> bool {
        *self == StoreError::UnknownOutcome.into()
    }
}

/// What a future gives, if it does so in good time.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(Duration::from_secs(20), future).await;
    in_time.expect("it should have happened long ago")
}

/// What a ticket gives, in good time.
pub(super) async fn outcome<T>(ticket: Ticket<T>) -> T {
    soon(ticket).await.expect("the ticket has an outcome")
}

/// Checks that a future has nothing to say, however often it is asked.
pub(super) async fn assert_waits(future: impl Future) {
    let mut future = pin!(future);
    for _ in 0..100 {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        assert!(polled.is_pending(), "it has come too early");
        tokio::task::yield_now().await;
    }
}

/// Every item of a listing.
pub(super) async fn all_pages<T>(
    mut fetch: impl AsyncFnMut(Option<String>) -> Result<Page<T>, StoreError>,
) -> Vec<T> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        match fetch(after.clone()).await {
            Ok(page) => {
                items.extend(page.items);
                after = page.next;
                if after.is_none() {
                    return items;
                }
            }
            Err(error) => assert!(error.is_unknown(), "the engine is there"),
        }
    }
}

pub(super) fn identity(device: &str) -> Identity {
    let hub: HubName = "hub.example".parse().expect("a hub name");
    let device: DeviceId = device.parse().expect("a device id");
    Identity::device(hub, device)
}

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name)
}

pub(super) const fn arrival(connection: u64, number: u64) -> ArrivalId {
    ArrivalId {
        connection: ConnectionEpoch(connection),
        number,
    }
}

pub(super) fn method_id(connection: u64, rid: &str) -> MethodRequestId {
    MethodRequestId {
        connection: ConnectionEpoch(connection),
        rid: RequestId::new(rid).expect("a request id"),
    }
}

/// A message that its connection takes with it.
pub(super) fn tied() -> Arrival {
    Arrival::Message {
        message: Arc::new(CloudMessage::default()),
        expires_at: None,
        is_tied: true,
    }
}

/// A message that stays, and that its sender has named.
pub(super) fn named(name: &str, payload: &str) -> Arrival {
    let mut message = CloudMessage {
        payload: payload.to_owned().into(),
        ..CloudMessage::default()
    };
    message.system.message_id = Some(name.to_owned());
    Arrival::Message {
        message: Arc::new(message),
        expires_at: None,
        is_tied: false,
    }
}

/// A message that stays.
pub(super) fn untied() -> Arrival {
    Arrival::Message {
        message: Arc::new(CloudMessage::default()),
        expires_at: None,
        is_tied: false,
    }
}

/// Telemetry that can be told from others.
pub(super) fn telemetry(text: &str) -> Work {
    Work::Telemetry(Telemetry {
        payload: text.to_owned().into(),
        ..Telemetry::default()
    })
}

/// A patch of the reported properties.
pub(super) fn patch() -> Work {
    Work::ReportedPatch(ReportedPatch::parse(b"{\"a\":1}").expect("a patch"))
}

/// An answer to a method.
pub(super) fn answer() -> Work {
    Work::MethodAnswer {
        request: method_id(1, "1"),
        response: MethodResponse {
            status: 200,
            payload: bytes::Bytes::new(),
        },
    }
}

/// What telemetry entries say.
pub(super) fn texts(entries: &[OutboxEntry]) -> Vec<String> {
    let text = |entry: &OutboxEntry| match &*entry.work {
        Work::Telemetry(telemetry) => String::from_utf8_lossy(&telemetry.payload).into_owned(),
        Work::TwinRead | Work::ReportedPatch(_) | Work::MethodAnswer { .. } => {
            format!("{:?}", entry.work.lane())
        }
    };
    entries.iter().map(text).collect()
}

/// How long deadlines of a rule lie ahead.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long delivery leases of a rule stand.
pub(super) const LOCK: Duration = Duration::from_secs(60);
/// Replies that a store may lose before a rule gives up.
const MOST_LOST: u32 = 1000;
