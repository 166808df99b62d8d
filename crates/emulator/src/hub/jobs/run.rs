//! How a job goes through its devices.

use std::collections::VecDeque;

use iothub::{DeviceId, ErrorCode, MethodResponse};

use super::{DeviceJob, DeviceState, Job, JobId, JobWork, KEPT, State};
use crate::hub::{CallId, Error, Hub, Now, TwinChange, timers::Timer};

impl Hub {
    /// A job starts, goes on, has no time left, or has been kept long enough; or nothing of that yet.
    pub(in crate::hub) fn on_job_timer(&mut self, id: &JobId, now: Now) {
        let Some(job) = self.jobs.job_by_id.get(id) else {
            return;
        };
        match &job.state {
            State::Waiting if job.start_at <= now.utc => self.start_job(id, now),
            State::Waiting => {
                // No timer reaches further than a day, and the wall clock may be set.
                let at = now.instant_of(job.start_at);
                self.timers.set(at, Timer::Job(id.clone()));
            }
            State::Running { deadline, .. } if *deadline <= now.at => self.end_job(id, false, now),
            State::Running { .. } => self.continue_job(id, now),
            State::Ended { .. } => {
                let ended_at = job.ended_at.unwrap_or(now.utc);
                if now.utc.saturating_since(ended_at) >= KEPT {
                    self.jobs.job_by_id.remove(id);
                }
            }
        }
    }

    /// A direct method that belongs to a job has ended. Says whether it did belong to one.
    pub(in crate::hub) fn on_job_call(
        &mut self,
        call: CallId,
        result: &Result<MethodResponse, Error>,
        now: Now,
    ) -> bool {
        let Some(whose) = self.jobs.device_by_call.remove(&call) else {
            return false;
        };
        let Some((id, device)) = whose else {
            return true;
        };
        let mut result = result.clone();
        if let Ok(response) = &mut result {
            self.keep_answer(&id, response);
        }
        if let Some(job) = self.jobs.job_by_id.get_mut(&id) {
            if let State::Running { calls, .. } = &mut job.state {
                *calls = calls.saturating_sub(1);
            }
            job.set(&device, outcome(result.map(Some)), now);
            self.continue_job(&id, now);
        }
        true
    }

    /// Ends a job; what it has not done to a device is cancelled, or has failed for want of time.
    pub(super) fn end_job(&mut self, id: &JobId, is_cancelled: bool, now: Now) {
        // What is under way goes on, and nobody hears of it.
        for whose in self.jobs.device_by_call.values_mut() {
            whose.take_if(|(job, _)| job == id);
        }
        let Some(job) = self.jobs.job_by_id.get_mut(id) else {
            return;
        };
        job.state = State::Ended { is_cancelled };
        job.ended_at = Some(now.utc);
        for device in job.devices.values_mut() {
            if matches!(device.state, DeviceState::Pending | DeviceState::Running) {
                device.state = match is_cancelled {
                    true => DeviceState::Cancelled,
                    false => DeviceState::Failed(Error::new(
                        ErrorCode::GenericTimeout,
                        "The job's time was over before it came to the device, or the device answered.",
                    )),
                };
                device.updated_at = now.utc;
                device.ended_at = Some(now.utc);
            }
        }
        self.timers.set(now.at + KEPT, Timer::Job(id.clone()));
    }

    fn start_job(&mut self, id: &JobId, now: Now) {
        let running = self.jobs.job_by_id.values();
        let running = running.filter(|job| matches!(job.state, State::Running { .. }));
        if running.count() >= ACTIVE {
            self.timers.set(now.at + RETRY, Timer::Job(id.clone()));
            return;
        }
        let Some(job) = self.jobs.job_by_id.get(id) else {
            return;
        };
        let devices = self.registry.iter();
        let pending: VecDeque<DeviceId> = devices
            .filter(|(id, device)| job.condition.is_met(&self.document(id, device, None)))
            .map(|(id, _)| id.clone())
            .collect();
        let all = self.jobs.job_by_id.values().map(|job| job.devices.len());
        let mut rows = all.sum::<usize>() + pending.len();
        while rows > ROWS && self.jobs.drop_oldest() {
            let all = self.jobs.job_by_id.values().map(|job| job.devices.len());
            rows = all.sum::<usize>() + pending.len();
        }
        let Some(job) = self.jobs.job_by_id.get_mut(id) else {
            return;
        };
        let device_job = |device: &DeviceId| {
            let new = DeviceJob {
                state: DeviceState::Pending,
                created_at: now.utc,
                updated_at: now.utc,
                ended_at: None,
            };
            (device.clone(), new)
        };
        job.devices = pending.iter().map(device_job).collect();
        let deadline = now.at + job.time;
        job.state = State::Running {
            deadline,
            pending,
            calls: 0,
        };
        self.timers.set(deadline, Timer::Job(id.clone()));
        self.continue_job(id, now);
    }

    /// Takes the next devices. Ends the job if there are none and nothing is under way.
    fn continue_job(&mut self, id: &JobId, now: Now) {
        for _ in 0..STEP {
            let Some(job) = self.jobs.job_by_id.get_mut(id) else {
                return;
            };
            let State::Running { pending, calls, .. } = &mut job.state else {
                return;
            };
            if *calls >= STEP {
                return;
            }
            let Some(device) = pending.pop_front() else {
                if *calls == 0 {
                    self.end_job(id, false, now);
                }
                return;
            };
            let work = job.work.clone();
            let state = self.work_on(id, &device, work, now);
            if let Some(job) = self.jobs.job_by_id.get_mut(id) {
                job.set(&device, state, now);
            }
        }
        self.timers.set(now.at + PAUSE, Timer::Job(id.clone()));
    }

    /// Makes room for a device's answer, or takes its payload away.
    fn keep_answer(&mut self, id: &JobId, response: &mut MethodResponse) {
        let size = response.payload.len();
        let kept = |hub: &Self| {
            hub.jobs
                .job_by_id
                .values()
                .map(|job| job.answers)
                .sum::<usize>()
        };
        while kept(self) + size > ANSWERS {
            if !self.jobs.drop_oldest() {
                response.payload.clear();
                return;
            }
        }
        if let Some(job) = self.jobs.job_by_id.get_mut(id) {
            job.answers += size;
        }
    }

    fn work_on(&mut self, id: &JobId, device: &DeviceId, work: JobWork, now: Now) -> DeviceState {
        let identity = self.identity(device.clone(), None);
        match work {
            JobWork::UpdateTwin {
                if_match,
                tags,
                desired,
            } => {
                let change = TwinChange::Merge { tags, desired };
                let updated = self.update_twin(&identity, change, if_match.as_ref(), now);
                outcome(updated.map(|_| None))
            }
            JobWork::CallMethod(call) => match self.invoke_method(&identity, call, now) {
                Err(error) => DeviceState::Failed(error),
                Ok(call) => {
                    let whom = (id.clone(), device.clone());
                    self.jobs.device_by_call.insert(call, Some(whom));
                    if let Some(job) = self.jobs.job_by_id.get_mut(id)
                        && let State::Running { calls, .. } = &mut job.state
                    {
                        *calls += 1;
                    }
                    DeviceState::Running
                }
            },
        }
    }
}

impl Job {
    fn set(&mut self, device: &DeviceId, state: DeviceState, now: Now) {
        let Some(device) = self.devices.get_mut(device) else {
            return;
        };
        let is_over = !matches!(state, DeviceState::Pending | DeviceState::Running);
        device.state = state;
        device.updated_at = now.utc;
        device.ended_at = is_over.then_some(now.utc);
    }
}

fn outcome(result: Result<Option<MethodResponse>, Error>) -> DeviceState {
    match result {
        Ok(response) => DeviceState::Completed(response),
        Err(error) => DeviceState::Failed(error),
    }
}

/// Jobs that run at a time; others wait. The largest tier's number ("IoT Hub quotas and throttling").
const ACTIVE: usize = 10;
/// How long a job waits for another one to end.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);
/// Devices that are taken in one go, and direct methods of one job at a time.
const STEP: usize = 100;
/// Between two goes: others get their turn.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
/// What all jobs together keep of single devices; the oldest jobs go first.
const ROWS: usize = 100_000;
/// Bytes of devices' answers that all jobs together keep.
const ANSWERS: usize = 64 * 1024 * 1024;
