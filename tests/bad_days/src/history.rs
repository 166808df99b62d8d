//! What happened on a bad day, as everybody outside the gateway saw it.
//!
//! A history is a file of JSON lines, each a moment and an [`Event`]. Devices write down what they send before they send it
//! and what they are answered when they have read it; the hub's side, what it has got; whoever makes trouble, what trouble.
//! Nothing in it is the gateway's own word about itself but its answers, so a gateway cannot talk its way out.
//!
//! A message is found again by its application property [`NAME`], which the gateway has no reason to look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Microseconds since the history began.
pub(crate) type Moment = u64;

/// A line of a history.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// When.
    pub(crate) at: Moment,
    /// What.
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// Something that was seen.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A device of this day.
    Enrolled {
        /// Its name; a module's has that of its device before it.
        device: String,
        /// How the gateway treats it.
        kind: Kind,
    },
    /// The hub will never take the message of this name: it closes the connection.
    Poisonous {
        /// The message's name.
        name: String,
    },
    /// A device is about to send a message.
    Sending {
        /// Who.
        device: String,
        /// The message's name.
        name: String,
        /// The number of the request; copies and repetitions have their own.
        request: u64,
        /// Its place among the messages of the request.
        place: u32,
        /// The request's idempotency key.
        key: Option<String>,
        /// What the message says.
        content: Content,
    },
    /// A device was answered that a message is at the hub, or will be.
    Promised {
        /// The message's name.
        name: String,
        /// What was promised.
        promise: Promise,
        /// Its receipt.
        receipt: Option<String>,
    },
    /// A device was answered something else.
    Refused {
        /// The message's name.
        name: String,
        /// The status.
        status: u16,
    },
    /// A device got no answer.
    Unanswered {
        /// The message's name.
        name: String,
    },
    /// The hub has got a message.
    Arrived {
        /// The hub's running number.
        sequence: u64,
        /// From whom.
        device: String,
        /// The message's name; empty if it has none.
        name: String,
        /// Its message id.
        message_id: Option<String>,
        /// What it says.
        content: Content,
    },
    /// A device is about to write a number into a reported property. It writes greater numbers later, and only after an
    /// answer.
    Patching {
        /// Who.
        device: String,
        /// The property.
        slot: String,
        /// The number.
        number: u64,
    },
    /// It was answered that the hub has it, or will have it.
    Patched {
        /// Who.
        device: String,
        /// The property.
        slot: String,
        /// The number.
        number: u64,
        /// What was promised.
        promise: Promise,
        /// Its receipt.
        receipt: Option<String>,
    },
    /// What the hub has in a device's reported properties.
    TwinRead {
        /// Whose.
        device: String,
        /// Numbers by property.
        slots: BTreeMap<String, u64>,
    },
    /// The cloud is about to send a message to a device; what comes of it, nobody promised.
    CloudSending {
        /// To whom.
        device: String,
        /// The message's name.
        name: String,
        /// What it says.
        content: Content,
    },
    /// The hub has taken it.
    CloudSent {
        /// The message's name.
        name: String,
    },
    /// A device was shown a message.
    Shown {
        /// Who.
        device: String,
        /// When it had asked.
        asked: Moment,
        /// The message's name; empty if it has none.
        name: String,
        /// With what it is settled.
        token: String,
        /// Whether the token is that of a lock, of which each look gives another one.
        is_locked: bool,
        /// What it says.
        content: Content,
    },
    /// A device is about to complete a message. If it is not answered, it may be completed all the same.
    Completing {
        /// The message's name.
        name: String,
    },
    /// A device was answered that a message is completed.
    Completed {
        /// The message's name.
        name: String,
        /// The token.
        token: String,
        /// Where it was completed.
        promise: Promise,
    },
    /// A device was shown a receipt.
    ReceiptRead {
        /// When it had asked.
        asked: Moment,
        /// Which.
        receipt: String,
        /// What it says.
        state: ReceiptState,
    },
    /// The cloud is about to call a direct method of a device.
    Calling {
        /// Whose.
        device: String,
        /// The call's name, which stands in what it says.
        call: String,
        /// What it says.
        content: Content,
    },
    /// The caller was told how that ended.
    CallEnded {
        /// The call's name.
        call: String,
        /// The device's answer; none if the hub had none in time.
        answer: Option<String>,
    },
    /// A device was shown a call.
    CallShown {
        /// Who.
        device: String,
        /// When it had asked.
        asked: Moment,
        /// The call's name; empty if it has none.
        call: String,
        /// What it says.
        content: Content,
    },
    /// A device is about to answer a call.
    Answering {
        /// The call's name.
        call: String,
        /// The answer, which no other answer is like.
        answer: String,
    },
    /// A device was told that the hub has its answer.
    Answered {
        /// The call's name.
        call: String,
        /// The answer.
        answer: String,
    },
    /// Somebody made trouble, or ended it.
    Trouble {
        /// What.
        trouble: Trouble,
    },
}

/// How the gateway treats a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// It keeps the device's cloud-to-device messages.
    GatewayKeeps,
    /// The hub keeps them until the device has settled them.
    HubKeeps,
    /// A module, which has none.
    Module,
    /// It shows the hub the device's own token, and holds no key of its own.
    PassedThrough,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Content {
    /// A hash of the body.
    pub(crate) hash: String,
    /// The application properties, and the content type under its name as a header.
    pub(crate) properties: BTreeMap<String, String>,
}

/// What an answer promises (`Tombolo-Delivery`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Promise {
    /// The hub has it.
    Hub,
    /// The gateway's disk has it.
    Stored,
    /// The gateway has done it, the hub hears of it later.
    Gateway,
}

/// What a receipt says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReceiptState {
    /// Waits.
    Stored,
    /// Waits for a credential.
    WaitingForCredential,
    /// Is on its way.
    Sent,
    /// The hub has it.
    Acknowledged,
    /// Will not reach the hub.
    Refused,
    /// There is no such receipt.
    Missing,
}

/// What was done to the gateway and its surroundings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Trouble {
    /// The gateway was killed.
    Killed,
    /// The gateway listens.
    Started,
    /// The hub cannot be reached.
    HubAway,
    /// The hub can be reached.
    HubBack,
    /// The hub stands still: connections stay, and nothing moves.
    HubStill,
    /// The hub goes on.
    HubGoesOn,
    /// From here on the hub closes the connection on some messages.
    HubCuts,
    /// It does no longer.
    HubCutsNoMore,
    /// A flush failed.
    FlushFailed,
    /// From here on a flush takes so long.
    FlushesTake {
        /// How long, in milliseconds.
        millis: u64,
    },
    /// The disk is full.
    DiskFull,
    /// There is room on the disk.
    DiskFree,
    /// The wall clock moved.
    ClockJumped {
        /// How far, in seconds.
        seconds: i64,
    },
    /// Files of the store were damaged.
    Damaged,
}

impl Content {
    /// What a message with this body and these properties says.
    pub(crate) fn new(body: &[u8], properties: BTreeMap<String, String>) -> Self {
        let digest = Sha256::digest(body);
        let hash = digest[..12].iter().map(|byte| format!("{byte:02x}"));
        Self {
            hash: hash.collect(),
            properties,
        }
    }
}

/// Writes a history. Clones write the same one.
#[derive(Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    began: Instant,
    began_wall: SystemTime,
    book: Mutex<Book>,
}

struct Book {
    file: BufWriter<File>,
    failed: Option<std::io::Error>,
    balance: Balance,
}

/// What is still owed, so that whoever waits for the end of a day knows when it is over.
#[derive(Default)]
struct Balance {
    promised: BTreeSet<String>,
    arrived: BTreeSet<String>,
    sent_down: BTreeSet<String>,
    /// They may be, or are.
    completed: BTreeSet<String>,
    /// The newest promised number by device and property.
    patched: BTreeMap<String, BTreeMap<String, u64>>,
    /// How often something that was owed came.
    progress: u64,
}

/// How much is still owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owed {
    /// Promised messages that have not arrived.
    pub(crate) up: usize,
    /// Cloud-to-device messages that no device has completed.
    pub(crate) down: usize,
    /// Moves when something came.
    pub(crate) progress: u64,
}

impl Recorder {
    /// Begins a history in a file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("could not make {}", path.display()))?;
        let book = Book {
            file: BufWriter::new(file),
            failed: None,
            balance: Balance::default(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                began: Instant::now(),
                began_wall: SystemTime::now(),
                book: Mutex::new(book),
            }),
        })
    }

    /// The moment it is.
    pub(crate) fn now(&self) -> Moment {
        micros(self.shared.began.elapsed())
    }

    /// The moment that a wall clock showed, which nobody has moved.
    pub(crate) fn moment_of(&self, wall: SystemTime) -> Moment {
        micros(
            wall.duration_since(self.shared.began_wall)
                .unwrap_or_default(),
        )
    }

    /// Writes down what has just happened, or is just about to.
    pub(crate) fn note(&self, event: Event) {
        let mut book = self.shared.book.lock();
        // Under the lock, so that lines are in the order of their moments.
        let entry = Entry {
            at: self.now(),
            event,
        };
        book.write(&entry);
        book.balance.observe(entry.event);
    }

    /// Writes down something whose moment is known better than that.
    pub(crate) fn note_at(&self, at: Moment, event: Event) {
        self.shared.book.lock().write(&Entry { at, event });
    }

    /// Writes down a trouble.
    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.note(Event::Trouble { trouble });
    }

    /// How much is still owed.
    pub(crate) fn owed(&self) -> Owed {
        let book = self.shared.book.lock();
        let balance = &book.balance;
        Owed {
            up: balance.promised.len(),
            down: balance.sent_down.len(),
            progress: balance.progress,
        }
    }

    /// The newest promised numbers in a device's reported properties.
    pub(crate) fn newest_patches(&self, device: &str) -> BTreeMap<String, u64> {
        let book = self.shared.book.lock();
        let newest = book.balance.patched.get(device);
        newest.cloned().unwrap_or_default()
    }

    /// Ends the history: everything is in the file.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut book = self.shared.book.lock();
        if let Some(error) = book.failed.take() {
            return Err(error).context("the history is not whole");
        }
        book.file.flush().context("the history is not whole")
    }
}

impl Book {
    fn write(&mut self, entry: &Entry) {
        let written = serde_json::to_writer(&mut self.file, entry)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

impl Balance {
    fn observe(&mut self, event: Event) {
        match event {
            Event::Promised { name, .. } => {
                if !self.arrived.contains(&name) {
                    self.promised.insert(name);
                }
            }
            Event::Arrived { name, .. } => {
                self.promised.remove(&name);
                self.progress += u64::from(self.arrived.insert(name));
            }
            Event::CloudSent { name } => {
                if !self.completed.contains(&name) {
                    self.sent_down.insert(name);
                }
            }
            Event::Completing { name } | Event::Completed { name, .. } => {
                self.sent_down.remove(&name);
                self.progress += u64::from(self.completed.insert(name));
            }
            Event::Patched {
                device,
                slot,
                number,
                ..
            } => {
                self.patched.entry(device).or_default().insert(slot, number);
            }
            // Nobody waits for what will not come.
            Event::Poisonous { name } => {
                self.arrived.insert(name);
            }
            Event::Enrolled { .. }
            | Event::Sending { .. }
            | Event::Refused { .. }
            | Event::Unanswered { .. }
            | Event::Patching { .. }
            | Event::TwinRead { .. }
            | Event::CloudSending { .. }
            | Event::Shown { .. }
            | Event::ReceiptRead { .. }
            | Event::Calling { .. }
            | Event::CallEnded { .. }
            | Event::CallShown { .. }
            | Event::Answering { .. }
            | Event::Answered { .. }
            | Event::Trouble { .. } => {}
        }
    }
}

/// Reads a history, line by line: that of a long day has more than a million.
pub(crate) fn read(path: &Path) -> Result<impl Iterator<Item = Result<Entry>>> {
    let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let path = path.to_owned();
    let entry = move |(number, line): (usize, std::io::Result<String>)| {
        let place = || format!("line {} of {}", number + 1, path.display());
        let line = line.with_context(place)?;
        serde_json::from_str(&line).with_context(place)
    };
    Ok(BufReader::new(file).lines().enumerate().map(entry))
}

fn micros(time: std::time::Duration) -> Moment {
    Moment::try_from(time.as_micros()).unwrap_or(Moment::MAX)
}

/// The application property with a message's name.
pub(crate) const NAME: &str = "name";
