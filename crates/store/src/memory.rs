//! The engine that keeps everything in memory.
//!
//! For development, for tests, and for whoever needs no promise across a restart: [`Durable`](crate::Survival::Durable)
//! is refused, and after a restart the hub has every message that no device had settled (custody `hub`). Tokens
//! survive if there is a [registry file](Config::registry_file).
//!
//! # How it works
//!
//! ```text
//!   Identity --hash--> partition (1 of 1,024) --map--> cell of the device
//!                                                      |- lanes     (outbox)
//!                                                      |- mailbox   (inbox)
//!                                                      |- presence  (signals)
//!                                                      `- two bells: submitted, needs; a pulse: changed
//! ```
//!
//! A *cell* is all that the engine knows of one device. Lanes, mailbox and presence are plain state machines, each
//! behind a small mutex of its own that is never held across an await; a *pulse* is a counter that can be waited for,
//! beaten after each change, so a change between looking and waiting is not missed; a *bell* is one for the session alone. Whoever reads holds the cell, so
//! the way of a message is: one look-up at `submit`, none after it.
//!
//! A *tenure* per partition says who owns its sessions. Every call of `upstream` holds it shared while it changes
//! something, and a change of hands takes it alone: after `acquire` has returned, nothing of the older owner happens.
//!
//! # What goes away, and when
//!
//! Entries with a deadline or an expiry are given up by the next call that meets them. For devices that nobody calls
//! for, there is no task: every second, one of the calls that make the engine grow tidies one sixty-fourth of the
//! partitions on its way. Tidying also forgets outcomes that are two minutes old, dead letters that are a day old, and cells
//! that hold nothing and that nobody holds. So probing ids leaves nothing behind.

mod bell;
mod book;
mod cell;
mod counted;
mod durable;
mod inbox;
mod lanes;
mod leases;
mod location;
mod mailbox;
mod outbox;
mod partitioned;
mod presence;
mod pulse;
mod registry;
mod ring;
mod signals;
mod token;
mod waiters;

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use iothub::{Identity, Timestamp, limits};
use serde::{Deserialize, Serialize};

pub use self::durable::{Held, Kept, Said};
pub use self::registry::OpenError;
use self::{
    cell::Cell, leases::Tenures, partitioned::Partitioned, registry::Records, signals::Wanted,
};
pub(crate) use self::{
    durable::{Counts, Living, Unreadable},
    location::Location,
};
use crate::{Clock, JudgeSeat, Partition, Store, SystemClock, log::Log};

/// The bounds of the engine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Outbox entries of one device that are not settled; 1,000 by default. More are refused with `429`. Too small:
    /// bursts are refused; too large: one device can fill the outbox for all. Answers to direct methods are not counted:
    /// `inbox_methods` bounds them.
    pub outbox_entries: usize,
    /// Bytes of those entries; 4 MiB by default. Less than one message (256 KiB): large messages are always refused.
    pub outbox_bytes: usize,
    /// Bytes of the outbox entries of all devices in memory; 256 MiB by default. More are refused with `503`. What is on a disk
    /// takes half of it at most, the rest is read back when it is sent. Too large: the process may run out of memory while
    /// the hub is away.
    pub outbox_bytes_in_all: usize,
    /// Cloud-to-device messages of one device that are not settled and concluded; 50 by default, as many as IoT Hub
    /// keeps.
    pub inbox_messages: usize,
    /// Bytes of the cloud-to-device messages of all devices that are not settled; 256 MiB by default. More are left at the
    /// hub. Too large: the process may run out of memory.
    pub inbox_bytes_in_all: usize,
    /// Direct methods of one device that wait for an answer; 16 by default.
    pub inbox_methods: usize,
    /// Dead letters of one device that are kept of each box, the newest; those of the inbox for a day, and without a disk
    /// without their payload; 16 by default. None: nothing can be looked up or replayed.
    pub dead_letters: usize,
    /// Idempotency keys of one device or module that are remembered, each for 8 days; 4,096 by default. One more is refused
    /// with `429`. As many receipts of durable writes without a key are kept besides, the newest.
    pub keys: usize,
    /// Keys, and receipts of what is settled, of all devices that are remembered; 1,000,000 by default, about 200 bytes of
    /// memory each. More writes with a key are refused with `503`.
    pub keys_in_all: usize,
    /// Tokens of one device or module that have not ended; 64 by default. One more is refused with `429`. Too large: whoever
    /// may make tokens can fill the registry, which is written as a whole at each change.
    pub tokens: usize,
    /// Devices and modules that are passed through whose token is kept, sealed; 65,536 by default, some 500 bytes of memory each,
    /// 2,300 for the longest token.
    /// The writes of others wait for the hub, and are not stored.
    pub sealed_credentials: usize,
    /// Abandons after which a message becomes a dead letter; 10 by default, as at IoT Hub.
    pub max_delivery_count: NonZeroU32,
    /// Seconds that a session lease lasts; 30 by default. Matters only where several nodes share the engine.
    pub session_lease_seconds: NonZeroU32,
    /// File that keeps the tokens, as hashes; absent by default: tokens are forgotten at the end of the process. It
    /// is replaced as a whole at each change, readable for its owner alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            outbox_entries: 1000,
            outbox_bytes: 4 * MIB,
            outbox_bytes_in_all: 256 * MIB,
            inbox_messages: limits::CLOUD_MESSAGE_QUEUE,
            inbox_bytes_in_all: 256 * MIB,
            inbox_methods: 16,
            dead_letters: 16,
            keys: 4096,
            keys_in_all: 1_000_000,
            tokens: 64,
            sealed_credentials: 65_536,
            max_delivery_count: NonZeroU32::new(limits::CLOUD_MESSAGE_DELIVERIES)
                .expect("the hub delivers more than zero times"),
            session_lease_seconds: NonZeroU32::new(30).expect("30 is not zero"),
            registry_file: None,
        }
    }
}

/// Opens an engine.
///
/// # Errors
///
/// The registry file cannot be read, made or understood.
pub fn open(config: Config) -> Result<Store, OpenError> {
    open_with_clock(config, Arc::new(SystemClock))
}

/// Opens an engine that asks this clock for the time.
///
/// # Errors
///
/// Those of [`open`].
pub fn open_with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Store, OpenError> {
    Ok(store(Arc::new(Engine::open(config, clock)?)))
}

/// An engine's parts.
pub(crate) fn store(engine: Arc<Engine>) -> Store {
    let memory = Arc::new(Memory(engine));
    Store {
        outbox: Arc::clone(&memory) as _,
        inbox: Arc::clone(&memory) as _,
        registry: Arc::clone(&memory) as _,
        leases: Arc::clone(&memory) as _,
        signals: memory,
        judge: JudgeSeat::default(),
    }
}

/// The engine as the traits see it: what they give out (readers, watches, demands) holds it too.
struct Memory(Arc<Engine>);

pub(crate) struct Engine {
    config: Config,
    clock: Arc<dyn Clock>,
    /// What must survive, if there is a disk.
    log: OnceLock<Arc<Log>>,
    cells: Partitioned<Arc<Cell>>,
    records: Arc<Records>,
    tenures: Tenures,
    wanted: Wanted,
    /// Bytes of all outbox entries that are not settled.
    outbox_bytes: AtomicUsize,
    /// Bytes of all messages that are offered.
    inbox_bytes: AtomicUsize,
    /// Receipts and keys of all devices.
    keys: AtomicUsize,
    /// Where a fresh cell's inbox begins to count: past every cell that was forgotten, so that a device's sequence
    /// never goes back.
    next_sequence: AtomicU64,
    started: Instant,
    /// When to tidy some partitions, and when all may be tidied again, in milliseconds since the start.
    tidy_at: AtomicU64,
    tidy_all_at: AtomicU64,
    /// How many partitions have been tidied, round and round.
    tidied: AtomicUsize,
}

/// One moment on both clocks.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    instant: Instant,
    timestamp: Timestamp,
}

impl Engine {
    pub(crate) fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let session_lease = Duration::from_secs(config.session_lease_seconds.get().into());
        Ok(Self {
            records: Arc::new(Records::open(config.registry_file.clone())?),
            tenures: Tenures::new(session_lease),
            cells: Partitioned::new(),
            wanted: Wanted::new(),
            outbox_bytes: AtomicUsize::new(0),
            inbox_bytes: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            next_sequence: AtomicU64::new(1),
            started: clock.instant(),
            tidy_at: AtomicU64::new(0),
            tidy_all_at: AtomicU64::new(0),
            tidied: AtomicUsize::new(0),
            log: OnceLock::new(),
            clock,
            config,
        })
    }

    /// From now on what must survive goes into this log.
    pub(crate) fn begin_to_keep(&self, log: Arc<Log>) {
        // An engine is given one log, when it is opened.
        let _ = self.log.set(log);
    }

    pub(crate) fn now(&self) -> Moment {
        Moment {
            instant: self.clock.instant(),
            timestamp: self.clock.timestamp(),
        }
    }

    /// The cell of a device that has one.
    fn cell(&self, identity: &Identity) -> Option<Arc<Cell>> {
        self.cells.get(identity)
    }

    /// The cell of a device, a fresh one if there is none.
    fn cell_or_new(&self, identity: &Identity) -> Arc<Cell> {
        self.cells.get_or_insert_with(identity, |partition| {
            let first_sequence = self.next_sequence.load(Ordering::Relaxed);
            Arc::new(Cell::new(identity.clone(), partition, first_sequence))
        })
    }

    /// Tidies some partitions if it is time; called on the way by calls that make the engine grow.
    fn tidy_some(&self, now: Moment) {
        if self.is_time(&self.tidy_at, now) {
            for _ in 0..Partition::COUNT / TIDY_ROUND {
                let number =
                    self.tidied.fetch_add(1, Ordering::Relaxed) % Partition::COUNT as usize;
                self.tidy(number, now);
            }
        }
    }

    /// Tidies everything, though not more than once a second.
    fn tidy_all(&self, now: Moment) {
        if self.is_time(&self.tidy_all_at, now) {
            (0..Partition::COUNT as usize).for_each(|number| self.tidy(number, now));
        }
    }

    fn tidy(&self, number: usize, now: Moment) {
        self.cells.retain(number, |cell| {
            cell.tidy(self, now);
            // The map's lock is held: whoever wants the cell from here on finds it gone and makes a fresh one.
            let is_kept = Arc::strong_count(cell) > 1 || !cell.is_empty(now);
            if !is_kept {
                let next = cell.mailbox.lock().next_sequence();
                self.next_sequence.fetch_max(next, Ordering::Relaxed);
            }
            is_kept
        });
    }

    /// Whether `due` is over; true for one caller only, and once a second at most.
    fn is_time(&self, due: &AtomicU64, now: Moment) -> bool {
        let since_start = now.instant.saturating_duration_since(self.started);
        let millis = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        let at = due.load(Ordering::Relaxed);
        let next = millis.saturating_add(TIDY_EVERY_MILLIS);
        millis >= at
            && due
                .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

const MIB: usize = 1024 * 1024;
const TIDY_EVERY_MILLIS: u64 = 1000;
/// Tidyings that make a round over all partitions. 100,000 cells then cost about 1,600 uncontended locks a second.
const TIDY_ROUND: u16 = 64;
/// How long an outcome is remembered for whoever submits, appends or settles again, if it is not pushed out.
const MEMORY_OF_OUTCOMES: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests;
