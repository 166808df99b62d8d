//! The lanes of one device, read by one node or the other.

use std::{collections::VecDeque, sync::Arc, time::Duration, time::Instant};

use fastrand::Rng;
use iothub::{MethodResponse, Telemetry, topic::RequestId};
use tombolo_store::{
    Clock as _, ConnectionEpoch, Done, EntryId, Failure, Lane, MethodRequestId, NodeId,
    OutboxEntry, OutboxReader, Outcome, Partition, SessionLease, Store, StoreError, Submission,
    SubmissionId, SubmitError, Survival, Ticket, Work, conformance::ManualClock, memory,
};

use super::{device, peek, seeds};

#[tokio::test]
async fn lanes_do_what_the_model_does() {
    for seed in seeds() {
        eprintln!("seed {seed}");
        let mut run = Run::new(seed).await;
        for _ in 0..300 {
            run.step().await;
        }
    }
}

/// What the lanes hold: in each, the oldest first.
#[derive(Default)]
struct Model {
    lanes: [Vec<Entry>; 3],
    /// The last outcomes, and since when they are.
    settled: VecDeque<(Entry, Outcome, Instant)>,
}

struct Entry {
    submission: Submission,
    deadline: Instant,
    taken_as: Option<EntryId>,
    /// Whether a reader has it, or had it.
    was_taken: bool,
    tickets: Vec<Ticket<Outcome>>,
}

impl Model {
    /// Entries that the bound counts.
    fn count(&self) -> usize {
        self.lanes[1..].iter().map(Vec::len).sum()
    }

    fn entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.lanes.iter_mut().flatten()
    }

    fn put_back(&mut self) {
        self.entries().for_each(|entry| entry.taken_as = None);
    }

    /// What waits and is overdue, with its outcome.
    fn expire(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            for entry in lane.extract_if(.., |entry| {
                entry.taken_as.is_none() && entry.deadline <= now
            }) {
                let failure = if entry.was_taken {
                    Failure::HubTimeout
                } else {
                    Failure::NoSession
                };
                self.settled.push_back((entry, Err(failure), now));
            }
        }
    }

    fn settle(&mut self, id: EntryId, outcome: &Outcome, now: Instant) {
        for lane in &mut self.lanes {
            for entry in lane.extract_if(.., |entry| entry.taken_as == Some(id)) {
                self.settled.push_back((entry, outcome.clone(), now));
            }
        }
    }
}

/// Whether submitting again has the same outcome.
fn stands(entry: &Entry, outcome: &Outcome) -> bool {
    match outcome {
        Ok(_) => true,
        Err(failure) => failure.is_final() || entry.submission.work.lane() == Lane::Answers,
    }
}

struct Run {
    rng: Rng,
    clock: ManualClock,
    store: Store,
    nodes: [NodeId; 2],
    lease: SessionLease,
    reader: Box<dyn OutboxReader>,
    model: Model,
    last_submission: u128,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let clock = ManualClock::new();
        let config = memory::Config {
            outbox_entries: BOUND,
            ..memory::Config::default()
        };
        let store = memory::open_with_clock(config, Arc::new(clock.clone()));
        let store = store.expect("there is no registry file");
        let nodes = [NodeId::new("a"), NodeId::new("b")];
        let lease = store.leases.acquire(&nodes[0], Partition::of(&device()));
        let lease = lease.await.expect("nobody holds it");
        let reader = store.outbox.open(&lease, &device()).await;
        Self {
            rng: Rng::with_seed(seed),
            reader: reader.expect("the lease stands"),
            clock,
            store,
            nodes,
            lease,
            model: Model::default(),
            last_submission: 0,
        }
    }

    async fn step(&mut self) {
        match self.rng.u32(..100) {
            0..35 => self.submit_new().await,
            35..42 => self.submit_again().await,
            42..45 => self.submit_failed().await,
            45..65 => self.take().await,
            65..85 => self.settle().await,
            85..92 => self
                .clock
                .advance(Duration::from_millis(self.rng.u64(..3000))),
            92..96 => self.reopen().await,
            _ => self.take_over().await,
        }
        self.check().await;
    }

    async fn submit_new(&mut self) {
        self.last_submission += 1;
        let deadline = self.clock.instant() + Duration::from_millis(self.rng.u64(..10_000));
        let submission = Submission {
            id: SubmissionId(self.last_submission),
            identity: device(),
            work: Arc::new(self.work()),
            survival: Survival::Ephemeral { deadline },
            fingerprint: None,
        };
        self.submit(submission, deadline).await;
    }

    async fn submit(&mut self, submission: Submission, deadline: Instant) {
        let submitted = self.store.outbox.submit(submission.clone()).await;
        self.model.expire(self.clock.instant());
        let lane = submission.work.lane();
        if self.model.count() < BOUND || lane == Lane::Answers {
            let lane = lane_number(lane);
            self.model.lanes[lane].push(Entry {
                submission,
                deadline,
                taken_as: None,
                was_taken: false,
                tickets: vec![submitted.expect("there is room")],
            });
        } else {
            assert!(matches!(
                submitted,
                Err(SubmitError::DeviceFull { entries: BOUND, .. })
            ));
        }
    }

    async fn submit_again(&mut self) {
        let Self { rng, model, .. } = self;
        let settled = model.settled.iter_mut();
        let settled = settled.filter(|(entry, outcome, _)| stands(entry, outcome));
        let settled = settled.map(|(entry, ..)| entry);
        let known = settled.chain(model.lanes.iter_mut().flatten());
        if let Some(entry) = rng.choice(known.collect::<Vec<_>>()) {
            let again = self.store.outbox.submit(entry.submission.clone()).await;
            entry.tickets.push(again.expect("it is known"));
        }
    }

    /// What has failed, though not for good, is submitted as if it were new.
    async fn submit_failed(&mut self) {
        let Self { rng, model, .. } = self;
        let live = model.lanes.iter().flatten();
        let standing = model.settled.iter();
        let standing = standing.filter(|(entry, outcome, _)| stands(entry, outcome));
        let known = live.chain(standing.map(|(entry, ..)| entry));
        let known: Vec<_> = known.map(|entry| entry.submission.id).collect();
        let failed = model.settled.iter().map(|(entry, ..)| entry);
        let failed = failed.filter(|entry| !known.contains(&entry.submission.id));
        if let Some(entry) = rng.choice(failed.collect::<Vec<_>>()) {
            let (submission, deadline) = (entry.submission.clone(), entry.deadline);
            self.submit(submission, deadline).await;
        }
    }

    async fn take(&mut self) {
        let lane = self.rng.choice(Lane::ALL).expect("there are three");
        let max = self.rng.usize(..5);
        let taken = self.reader.take(lane, max).await.expect("the lease stands");
        self.model.expire(self.clock.instant());
        let lane = self.model.lanes[lane_number(lane)].iter_mut();
        let waiting: Vec<_> = lane
            .filter(|entry| entry.taken_as.is_none())
            .take(max)
            .collect();
        assert_eq!(taken.len(), waiting.len());
        for (taken, entry) in taken.into_iter().zip(waiting) {
            assert_eq!(text(&taken), text_of(&entry.submission.work));
            entry.taken_as = Some(taken.id);
            entry.was_taken = true;
        }
    }

    /// Settles what is taken, or what was, or what never was.
    async fn settle(&mut self) {
        let taken = self.model.entries().filter_map(|entry| entry.taken_as);
        let mut ids: Vec<_> = taken.collect();
        ids.extend(
            self.model
                .settled
                .iter()
                .filter_map(|(entry, ..)| entry.taken_as),
        );
        ids.push(EntryId(u64::MAX));
        let id = self.rng.choice(ids).expect("there is one");
        let outcomes = [
            Ok(Done::Acknowledged),
            Err(Failure::HubUnavailable),
            Err(Failure::DoesNotFit),
        ];
        let outcome = self.rng.choice(outcomes).expect("there are three");
        let settled = self.reader.settle(id, outcome.clone()).await;
        settled.expect("the lease stands");
        self.model.settle(id, &outcome, self.clock.instant());
    }

    async fn reopen(&mut self) {
        let opened = self.store.outbox.open(&self.lease, &device()).await;
        let mut older = std::mem::replace(&mut self.reader, opened.expect("the lease stands"));
        self.model.put_back();
        let refused = older.take(Lane::Telemetry, 1).await;
        assert_eq!(refused.err(), Some(StoreError::Stale));
    }

    async fn take_over(&mut self) {
        self.clock.advance(Duration::from_secs(30));
        self.nodes.swap(0, 1);
        let lease = self
            .store
            .leases
            .acquire(&self.nodes[0], self.lease.partition);
        self.lease = lease.await.expect("the older lease is over");
        let refused = self.reader.take(Lane::Telemetry, 1).await;
        assert_eq!(refused.err(), Some(StoreError::Stale));
        self.reopen().await;
    }

    /// Every ticket says what the model says of its entry.
    async fn check(&mut self) {
        let flushed = self.reader.take(Lane::Answers, 0).await;
        assert_eq!(flushed.map(|entries| entries.len()), Ok(0));
        self.model.expire(self.clock.instant());
        for entry in self.model.entries() {
            for ticket in &mut entry.tickets {
                assert_eq!(peek(ticket).await, None);
            }
        }
        for (entry, outcome, _) in &mut self.model.settled {
            for mut ticket in entry.tickets.drain(..) {
                assert_eq!(peek(&mut ticket).await, Some(Some(outcome.clone())));
            }
        }
        let now = self.clock.instant();
        while let Some((.., at)) = self.model.settled.front() {
            if self.model.settled.len() <= REMEMBERED && now - *at < REMEMBERED_FOR {
                break;
            }
            self.model.settled.pop_front();
        }
    }

    fn work(&mut self) -> Work {
        let text = self.last_submission.to_string();
        match self.rng.u32(..3) {
            0 => Work::MethodAnswer {
                request: MethodRequestId {
                    connection: ConnectionEpoch(1),
                    rid: RequestId::new(&text).expect("digits are a request id"),
                },
                response: MethodResponse {
                    status: 200,
                    payload: text.into(),
                },
            },
            1 => Work::TwinRead,
            _ => Work::Telemetry(Telemetry {
                payload: text.into(),
                ..Telemetry::default()
            }),
        }
    }
}

fn lane_number(lane: Lane) -> usize {
    match lane {
        Lane::Answers => 0,
        Lane::Twin => 1,
        Lane::Telemetry => 2,
    }
}

fn text(entry: &OutboxEntry) -> String {
    text_of(&entry.work)
}

fn text_of(work: &Work) -> String {
    match work {
        Work::MethodAnswer { response, .. } => format!("{:?}", response.payload),
        Work::Telemetry(telemetry) => format!("{:?}", telemetry.payload),
        Work::TwinRead | Work::ReportedPatch(_) => String::new(),
    }
}

const BOUND: usize = 12;
/// Outcomes that the engine remembers, and for how long, at least.
const REMEMBERED: usize = 8;
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
