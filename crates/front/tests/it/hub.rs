//! The other side of the store's contract, as a test plays it.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use iothub::{
    CloudMessage, Identity, MethodRequest, Timestamp, topic,
    twin::{Section, TwinVersion},
};
use parking_lot::Mutex;
use serde_json::Value;
use store::{
    Arrival, ArrivalId, Conclusion, ConnectionEpoch, Desired, Done, Lane, MethodRequestId, Need,
    NeedsNow, NeedsWatch, NodeId, Outcome, Partition, SessionLease, SessionState, Settlement,
    Status, Store, Ticket, Work,
};

use crate::rig::{Background, background, until};

/// A device's session with a hub, without a hub.
pub(crate) struct Hub {
    store: Store,
    identity: Identity,
    lease: SessionLease,
    connection: ConnectionEpoch,
    arrivals: u64,
    /// What the device sent, in order.
    pub(crate) taken: Arc<Mutex<Vec<Work>>>,
    reader: Option<Background<()>>,
    needs: Box<dyn NeedsWatch>,
}

impl Hub {
    /// A session that nobody has connected yet.
    pub(crate) async fn new(store: &Store, identity: &Identity) -> Self {
        Self::on(store, identity, ConnectionEpoch(3)).await
    }

    /// The same, whose first connection has this number.
    pub(crate) async fn on(
        store: &Store,
        identity: &Identity,
        connection: ConnectionEpoch,
    ) -> Self {
        let node = NodeId::new("test");
        let lease = store
            .leases
            .acquire(&node, Partition::of(identity))
            .await
            .unwrap();
        let needs = store.signals.attend(&lease, identity).await.unwrap();
        Self {
            store: store.clone(),
            identity: identity.clone(),
            lease,
            connection,
            arrivals: 0,
            taken: Arc::default(),
            reader: None,
            needs,
        }
    }

    /// The session is in this state. A settled one offers methods.
    pub(crate) async fn is(&self, state: SessionState) {
        self.is_offering(state, state == SessionState::Settled)
            .await;
    }

    /// The session is in this state, and offers methods or does not.
    pub(crate) async fn is_offering(&self, state: SessionState, offers_methods: bool) {
        let status = Status {
            state,
            connection: matches!(state, SessionState::Connected | SessionState::Settled)
                .then_some(self.connection),
            offers_methods,
            since: Some(now()),
            last_error: None,
        };
        self.store
            .signals
            .set_status(&self.lease, &self.identity, status)
            .await
            .unwrap();
    }

    /// Takes what the device sends from now on, and settles it like this. `None` leaves it unsettled.
    pub(crate) async fn settles(
        &mut self,
        outcome: impl Fn(&Work) -> Option<Outcome> + Send + Sync + 'static,
    ) {
        let mut reader = self
            .store
            .outbox
            .open(&self.lease, &self.identity)
            .await
            .unwrap();
        let taken = self.taken.clone();
        let task = async move {
            loop {
                reader.ready().await;
                for lane in Lane::ALL {
                    let Ok(entries) = reader.take(lane, 16).await else {
                        return;
                    };
                    for entry in entries {
                        let outcome = outcome(&entry.work);
                        taken.lock().push(Work::clone(&entry.work));
                        if let Some(outcome) = outcome {
                            reader.settle(entry.id, outcome).await.unwrap();
                        }
                    }
                }
            }
        };
        self.reader = Some(background(task));
    }

    /// Acknowledges everything.
    pub(crate) async fn acknowledges(&mut self) {
        self.settles(|_| Some(Ok(Done::Acknowledged))).await;
    }

    /// A cloud-to-device message comes, in custody `hub`.
    pub(crate) async fn sends(&mut self, message: CloudMessage) -> (ArrivalId, Ticket<Settlement>) {
        let arrival = Arrival::Message {
            expires_at: message.expires_at(),
            message: Arc::new(message),
            is_tied: true,
        };
        self.append(arrival).await
    }

    /// A cloud-to-device message comes, in custody `gateway`.
    pub(crate) async fn leaves(&mut self, message: CloudMessage) {
        let arrival = Arrival::Message {
            expires_at: message.expires_at(),
            message: Arc::new(message),
            is_tied: false,
        };
        self.append(arrival).await;
    }

    /// A direct method comes, to be answered within this time.
    pub(crate) async fn invokes(
        &mut self,
        name: &str,
        payload: &str,
        within: Duration,
    ) -> MethodRequestId {
        let id = MethodRequestId {
            connection: self.connection,
            rid: topic::RequestId::from(self.arrivals + 1),
        };
        let arrival = Arrival::Method {
            id: id.clone(),
            request: MethodRequest {
                name: name.parse().unwrap(),
                payload: Bytes::copy_from_slice(payload.as_bytes()),
            },
            deadline: Instant::now() + within,
            deadline_at: now().saturating_add(within),
        };
        self.append(arrival).await;
        id
    }

    /// What requests of the device need of the session, or have needed.
    pub(crate) fn needs(&mut self) -> NeedsNow {
        self.needs.current()
    }

    /// Waits until a request of the device needs the session for this, or until none does.
    pub(crate) async fn until_needed(&mut self, need: impl Fn(NeedsNow) -> Need, is_needed: bool) {
        until(|| (need(self.needs.current()) == Need::Now) == is_needed).await;
    }

    /// Waits until something of the device waits in the outbox.
    pub(crate) async fn until_submitted(&self) {
        let partition = Partition::of(&self.identity);
        while self
            .store
            .outbox
            .backlog(partition, None)
            .await
            .unwrap()
            .items
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the device has settled every message.
    pub(crate) async fn until_all_settled(&self) {
        while !self
            .store
            .inbox
            .read(&self.identity)
            .await
            .unwrap()
            .entries
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn concludes(&self, id: ArrivalId, conclusion: Conclusion) {
        self.store
            .inbox
            .conclude(&self.lease, &self.identity, id, conclusion)
            .await
            .unwrap();
    }

    pub(crate) async fn loses_the_connection(&mut self) {
        self.store
            .inbox
            .withdraw(&self.lease, &self.identity, self.connection)
            .await
            .unwrap();
        self.connection.0 += 1;
    }

    pub(crate) async fn wants(&self, version: u64, properties: Value) {
        let Value::Object(properties) = properties else {
            panic!("properties are an object");
        };
        let desired = Desired {
            section: Arc::new(Section {
                properties,
                version: TwinVersion(version),
            }),
            connection: self.connection,
        };
        self.store
            .inbox
            .set_desired(&self.lease, &self.identity, Some(desired))
            .await
            .unwrap();
    }

    async fn append(&mut self, arrival: Arrival) -> (ArrivalId, Ticket<Settlement>) {
        self.arrivals += 1;
        let id = ArrivalId {
            connection: self.connection,
            number: self.arrivals,
        };
        (
            id,
            self.store
                .inbox
                .append(&self.lease, &self.identity, id, arrival)
                .await
                .unwrap(),
        )
    }
}

pub(crate) fn message(body: &str) -> CloudMessage {
    CloudMessage {
        payload: Bytes::copy_from_slice(body.as_bytes()),
        ..CloudMessage::default()
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
