//! An engine on a disk in memory, short words for long calls, and what is there.

use std::{sync::Arc, time::Duration};

use iothub::{CloudMessage, Identity, Telemetry};
use tombolo_store::{
    Answer, Arrival, ArrivalId, ConnectionEpoch, Done, Fingerprint, InboxEntry, KeyId, KeyState,
    Lane, LockToken, NodeId, OutboxEntry, OutboxReader, Outcome, Partition, SessionLease,
    Settlement, Store, Submission, SubmissionId, SubmitError, Survival, Ticket, Work,
    conformance::{Disk, ManualClock},
    embedded::{self, Keeper, OpenError, Recovery},
};

use super::checker::Seen;
use crate::conformance;

pub(super) struct Rig {
    pub(super) store: Store,
    pub(super) keeper: Keeper,
    pub(super) recovery: Recovery,
    pub(super) clock: ManualClock,
}

impl Rig {
    pub(super) fn open(disk: &Disk) -> Self {
        Self::try_open(disk, config()).expect("the disk is whole")
    }

    pub(super) fn try_open(disk: &Disk, config: embedded::Config) -> Result<Self, OpenError> {
        Self::open_at(ManualClock::new(), disk, config)
    }

    /// Opens it when it is as late as this clock says.
    pub(super) fn open_at(
        clock: ManualClock,
        disk: &Disk,
        config: embedded::Config,
    ) -> Result<Self, OpenError> {
        let mut bounds = conformance::config();
        bounds.keys = 1000;
        bounds.outbox_entries = 1000;
        bounds.outbox_bytes = 1024 * 1024;
        bounds.inbox_messages = 1000;
        let opened = embedded::open_with(
            bounds,
            &config,
            Arc::new(disk.clone()),
            Arc::new(clock.clone()),
        )?;
        Ok(Self {
            store: opened.store,
            keeper: opened.keeper,
            recovery: opened.recovery,
            clock,
        })
    }

    pub(super) async fn submit(
        &self,
        device: &str,
        id: u64,
        text: &str,
    ) -> Result<Ticket<Outcome>, SubmitError> {
        self.store.outbox.submit(submission(device, id, text)).await
    }

    pub(super) async fn lease(&self, device: &str) -> SessionLease {
        let partition = Partition::of(&identity(device));
        let lease = self
            .store
            .leases
            .acquire(&NodeId::new("a"), partition)
            .await;
        lease.expect("nobody else holds it")
    }

    pub(super) async fn reader(&self, device: &str) -> Box<dyn OutboxReader> {
        let lease = self.lease(device).await;
        let reader = self.store.outbox.open(&lease, &identity(device)).await;
        reader.expect("the lease stands")
    }

    /// Takes everything that waits.
    pub(super) async fn waiting(&self, device: &str) -> Vec<OutboxEntry> {
        let mut reader = self.reader(device).await;
        let taken = reader.take(Lane::Telemetry, usize::MAX).await;
        taken.expect("the lease stands")
    }

    /// Settles the oldest entry of a device as acknowledged; false if there is none.
    pub(super) async fn acknowledge_one(&self, device: &str) -> bool {
        let mut reader = self.reader(device).await;
        let taken = reader.take(Lane::Telemetry, 1).await;
        let taken = taken.expect("the lease stands");
        for entry in &taken {
            let settled = reader.settle(entry.id, Ok(Done::Acknowledged)).await;
            settled.expect("the lease stands");
        }
        !taken.is_empty()
    }

    /// Appends a message that the gateway keeps; its name is its message id.
    pub(super) async fn arrive(
        &self,
        device: &str,
        name: u64,
        text: &str,
    ) -> Result<(), tombolo_store::AppendError> {
        self.arrive_on(1, device, name, text).await
    }

    /// The same, on this connection.
    pub(super) async fn arrive_on(
        &self,
        connection: u64,
        device: &str,
        name: u64,
        text: &str,
    ) -> Result<(), tombolo_store::AppendError> {
        let lease = self.lease(device).await;
        let (id, arrival) = arrival(connection, name, text);
        let inbox = &self.store.inbox;
        inbox.append(&lease, &identity(device), id, arrival).await?;
        Ok(())
    }

    /// Appends messages in one call.
    pub(super) async fn arrive_together(&self, device: &str, names: std::ops::Range<u64>) {
        let lease = self.lease(device).await;
        let arrivals: Vec<_> = names.map(|name| arrival(1, name, "x")).collect();
        let (inbox, all) = (&self.store.inbox, arrivals.len());
        let appended = inbox.append_all(&lease, &identity(device), arrivals).await;
        assert_eq!(appended.expect("there is room").len(), all);
    }

    /// The messages that are offered: token, name, text, count.
    pub(super) async fn offered(&self, device: &str) -> Vec<(LockToken, u64, String, u32)> {
        let view = self.store.inbox.read(&identity(device)).await;
        let entries = view.expect("the engine is there").entries.into_iter();
        entries
            .filter_map(|entry| match entry {
                InboxEntry::Message(entry) => {
                    let name = entry.message.system.message_id.as_deref();
                    let name = name.and_then(|name| name.parse().ok());
                    let text = String::from_utf8_lossy(&entry.message.payload).into_owned();
                    Some((entry.token, name.unwrap_or(0), text, entry.delivery_count))
                }
                InboxEntry::Method(_) => None,
            })
            .collect()
    }

    pub(super) async fn settle_message(
        &self,
        device: &str,
        token: &LockToken,
        settlement: Settlement,
    ) -> bool {
        let inbox = &self.store.inbox;
        let settled = inbox.settle(&identity(device), token, settlement).await;
        settled.is_ok()
    }

    /// Everything that is there of these devices, in order: entries of the outbox, messages of the inbox.
    pub(super) async fn seen(&self, devices: &[&str]) -> Vec<Seen> {
        let mut seen = Vec::new();
        for device in devices {
            for entry in self.waiting(device).await {
                let Work::Telemetry(telemetry) = &*entry.work else {
                    panic!("nothing else was submitted");
                };
                let name = telemetry.system.message_id.as_deref();
                seen.push(Seen {
                    lane: format!("out {device}"),
                    name: name.and_then(|name| name.parse().ok()).unwrap_or(0),
                    text: String::from_utf8_lossy(&telemetry.payload).into_owned(),
                });
            }
            for (_, name, text, _) in self.offered(device).await {
                let lane = format!("in {device}");
                seen.push(Seen { lane, name, text });
            }
        }
        seen
    }

    pub(super) async fn begin_key(&self, id: u64) -> Option<KeyState> {
        let registry = &self.store.registry;
        let fingerprint = Fingerprint::of(&[b"key"]);
        let keys = identity("keys");
        let state = registry.begin_key(&keys, KeyId(id.into()), fingerprint);
        state.await.ok()
    }

    pub(super) async fn note_key(&self, id: u64, note: &[u8]) -> bool {
        let note = Answer::new(note).expect("it is short");
        let registry = &self.store.registry;
        let keys = identity("keys");
        let noted = registry.note_key(&keys, KeyId(id.into()), note);
        noted.await.is_ok()
    }

    pub(super) async fn answer_key(&self, id: u64, answer: &[u8]) -> bool {
        let answer = Answer::new(answer).expect("it is short");
        let registry = &self.store.registry;
        let keys = identity("keys");
        let answered = registry.answer_key(&keys, KeyId(id.into()), answer);
        answered.await.is_ok()
    }
}

/// A message that the gateway keeps, as it comes; its name is its message id.
fn arrival(connection: u64, name: u64, text: &str) -> (ArrivalId, Arrival) {
    let mut message = CloudMessage {
        payload: text.to_owned().into(),
        ..CloudMessage::default()
    };
    message.system.message_id = Some(name.to_string());
    let id = ArrivalId {
        connection: ConnectionEpoch(connection),
        number: name,
    };
    let arrival = Arrival::Message {
        message: Arc::new(message),
        expires_at: None,
        is_tied: false,
    };
    (id, arrival)
}

pub(super) fn submission(device: &str, id: u64, text: &str) -> Submission {
    let mut telemetry = Telemetry {
        payload: text.to_owned().into(),
        ..Telemetry::default()
    };
    telemetry.system.message_id = Some(id.to_string());
    Submission {
        id: SubmissionId(id.into()),
        identity: identity(device),
        work: Arc::new(Work::Telemetry(telemetry)),
        survival: Survival::Durable,
        fingerprint: Some(Fingerprint::of(&[text.as_bytes()])),
    }
}

pub(super) fn identity(device: &str) -> Identity {
    let hub = "hub.example".parse().expect("a hub name");
    Identity::device(hub, device.parse().expect("a device id"))
}

pub(super) fn config() -> embedded::Config {
    embedded::Config::new("nowhere".into())
}

/// A log of small segments, so that short workloads fill and clean some.
pub(super) fn small_segments() -> embedded::Config {
    embedded::Config {
        segment_bytes: 2048,
        ..config()
    }
}

/// Waits for a condition, with a bound.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
    assert!(waited.is_ok(), "{what}");
}

/// Whether the long form is asked for.
pub(super) fn is_long() -> bool {
    std::env::var_os("TOMBOLO_LONG").is_some_and(|value| value != "0")
}
