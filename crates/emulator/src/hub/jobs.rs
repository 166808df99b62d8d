//! Jobs: one twin update or one direct method on many devices, at a time ("Schedule jobs on multiple devices").
//!
//! ```text
//! schedule ─▶ Waiting ──start time──▶ Running ──all devices done, or the time is over──▶ completed
//!                └───────── cancel ──────┴──▶ cancelled
//! ```
//!
//! Which devices a job is about is found out when it starts. They are taken a few at a time, so that a job on all devices
//! stops nobody else; what became of each is to be asked for as `FROM devices.jobs`. Ended jobs are kept for 30 days.

mod run;
mod show;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Bound::{Excluded, Included, Unbounded},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use iothub::{DeviceId, ErrorCode, MethodResponse, Timestamp, twin::check_patch};
use serde_json::{Map, Value, json};

use super::{
    CallId, Error, Hub, IfMatch, MethodCall, Now,
    methods::check,
    query::{Condition, Position, check_page},
    timers::Timer,
};

/// The name of a job: letters, digits and dashes, 64 at most ("Schedule jobs on multiple devices").
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct JobId(Arc<str>);

/// Why a text is no [`JobId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job id has 1 to {ID_LENGTH} letters, digits and dashes")]
pub struct InvalidJobId;

/// A job to be scheduled.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Its name.
    pub id: JobId,
    /// What it does.
    pub work: JobWork,
    /// To which devices: what stands behind `WHERE` in a query; `*` is all.
    pub condition: String,
    /// When; at once if absent or past.
    pub start: Option<Timestamp>,
    /// How long it may take; an hour if absent, as the SDKs have it.
    pub time: Option<Duration>,
}

/// What a job does to each device.
#[derive(Clone, Debug)]
pub enum JobWork {
    /// `scheduleUpdateTwin`: merges.
    UpdateTwin {
        /// The condition on the twin.
        if_match: Option<IfMatch>,
        /// Patch of the tags.
        tags: Option<Map<String, Value>>,
        /// Patch of the desired properties.
        desired: Option<Map<String, Value>>,
    },
    /// `scheduleDeviceMethod`
    CallMethod(MethodCall),
}

/// How a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobStatus {
    /// It starts as soon as it can.
    Queued,
    /// Its start time is to come.
    Scheduled,
    /// It is under way.
    Running,
    /// It is through.
    Completed,
    /// It was cancelled.
    Cancelled,
}

/// All jobs, by id.
#[derive(Default)]
pub(super) struct Jobs {
    job_by_id: BTreeMap<JobId, Job>,
    /// The direct methods that jobs have begun; none of those whose job has ended meanwhile.
    device_by_call: BTreeMap<CallId, Option<(JobId, DeviceId)>>,
}

struct Job {
    work: JobWork,
    condition_text: String,
    condition: Condition,
    created_at: Timestamp,
    start_at: Timestamp,
    ended_at: Option<Timestamp>,
    time: Duration,
    state: State,
    devices: BTreeMap<DeviceId, DeviceJob>,
    /// Bytes of the devices' answers.
    answers: usize,
}

enum State {
    Waiting,
    Running {
        deadline: Instant,
        pending: VecDeque<DeviceId>,
        calls: usize,
    },
    Ended {
        is_cancelled: bool,
    },
}

/// What a job did to one device.
struct DeviceJob {
    state: DeviceState,
    created_at: Timestamp,
    updated_at: Timestamp,
    ended_at: Option<Timestamp>,
}

enum DeviceState {
    Pending,
    Running,
    Completed(Option<MethodResponse>),
    Failed(Error),
    Cancelled,
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let is_valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if (1..=ID_LENGTH).contains(&text.len()) && text.bytes().all(is_valid) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidJobId)
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JobStatus {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl JobWork {
    /// `type` of a job, `jobType` of what it did to a device.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::UpdateTwin { .. } => "scheduleUpdateTwin",
            Self::CallMethod(_) => "scheduleDeviceMethod",
        }
    }

    /// # Errors
    ///
    /// It would be refused for every device.
    fn check(&self) -> Result<(), Error> {
        match self {
            Self::CallMethod(call) => check(call),
            Self::UpdateTwin { tags, desired, .. } => [tags, desired]
                .into_iter()
                .flatten()
                .try_for_each(check_patch)
                .map_err(|broken| Error::new(ErrorCode::ArgumentInvalid, broken.to_string())),
        }
    }
}

impl Hub {
    /// Schedules a job: `PUT /jobs/v2/{id}`. Returns it as it stands.
    ///
    /// # Errors
    ///
    /// The id is taken, the condition or the work cannot be used, or there are as many jobs as may be.
    pub fn schedule_job(&mut self, spec: JobSpec, now: Now) -> Result<Value, Error> {
        if self.jobs.job_by_id.contains_key(&spec.id) {
            return Err(Error::new(
                ErrorCode::JobAlreadyExists,
                format!("A job with ID '{}' exists.", spec.id),
            ));
        }
        let condition = Condition::parse(&spec.condition)?;
        spec.work.check()?;
        let time = spec.time.unwrap_or(TIME);
        if !(Duration::from_secs(1)..=KEPT).contains(&time) {
            return Err(Error::new(
                ErrorCode::ArgumentInvalid,
                format!("maxExecutionTimeInSeconds is 1 to {}.", KEPT.as_secs()),
            ));
        }
        self.make_room()?;
        let job = Job {
            work: spec.work,
            condition_text: spec.condition,
            condition,
            created_at: now.utc,
            start_at: spec.start.unwrap_or(now.utc),
            ended_at: None,
            time,
            state: State::Waiting,
            devices: BTreeMap::new(),
            answers: 0,
        };
        let timer = Timer::Job(spec.id.clone());
        self.timers.set(now.instant_of(job.start_at), timer);
        let shown = job.to_json(&spec.id);
        self.jobs.job_by_id.insert(spec.id, job);
        Ok(shown)
    }

    /// One job: `GET /jobs/v2/{id}`. One that is not there is shown as unknown, without an error (live hub).
    #[must_use]
    pub fn job(&self, id: &JobId) -> Value {
        let job = self.jobs.job_by_id.get(id);
        job.map_or_else(
            || json!({ "jobId": id.to_string(), "type": "unknown", "status": "unknown" }),
            |job| job.to_json(id),
        )
    }

    /// The jobs of a type and a status, page by page: `GET /jobs/v2/query`.
    ///
    /// # Errors
    ///
    /// `most` is not 1 to 1,000, or the continuation is that of another question.
    pub fn jobs(
        &self,
        kind: Option<&str>,
        status: Option<&str>,
        most: usize,
        continuation: Option<&str>,
    ) -> Result<(Vec<Value>, Option<String>), Error> {
        check_page(most)?;
        let question = format!("jobs {kind:?} {status:?}");
        let position = match continuation {
            Some(token) => Position::decode(token, &question)?,
            None => Position::default(),
        };
        let is_wanted = |job: &Job| {
            let is = |wanted: Option<&str>, word: &str| {
                wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(word))
            };
            is(kind, job.work.kind()) && is(status, job.status().as_str())
        };
        let jobs = self.jobs.job_by_id.iter();
        let mut rest = jobs
            .filter(|(id, job)| *id.0 > *position.after && is_wanted(job))
            .peekable();
        let (mut items, mut last) = (Vec::new(), None);
        while items.len() < most
            && let Some((id, job)) = rest.next()
        {
            items.push(job.to_json(id));
            last = Some(id.to_string());
        }
        let next = last
            .filter(|_| rest.peek().is_some())
            .map(|after| Position { given: 0, after });
        Ok((items, next.map(|position| position.encode(&question))))
    }

    /// Cancels a job: `POST /jobs/v2/{id}/cancel`. What it has done stays.
    ///
    /// # Errors
    ///
    /// There is no such job, or it has ended.
    pub fn cancel_job(&mut self, id: &JobId, now: Now) -> Result<Value, Error> {
        let job =
            self.jobs.job_by_id.get(id).ok_or_else(|| {
                Error::new(ErrorCode::JobNotFound, format!("There is no job {id}."))
            })?;
        if matches!(job.state, State::Ended { .. }) {
            let message = format!("The job {id} has ended.");
            return Err(Error::new(ErrorCode::InvalidOperation, message));
        }
        self.end_job(id, true, now);
        Ok(self.job(id))
    }

    /// Drops the oldest ended job if there are too many.
    ///
    /// # Errors
    ///
    /// None has ended.
    fn make_room(&mut self) -> Result<(), Error> {
        if self.jobs.job_by_id.len() < JOBS {
            return Ok(());
        }
        if self.jobs.drop_oldest() {
            return Ok(());
        }
        let message = format!("There are {JOBS} jobs that have not ended.");
        Err(Error::new(ErrorCode::JobQuotaExceeded, message))
    }
}

impl Jobs {
    /// What jobs did to devices: job, device, and the row that a query sees, behind the key `after`.
    pub(super) fn rows(&self, after: &str) -> impl Iterator<Item = (String, Value)> {
        let last = after
            .split_once('/')
            .and_then(|(job, device)| Some((job.parse().ok()?, device.parse().ok()?)));
        let first = last
            .as_ref()
            .map_or(Unbounded, |(job, _): &(JobId, DeviceId)| {
                Included(job.clone())
            });
        let jobs = self.job_by_id.range((first, Unbounded));
        jobs.flat_map(move |(id, job)| {
            let of_this = last.as_ref().filter(|(job, _)| job == id);
            let first = of_this.map_or(Unbounded, |(_, device)| Excluded(device.clone()));
            let rows = job.devices.range((first, Unbounded));
            rows.map(move |(device, row)| (format!("{id}/{device}"), row.to_json(id, device, job)))
        })
    }

    /// Forgets the job that ended first; says whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let ended = self.job_by_id.iter();
        let oldest = ended
            .filter_map(|(id, job)| Some((job.ended_at?, id)))
            .min()
            .map(|(_, id)| id.clone());
        oldest.is_some_and(|id| self.job_by_id.remove(&id).is_some())
    }
}

impl Job {
    fn status(&self) -> JobStatus {
        match &self.state {
            State::Waiting if self.start_at > self.created_at => JobStatus::Scheduled,
            State::Waiting => JobStatus::Queued,
            State::Running { .. } => JobStatus::Running,
            State::Ended { is_cancelled: true } => JobStatus::Cancelled,
            State::Ended {
                is_cancelled: false,
            } => JobStatus::Completed,
        }
    }
}

/// Characters of a job's id ("Schedule jobs on multiple devices").
const ID_LENGTH: usize = 64;
/// Jobs that are kept, ended ones included: the oldest of those go first. The hub's own bound is not documented.
const JOBS: usize = 1000;
/// How long a job may take if nobody says: the default of the Node SDK.
const TIME: Duration = Duration::from_secs(3600);
/// How long an ended job is kept ("Schedule jobs on multiple devices"), and here also the longest that one may take.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
