//! A store whose replies get lost, come late, and that wakes for nothing.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use fastrand::Rng;
use iothub::{CloudMessage, Identity};
use parking_lot::Mutex;

use crate::{
    Answer, AppendError, Arrival, ArrivalId, Conclusion, ConnectionEpoch, DeadLetter,
    DeliveryLease, Demand, Desired, DeviceRecord, EntryId, Failure, Fingerprint, GivenUp, Inbox,
    InboxView, KeyError, KeyId, KeyState, Lane, LaneSet, Leases, LockToken, MethodRequestId, Needs,
    NeedsNow, NeedsWatch, NodeId, Outbox, OutboxDeadLetter, OutboxEntry, OutboxReader, Outcome,
    Page, Partition, PersistError, PutTokenError, Receipt, Registry, ReplayError, SealedCredential,
    SessionLease, SettleError, Settlement, Signals, Status, Stock, Store, StoreError, Submission,
    SubmissionId, SubmitError, Ticket, TokenHash, TokenId, TokenRecord, Watch, Work,
};

/// Wraps a store. From its seed it decides, call by call:
///
/// - how often the task yields before the call and before its reply;
/// - whether the reply is lost: the call is carried out, its caller hears
///   [`UnknownOutcome`](StoreError::UnknownOutcome), and what it would have been given is dropped;
/// - whether a wait ends for nothing.
///
/// Replies of [`OutboxReader::take`], [`Inbox::receive`], [`Inbox::claim_method`], [`Signals::next_wanted`] and of replays are
/// never lost. Those have no id to ask again by: who loses one starts over by other means (opens the lanes again, waits for
/// the lock's end, answers that the method is lost, is told again), and the rules check these means themselves.
#[derive(Clone)]
pub struct Faulty {
    store: Store,
    faults: Faults,
}

impl Faulty {
    /// A store with faults around another.
    #[must_use]
    pub fn wrap(store: Store, seed: u64) -> Store {
        let judge = store.judge.clone();
        let faulty = Arc::new(Self {
            store,
            faults: Faults(Arc::new(Mutex::new(Rng::with_seed(seed)))),
        });
        Store {
            outbox: Arc::clone(&faulty) as _,
            inbox: Arc::clone(&faulty) as _,
            registry: Arc::clone(&faulty) as _,
            leases: Arc::clone(&faulty) as _,
            signals: faulty,
            judge,
        }
    }
}

#[derive(Clone)]
struct Faults(Arc<Mutex<Rng>>);

impl Faults {
    /// Carries a call out, some time, and perhaps loses its reply.
    async fn around<T, E: From<StoreError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let reply = self.late(call).await;
        if self.is_now(LOST_IN) {
            Err(StoreError::UnknownOutcome.into())
        } else {
            reply
        }
    }

    /// Carries a call out, some time.
    async fn late<T>(&self, call: impl Future<Output = T>) -> T {
        self.dawdle().await;
        let reply = call.await;
        self.dawdle().await;
        reply
    }

    async fn dawdle(&self) {
        let yields = self.0.lock().u32(..MOST_YIELDS);
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
    }

    /// Waits, or does not.
    async fn wait(&self, wait: impl Future<Output = ()>) {
        if !self.is_now(WOKEN_IN) {
            wait.await;
        }
        self.dawdle().await;
    }

    /// True once in so many times.
    fn is_now(&self, times: u32) -> bool {
        self.0.lock().u32(..times) == 0
    }
}

#[async_trait]
impl Outbox for Faulty {
    fn is_durable(&self) -> bool {
        self.store.outbox.is_durable()
    }

    async fn submit(&self, submission: Submission) -> Result<Ticket<Outcome>, SubmitError> {
        self.faults
            .around(self.store.outbox.submit(submission))
            .await
    }

    async fn persist(&self, identity: &Identity, id: SubmissionId) -> Result<(), PersistError> {
        self.faults
            .around(self.store.outbox.persist(identity, id))
            .await
    }

    async fn take_back(&self, identity: &Identity, id: SubmissionId) -> Result<bool, StoreError> {
        self.faults
            .around(self.store.outbox.take_back(identity, id))
            .await
    }

    async fn open(
        &self,
        lease: &SessionLease,
        identity: &Identity,
    ) -> Result<Box<dyn OutboxReader>, StoreError> {
        let open = self.store.outbox.open(lease, identity);
        Ok(Box::new(FaultyReader {
            reader: self.faults.around(open).await?,
            faults: self.faults.clone(),
        }))
    }

    async fn backlog(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<Identity>, StoreError> {
        self.faults
            .around(self.store.outbox.backlog(partition, after))
            .await
    }

    async fn dead_letters(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<OutboxDeadLetter>, StoreError> {
        self.faults
            .around(self.store.outbox.dead_letters(partition, after))
            .await
    }

    async fn dead_letter(
        &self,
        identity: &Identity,
        id: EntryId,
    ) -> Result<Option<(OutboxDeadLetter, Option<Work>)>, StoreError> {
        self.faults
            .around(self.store.outbox.dead_letter(identity, id))
            .await
    }

    async fn replay(&self, identity: &Identity, id: EntryId) -> Result<(), ReplayError> {
        self.faults
            .late(self.store.outbox.replay(identity, id))
            .await
    }

    async fn discard(&self, identity: &Identity, id: EntryId) -> Result<bool, StoreError> {
        self.faults
            .around(self.store.outbox.discard(identity, id))
            .await
    }

    async fn stock(&self, partition: Partition) -> Result<Stock, StoreError> {
        self.faults.around(self.store.outbox.stock(partition)).await
    }

    async fn stock_of(&self, identity: &Identity) -> Result<Stock, StoreError> {
        self.faults
            .around(self.store.outbox.stock_of(identity))
            .await
    }
}

struct FaultyReader {
    reader: Box<dyn OutboxReader>,
    faults: Faults,
}

#[async_trait]
impl OutboxReader for FaultyReader {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<LaneSet> {
        if self.faults.is_now(WOKEN_IN) {
            return Poll::Ready(LaneSet::ALL);
        }
        self.reader.poll_ready(cx)
    }

    async fn take(&mut self, lane: Lane, max: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        self.faults.late(self.reader.take(lane, max)).await
    }

    async fn settle(&mut self, id: EntryId, outcome: Outcome) -> Result<(), StoreError> {
        self.faults.around(self.reader.settle(id, outcome)).await
    }

    async fn give_up(&mut self, id: EntryId, failure: Failure) -> Result<GivenUp, StoreError> {
        self.faults.around(self.reader.give_up(id, failure)).await
    }
}

#[async_trait]
impl Inbox for Faulty {
    async fn append_all(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        arrivals: Vec<(ArrivalId, Arrival)>,
    ) -> Result<Vec<Ticket<Settlement>>, AppendError> {
        let append = self.store.inbox.append_all(lease, identity, arrivals);
        self.faults.around(append).await
    }

    async fn set_desired(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        desired: Option<Desired>,
    ) -> Result<(), StoreError> {
        let set = self.store.inbox.set_desired(lease, identity, desired);
        self.faults.around(set).await
    }

    async fn withdraw(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        connection: ConnectionEpoch,
    ) -> Result<(), StoreError> {
        let withdraw = self.store.inbox.withdraw(lease, identity, connection);
        self.faults.around(withdraw).await
    }

    async fn conclude(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        id: ArrivalId,
        conclusion: Conclusion,
    ) -> Result<(), StoreError> {
        let conclude = self.store.inbox.conclude(lease, identity, id, conclusion);
        self.faults.around(conclude).await
    }

    async fn read(&self, identity: &Identity) -> Result<InboxView, StoreError> {
        self.faults.around(self.store.inbox.read(identity)).await
    }

    async fn receive(
        &self,
        identity: &Identity,
        lock: Duration,
    ) -> Result<Option<DeliveryLease>, StoreError> {
        self.faults
            .late(self.store.inbox.receive(identity, lock))
            .await
    }

    async fn settle(
        &self,
        identity: &Identity,
        token: &LockToken,
        settlement: Settlement,
    ) -> Result<Ticket<Conclusion>, SettleError> {
        let settle = self.store.inbox.settle(identity, token, settlement);
        self.faults.around(settle).await
    }

    async fn claim_method(
        &self,
        identity: &Identity,
        request: &MethodRequestId,
    ) -> Result<(), SettleError> {
        self.faults
            .late(self.store.inbox.claim_method(identity, request))
            .await
    }

    async fn dead_letters(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<DeadLetter>, StoreError> {
        self.faults
            .around(self.store.inbox.dead_letters(partition, after))
            .await
    }

    async fn dead_letter(
        &self,
        identity: &Identity,
        sequence: u64,
    ) -> Result<Option<(DeadLetter, Option<Arc<CloudMessage>>)>, StoreError> {
        self.faults
            .around(self.store.inbox.dead_letter(identity, sequence))
            .await
    }

    async fn replay(&self, identity: &Identity, sequence: u64) -> Result<(), ReplayError> {
        self.faults
            .late(self.store.inbox.replay(identity, sequence))
            .await
    }

    async fn discard(&self, identity: &Identity, sequence: u64) -> Result<bool, StoreError> {
        self.faults
            .around(self.store.inbox.discard(identity, sequence))
            .await
    }

    async fn stock(&self, partition: Partition) -> Result<Stock, StoreError> {
        self.faults.around(self.store.inbox.stock(partition)).await
    }

    async fn stock_of(&self, identity: &Identity) -> Result<Stock, StoreError> {
        self.faults
            .around(self.store.inbox.stock_of(identity))
            .await
    }
}

#[async_trait]
impl Registry for Faulty {
    async fn device(&self, identity: &Identity) -> Result<Option<DeviceRecord>, StoreError> {
        self.faults
            .around(self.store.registry.device(identity))
            .await
    }

    async fn put_device(&self, record: DeviceRecord) -> Result<(), StoreError> {
        self.faults
            .around(self.store.registry.put_device(record))
            .await
    }

    async fn devices(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        self.faults
            .around(self.store.registry.devices(partition, after))
            .await
    }

    async fn put_token(&self, record: TokenRecord) -> Result<(), PutTokenError> {
        self.faults
            .around(self.store.registry.put_token(record))
            .await
    }

    async fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        self.faults.around(self.store.registry.token(hash)).await
    }

    async fn revoke_token(&self, identity: &Identity, id: &TokenId) -> Result<bool, StoreError> {
        self.faults
            .around(self.store.registry.revoke_token(identity, id))
            .await
    }

    async fn tokens(&self, identity: &Identity) -> Result<Vec<TokenRecord>, StoreError> {
        self.faults
            .around(self.store.registry.tokens(identity))
            .await
    }

    async fn receipt(
        &self,
        identity: &Identity,
        id: SubmissionId,
    ) -> Result<Option<Receipt>, StoreError> {
        self.faults
            .around(self.store.registry.receipt(identity, id))
            .await
    }

    async fn begin_key(
        &self,
        identity: &Identity,
        id: KeyId,
        fingerprint: Fingerprint,
    ) -> Result<KeyState, KeyError> {
        self.faults
            .around(self.store.registry.begin_key(identity, id, fingerprint))
            .await
    }

    async fn note_key(
        &self,
        identity: &Identity,
        id: KeyId,
        note: Answer,
    ) -> Result<(), StoreError> {
        self.faults
            .around(self.store.registry.note_key(identity, id, note))
            .await
    }

    async fn answer_key(
        &self,
        identity: &Identity,
        id: KeyId,
        answer: Answer,
    ) -> Result<(), StoreError> {
        self.faults
            .around(self.store.registry.answer_key(identity, id, answer))
            .await
    }

    async fn forget_key(&self, identity: &Identity, id: KeyId) -> Result<(), StoreError> {
        self.faults
            .around(self.store.registry.forget_key(identity, id))
            .await
    }

    async fn put_credential(
        &self,
        identity: &Identity,
        credential: SealedCredential,
    ) -> Result<(), StoreError> {
        let registry = &self.store.registry;
        let put = registry.put_credential(identity, credential);
        self.faults.around(put).await
    }

    async fn forget_credential(
        &self,
        identity: &Identity,
        credential: &SealedCredential,
    ) -> Result<(), StoreError> {
        let registry = &self.store.registry;
        let forgotten = registry.forget_credential(identity, credential);
        self.faults.around(forgotten).await
    }

    async fn credential(
        &self,
        identity: &Identity,
    ) -> Result<Option<SealedCredential>, StoreError> {
        self.faults
            .around(self.store.registry.credential(identity))
            .await
    }
}

#[async_trait]
impl Leases for Faulty {
    async fn acquire(
        &self,
        node: &NodeId,
        partition: Partition,
    ) -> Result<SessionLease, StoreError> {
        self.faults
            .around(self.store.leases.acquire(node, partition))
            .await
    }

    async fn renew(&self, lease: &SessionLease) -> Result<Duration, StoreError> {
        self.faults.around(self.store.leases.renew(lease)).await
    }

    async fn release(&self, lease: &SessionLease) -> Result<(), StoreError> {
        self.faults.around(self.store.leases.release(lease)).await
    }

    async fn owner(&self, partition: Partition) -> Result<Option<NodeId>, StoreError> {
        self.faults.around(self.store.leases.owner(partition)).await
    }
}

#[async_trait]
impl Signals for Faulty {
    async fn demand(&self, identity: &Identity, needs: Needs) -> Result<Demand, StoreError> {
        self.faults
            .around(self.store.signals.demand(identity, needs))
            .await
    }

    async fn next_wanted(&self, node: &NodeId) -> Result<Identity, StoreError> {
        self.faults.late(self.store.signals.next_wanted(node)).await
    }

    async fn attend(
        &self,
        lease: &SessionLease,
        identity: &Identity,
    ) -> Result<Box<dyn NeedsWatch>, StoreError> {
        let attend = self.store.signals.attend(lease, identity);
        Ok(Box::new(FaultyNeeds {
            needs: self.faults.around(attend).await?,
            faults: self.faults.clone(),
        }))
    }

    async fn set_status(
        &self,
        lease: &SessionLease,
        identity: &Identity,
        status: Status,
    ) -> Result<(), StoreError> {
        let set = self.store.signals.set_status(lease, identity, status);
        self.faults.around(set).await
    }

    async fn status(&self, identity: &Identity) -> Result<Status, StoreError> {
        self.faults
            .around(self.store.signals.status(identity))
            .await
    }

    async fn statuses(
        &self,
        partition: Partition,
        after: Option<&str>,
    ) -> Result<Page<(Identity, Status)>, StoreError> {
        self.faults
            .around(self.store.signals.statuses(partition, after))
            .await
    }

    async fn watch(&self, identity: &Identity) -> Result<Box<dyn Watch>, StoreError> {
        let watch = self.store.signals.watch(identity);
        Ok(Box::new(FaultyWatch {
            watch: self.faults.around(watch).await?,
            faults: self.faults.clone(),
        }))
    }
}

struct FaultyWatch {
    watch: Box<dyn Watch>,
    faults: Faults,
}

#[async_trait]
impl Watch for FaultyWatch {
    async fn changed(&mut self) {
        self.faults.wait(self.watch.changed()).await;
    }
}

struct FaultyNeeds {
    needs: Box<dyn NeedsWatch>,
    faults: Faults,
}

impl NeedsWatch for FaultyNeeds {
    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.faults.is_now(WOKEN_IN) {
            return Poll::Ready(());
        }
        self.needs.poll_changed(cx)
    }

    fn current(&mut self) -> NeedsNow {
        self.needs.current()
    }
}

/// Of how many replies one is lost.
const LOST_IN: u32 = 4;
/// Of how many waits one ends for nothing.
const WOKEN_IN: u32 = 4;
/// So many less one is the most that a call dawdles on each of its ways.
const MOST_YIELDS: u32 = 4;
