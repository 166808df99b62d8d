//! A front, an engine whose clock is days ahead, and the hub side of its devices.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use fastrand::Rng;
use iothub::{CloudMessage, Identity, Timestamp};
use parking_lot::Mutex;
use store::{
    Clock, ConnectionEpoch, Done, EntryId, Failure, InboxEntry, Outbox, OutboxDeadLetter,
    OutboxReader, Outcome, Page, Partition, PersistError, ReplayError, SessionLease, SessionState,
    Stock, Store, StoreError, Submission, SubmissionId, SubmitError, Survival, Ticket, Work,
    conformance::{Cut, Disk, Faulty},
    embedded::{self, Keeper},
    memory,
};

use super::{
    judge::History,
    writes::{About, Kind, Write, abandoned},
};
use crate::{
    hub::Hub,
    rig::{PATIENCE, Rig, identity, serve_device},
};

pub(super) struct World {
    rig: Rig,
    hubs: Vec<Hub>,
    disk: Option<Disk>,
    keeper: Option<Keeper>,
    shift: Shift,
    faults: Option<Rng>,
    history: Arc<History>,
    /// So that no connection after a crash has the number of one before.
    connection: u64,
    is_crashed: Arc<AtomicBool>,
}

/// How copies are sent, as long as the world stands.
#[derive(Clone)]
pub(super) struct Sending {
    client: reqwest::Client,
    url: String,
    is_crashed: Arc<AtomicBool>,
    history: Arc<History>,
}

/// How far the engine's clock is ahead of the machine's, and how wrong its wall clock is besides.
#[derive(Clone, Default)]
pub(super) struct Shift(Arc<Mutex<(Duration, i64)>>);

impl Shift {
    pub(super) fn advance(&self, seconds: u64) {
        self.0.lock().0 += Duration::from_secs(seconds);
    }

    pub(super) fn move_wall_clock(&self, seconds: i64) {
        self.0.lock().1 += seconds;
    }

    /// A crash brings a process that knows nothing but the wall clock, so it is right then.
    fn mend_wall_clock(&self) {
        self.0.lock().1 = 0;
    }

    fn ahead(&self) -> Duration {
        self.0.lock().0
    }
}

impl Clock for Shift {
    fn instant(&self) -> Instant {
        Instant::now() + self.ahead()
    }

    fn timestamp(&self) -> Timestamp {
        let (ahead, wrong) = *self.0.lock();
        let now = Timestamp::from(SystemTime::now()).saturating_add(ahead);
        Timestamp::from_unix_millis(now.unix_millis() + wrong * 1000)
    }
}

impl World {
    pub(super) async fn start(
        disk: Option<Disk>,
        shift: Shift,
        faults: Option<Rng>,
        history: Arc<History>,
    ) -> Self {
        Self::on_connection(10, disk, shift, faults, history).await
    }

    async fn on_connection(
        connection: u64,
        disk: Option<Disk>,
        shift: Shift,
        mut faults: Option<Rng>,
        history: Arc<History>,
    ) -> Self {
        let bounds = memory::Config {
            inbox_messages: 1_000_000,
            inbox_methods: 1_000_000,
            ..memory::Config::default()
        };
        let clock = Arc::new(shift.clone());
        let (store, keeper) = match &disk {
            None => (memory::open_with_clock(bounds, clock).unwrap(), None),
            Some(disk) => {
                let files = Arc::new(disk.clone());
                let config = embedded::Config::new("nowhere".into());
                let opened = embedded::open_with(bounds, &config, files, clock).unwrap();
                (opened.store, Some(opened.keeper))
            }
        };
        let seed = faults.as_mut().map(|rng| rng.u64(..));
        let seen_through = |store: Store| {
            let store = match seed {
                Some(seed) => Faulty::wrap(store, seed),
                None => store,
            };
            let outbox = Ahead {
                outbox: store.outbox.clone(),
                shift: shift.clone(),
            };
            Store {
                outbox: Arc::new(outbox),
                ..store
            }
        };
        let rig = Rig::behind(store, seen_through, |_| {}).await;
        let mut hubs = Vec::new();
        for device in 0..DEVICES {
            let identity = device_identity(device);
            serve_device(&rig.store, &identity, &token(device)).await;
            let mut hub = Hub::on(&rig.store, &identity, ConnectionEpoch(connection)).await;
            hub.is(SessionState::Settled).await;
            let rng = faults.as_mut().map(|rng| Mutex::new(rng.fork()));
            let history = history.clone();
            hub.settles(move |work| Some(happens(work, &history, rng.as_ref())))
                .await;
            hubs.push(hub);
        }
        Self {
            rig,
            hubs,
            disk,
            keeper,
            shift,
            faults,
            history,
            connection,
            is_crashed: Arc::default(),
        }
    }

    /// Makes a write, and what it is about.
    pub(super) async fn prepare(&mut self, kind: Kind, number: usize, seed: u64) -> Write {
        let device = number % DEVICES;
        let mut about = About::default();
        let hub = &mut self.hubs[device];
        if kind.needs_method() {
            // Longer than all steps take together.
            let within = Duration::from_secs(100 * 24 * 3600);
            about.method = Some(hub.invokes("method", "1", within).await);
        }
        if kind.needs_message() {
            let name = abandoned(number);
            let mut message = CloudMessage::default();
            message.system.message_id = Some(name.clone());
            hub.leaves(message).await;
            let view = self.rig.store.inbox.read(&device_identity(device)).await;
            let mut entries = view.unwrap().entries.into_iter().rev();
            about.token = entries.find_map(|entry| match entry {
                InboxEntry::Message(entry) => {
                    let is_it = entry.message.system.message_id.as_ref() == Some(&name);
                    is_it.then(|| entry.token.as_str().to_owned())
                }
                InboxEntry::Method(_) => None,
            });
        }
        Write::new(kind, number, device, seed, &about)
    }

    pub(super) fn sending(&self) -> Sending {
        Sending {
            client: self.rig.client.clone(),
            url: self.rig.url("/devices"),
            is_crashed: self.is_crashed.clone(),
            history: self.history.clone(),
        }
    }

    /// Lets some requests be answered, cuts the power, and starts again with what the disk has then.
    pub(super) async fn crash_soon(self, cut: Cut) -> Self {
        let disk = self.disk.expect("what crashes has a disk");
        // The disk does something for every write, so some are under way.
        let until = disk.operations() + 40;
        let start = Instant::now();
        while disk.operations() < until && start.elapsed() < Duration::from_millis(500) {
            tokio::task::yield_now().await;
        }
        // What is answered from here on was never heard.
        self.is_crashed.store(true, Ordering::SeqCst);
        let image = disk.image(disk.operations(), cut);
        drop(self.hubs);
        // It is cut off, so it has something to complain of.
        let _ = self.rig.handle.shutdown(Duration::from_millis(1)).await;
        drop(self.keeper);
        self.history.crashed();
        self.shift.mend_wall_clock();
        Self::on_connection(
            self.connection + 1,
            Some(image),
            self.shift,
            self.faults,
            self.history,
        )
        .await
    }

    /// Waits until the hub has everything that is stored, and notes how often messages were abandoned.
    pub(super) async fn end(mut self) {
        for (device, hub) in self.hubs.iter_mut().enumerate() {
            let identity = device_identity(device);
            let start = Instant::now();
            while !is_empty(&self.rig.store, &identity).await {
                assert!(start.elapsed() < PATIENCE, "{identity} has entries");
                tokio::task::yield_now().await;
            }
            let view = self.rig.store.inbox.read(&identity).await.unwrap();
            for entry in view.entries {
                let InboxEntry::Message(entry) = entry else {
                    continue;
                };
                let name = entry.message.system.message_id.as_deref().unwrap();
                for _ in 0..entry.delivery_count {
                    self.history.effect(name, None);
                }
            }
            hub.taken.lock().clear();
        }
    }
}

/// Whether nothing of a device waits, or is taken.
async fn is_empty(store: &Store, identity: &Identity) -> bool {
    let partition = Partition::of(identity);
    let backlog = store.outbox.backlog(partition, None).await.unwrap();
    !backlog.items.contains(identity)
}

impl Sending {
    /// Sends a copy until it has an answer that is final, or the world has crashed.
    pub(super) async fn until_final(&self, write: &Write) {
        for _ in 0..MOST_TRIES {
            let url = format!("{}/{}/{}", self.url, device_name(write.device), write.path);
            let request = self
                .client
                .request(write.method.clone(), url)
                .bearer_auth(token(write.device))
                .header("idempotency-key", &write.key)
                .header("content-type", write.content_type)
                .header("prefer", "wait=20")
                .body(write.body.clone());
            let answer = async {
                let answer = request.send().await.ok()?;
                let status = answer.status();
                write.read(status, &answer.text().await.ok()?)
            };
            let answer = answer.await;
            if self.is_crashed.load(Ordering::SeqCst) {
                self.history.refused();
                return;
            }
            match answer {
                Some(answer) => {
                    self.history.answer(&write.key, answer);
                    return;
                }
                None => self.history.refused(),
            }
        }
        panic!("{} has no answer after {MOST_TRIES} copies", write.key);
    }
}

/// What the hub makes of some work.
fn happens(work: &Work, history: &History, faults: Option<&Mutex<Rng>>) -> Outcome {
    let fate = faults.map_or(u32::MAX, |rng| rng.lock().u32(..16));
    if fate == 0 {
        return Err(Failure::HubUnavailable);
    }
    match work {
        Work::Telemetry(telemetry) => {
            let name = String::from_utf8_lossy(&telemetry.payload);
            history.effect(&name, telemetry.system.message_id.as_deref());
        }
        Work::ReportedPatch(patch) => {
            let names: BTreeSet<_> = patch.as_map().keys().collect();
            for name in names {
                history.effect(&name.replace('_', "."), None);
            }
        }
        Work::MethodAnswer { response, .. } => {
            let name = String::from_utf8_lossy(&response.payload);
            history.effect(name.trim_matches('"'), None);
        }
        Work::TwinRead => {}
    }
    if fate == 1 {
        // It has come, and its acknowledgement is lost.
        return Err(Failure::HubTimeout);
    }
    Ok(match work {
        Work::ReportedPatch(_) => Done::ReportedPatched { version: None },
        Work::Telemetry(_) | Work::MethodAnswer { .. } | Work::TwinRead => Done::Acknowledged,
    })
}

fn device_name(device: usize) -> String {
    format!("watch-{device}")
}

fn device_identity(device: usize) -> Identity {
    identity(&device_name(device))
}

fn token(device: usize) -> String {
    format!("tmb_of-{}", device_name(device))
}

/// An outbox whose engine is ahead of whoever submits: deadlines are the submitter's.
struct Ahead {
    outbox: Arc<dyn Outbox>,
    shift: Shift,
}

#[async_trait]
impl Outbox for Ahead {
    fn is_durable(&self) -> bool {
        self.outbox.is_durable()
    }

    async fn submit(&self, mut submission: Submission) -> Result<Ticket<Outcome>, SubmitError> {
        if let Survival::Ephemeral { deadline } = &mut submission.survival {
            *deadline += self.shift.ahead();
        }
        self.outbox.submit(submission).await
    }

    async fn persist(&self, identity: &Identity, id: SubmissionId) -> Result<(), PersistError> {
        self.outbox.persist(identity, id).await
    }

    async fn take_back(&self, identity: &Identity, id: SubmissionId) -> Result<bool, StoreError> {
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

/// So many that no one of them has too many requests in flight.
const DEVICES: usize = 64;
/// Copies of one write, one after the other, before it counts as hopeless.
const MOST_TRIES: u32 = 200;
