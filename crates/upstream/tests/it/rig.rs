//! A store, a hub, and the sessions between them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::RecvTimeoutError,
    },
    time::Duration,
};

use iothub::{Identity, Telemetry, Timestamp, sas::Key};
use store::{
    Conclusion, Demand, InboxView, MessageEntry, MethodEntry, Needs, NodeId, Outcome, ReceiptState,
    SessionState, SettleError, Settlement, Status, Store, Submission, SubmissionId, Survival,
    Ticket, Verdict, Work,
    embedded::{Keeper, OpenError},
};
use tempfile::TempDir;
use tokio::time::Instant;
use upstream::{
    Config, Upstream,
    config::{DeviceConfig, HubConfig, KeySource},
};

use crate::hub::{self, Hub};

pub(crate) const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

pub(crate) struct Rig {
    pub(crate) store: Store,
    pub(crate) hub: Arc<Hub>,
    pub(crate) upstream: Option<Upstream>,
    config: Config,
    /// The disk of the store, if it has one.
    keeper: Option<Keeper>,
    folder: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a change of the configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(change, Disk::No).await
    }

    /// With a store on a disk.
    pub(crate) async fn durable() -> Self {
        Self::durable_with(|_| {}).await
    }

    pub(crate) async fn durable_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(change, Disk::Yes).await
    }

    async fn start(change: impl FnOnce(&mut Config), disk: Disk) -> Self {
        leaks::record();
        leaks::mark_key("key of dev1", KEY);
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let hub = Hub::start(&ca_file).await;
        let mut config = Config {
            hubs: vec![HubConfig {
                address: Some(hub.address().parse().unwrap()),
                https_address: Some(hub.https_address().parse().unwrap()),
                ca_file: Some(ca_file),
                ..HubConfig::new(hub::NAME.parse().unwrap())
            }],
            devices: vec![DeviceConfig::new(
                "dev1".parse().unwrap(),
                KeySource::Text(KEY.into()),
            )],
            ..Config::default()
        };
        change(&mut config);
        let (store, keeper) = open(&folder, disk).unwrap();
        let upstream = Upstream::start(config.clone(), store.clone(), NodeId::new("a")).await;
        Self {
            store,
            hub: Arc::new(hub),
            upstream: Some(upstream.unwrap()),
            config,
            keeper,
            folder,
        }
    }

    /// Ends the sessions without a word, and starts again on what the disk has.
    pub(crate) async fn restart(&mut self) {
        (self.upstream, self.keeper) = (None, None);
        (self.store, _) = open(&self.folder, Disk::No).unwrap();
        // The tasks of the last life have the folder until they have ended.
        (self.store, self.keeper) = soon(async {
            loop {
                match open(&self.folder, Disk::Yes) {
                    Ok(opened) => return opened,
                    Err(OpenError::InUse(_)) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other}"),
                }
            }
        })
        .await;
        let config = self.config.clone();
        let upstream = Upstream::start(config, self.store.clone(), NodeId::new("a")).await;
        self.upstream = Some(upstream.unwrap());
    }

    /// Submits what is to survive.
    pub(crate) async fn store(&self, work: Work) -> (SubmissionId, Ticket<Outcome>) {
        self.submit_as(work, Survival::Durable).await
    }

    pub(crate) async fn receipt(&self, id: SubmissionId) -> ReceiptState {
        let receipt = self.store.registry.receipt(&dev1(), id).await.unwrap();
        receipt.expect("it was stored").state
    }

    pub(crate) async fn submit(&self, work: Work, wait: Duration) -> Ticket<Outcome> {
        let deadline = (Instant::now() + wait).into_std();
        let (_, ticket) = self.submit_as(work, Survival::Ephemeral { deadline }).await;
        ticket
    }

    pub(crate) async fn submit_as(
        &self,
        work: Work,
        survival: Survival,
    ) -> (SubmissionId, Ticket<Outcome>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SubmissionId(NEXT.fetch_add(1, Ordering::Relaxed).into());
        let submission = Submission {
            id,
            identity: dev1(),
            work: Arc::new(work),
            survival,
            fingerprint: None,
        };
        (id, self.store.outbox.submit(submission).await.unwrap())
    }

    pub(crate) async fn send(&self, payload: &'static str) -> Ticket<Outcome> {
        self.submit(telemetry(payload), LONG).await
    }

    pub(crate) async fn demand(&self, methods: bool, desired: bool) -> Demand {
        let needs = Needs { methods, desired };
        self.store.signals.demand(&dev1(), needs).await.unwrap()
    }

    /// What the inbox shows as soon as it is what the test wants.
    pub(crate) async fn inbox(&self, is_right: impl Fn(&InboxView) -> bool) -> InboxView {
        let mut watch = self.store.signals.watch(&dev1()).await.unwrap();
        soon(async {
            loop {
                let view = self.store.inbox.read(&dev1()).await.unwrap();
                if is_right(&view) {
                    return view;
                }
                watch.changed().await;
            }
        })
        .await
    }

    pub(crate) async fn messages(&self, count: usize) -> Vec<MessageEntry> {
        let view = self.inbox(|view| view.entries.len() == count).await;
        let messages = view.entries.into_iter().map(|entry| match entry {
            store::InboxEntry::Message(message) => message,
            store::InboxEntry::Method(method) => panic!("{method:?} is no message"),
        });
        messages.collect()
    }

    pub(crate) async fn settle(
        &self,
        message: &MessageEntry,
        settlement: Settlement,
    ) -> Result<Ticket<Conclusion>, SettleError> {
        self.store
            .inbox
            .settle(&dev1(), &message.token, settlement)
            .await
    }

    pub(crate) async fn method(&self) -> MethodEntry {
        let mut view = self.inbox(|view| view.entries.len() == 1).await;
        match view.entries.remove(0) {
            store::InboxEntry::Method(method) => method,
            store::InboxEntry::Message(message) => panic!("{message:?} is no method"),
        }
    }

    /// What the judge says of a token for `dev1`.
    pub(crate) async fn judge(&self, token: &str) -> Verdict {
        self.judge_for(&dev1(), token).await
    }

    pub(crate) async fn judge_for(&self, identity: &Identity, token: &str) -> Verdict {
        let token = token.into();
        soon(self.store.judge.judge(identity, &token))
            .await
            .unwrap()
    }

    pub(crate) async fn until(&self, state: SessionState) -> Status {
        self.until_status(|status| status.state == state).await
    }

    /// Until it is said that the hub offers direct methods, or does not.
    pub(crate) async fn until_methods(&self, are_offered: bool) -> Status {
        self.until_status(|status| status.offers_methods == are_offered)
            .await
    }

    async fn until_status(&self, is_right: impl Fn(&Status) -> bool) -> Status {
        let mut watch = self.store.signals.watch(&dev1()).await.unwrap();
        soon(async {
            loop {
                let status = self.store.signals.status(&dev1()).await.unwrap();
                if is_right(&status) {
                    return status;
                }
                watch.changed().await;
            }
        })
        .await
    }
}

#[derive(Clone, Copy)]
enum Disk {
    Yes,
    No,
}

fn open(folder: &TempDir, disk: Disk) -> Result<(Store, Option<Keeper>), OpenError> {
    let memory = store::memory::Config::default();
    Ok(match disk {
        Disk::No => (store::memory::open(memory)?, None),
        Disk::Yes => {
            let disk = store::embedded::Config::new(folder.path().join("store"));
            let opened = store::embedded::open(memory, &disk)?;
            (opened.store, Some(opened.keeper))
        }
    })
}

/// A token for a resource, valid for so many seconds from now, or over since then.
pub(crate) fn token(resource: &str, seconds: i64) -> String {
    let token = Key::from_base64(KEY)
        .unwrap()
        .sign(resource, None, in_seconds(seconds));
    let signature = token
        .split("&sig=")
        .nth(1)
        .and_then(|rest| rest.split('&').next());
    leaks::mark("signature of a device", signature.unwrap());
    token
}

pub(crate) fn in_seconds(seconds: i64) -> Timestamp {
    let now = Timestamp::from(std::time::SystemTime::now());
    Timestamp::from_unix_seconds(now.unix_seconds() + seconds)
}

pub(crate) fn dev1() -> Identity {
    Identity::device(hub::NAME.parse().unwrap(), "dev1".parse().unwrap())
}

pub(crate) fn telemetry(payload: &'static str) -> Work {
    Work::Telemetry(Telemetry {
        payload: payload.into(),
        ..Telemetry::default()
    })
}

/// Nothing in these tests takes long; what does has failed. In real time, because a test may have stopped the clock.
pub(crate) async fn soon<T>(happens: impl Future<Output = T>) -> T {
    let (expire, expired) = tokio::sync::oneshot::channel();
    let (_happened, is_waiting) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if is_waiting.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
            let _ = expire.send(());
        }
    });
    tokio::select! {
        result = happens => result,
        Ok(()) = expired => panic!("it did not happen"),
    }
}

/// Stops the clock for as long as the answer lives: it moves by `tokio::time::advance` alone, not whenever everybody
/// waits, because who waits for a socket must not miss a deadline.
pub(crate) fn stop_clock() -> impl Sized {
    tokio::time::pause();
    let (clock, is_stopped) = std::sync::mpsc::channel::<()>();
    // A paused clock does not run ahead of a blocking task.
    tokio::task::spawn_blocking(move || is_stopped.recv());
    clock
}

/// A deadline that no test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(3600);
