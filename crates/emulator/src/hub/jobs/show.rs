//! How jobs, and what they did to devices, are shown.

use iothub::DeviceId;
use serde_json::{Value, json};

use super::{DeviceJob, DeviceState, Job, JobId, JobWork};
use crate::hub::{IfMatch, methods::payload_json};

impl Job {
    /// `JobResponse` of the REST reference.
    pub(super) fn to_json(&self, id: &JobId) -> Value {
        let mut json = json!({
            "jobId": id.to_string(),
            "queryCondition": self.condition_text,
            "createdTime": self.created_at,
            "startTime": self.start_at,
            "maxExecutionTimeInSeconds": self.time.as_secs(),
            "type": self.work.kind(),
            "status": self.status().as_str(),
            "deviceJobStatistics": self.statistics(),
        });
        if let Some(ended_at) = self.ended_at {
            json["endTime"] = json!(ended_at);
        }
        match &self.work {
            JobWork::UpdateTwin {
                if_match,
                tags,
                desired,
            } => {
                let etag = match if_match {
                    None | Some(IfMatch::Any) => "*",
                    Some(IfMatch::Etag(etag)) => etag,
                };
                let properties = json!({ "desired": desired });
                json["updateTwin"] =
                    json!({ "etag": etag, "tags": tags, "properties": properties });
            }
            JobWork::CallMethod(call) => {
                let payload: Value = serde_json::from_slice(&call.payload).unwrap_or_default();
                json["cloudToDeviceMethod"] = json!({
                    "methodName": call.name.to_string(),
                    "payload": payload,
                    "responseTimeoutInSeconds": call.response_timeout.as_secs(),
                    "connectTimeoutInSeconds": call.connect_timeout.as_secs(),
                });
            }
        }
        json
    }

    fn statistics(&self) -> Value {
        let count = |is: fn(&DeviceState) -> bool| {
            self.devices
                .values()
                .filter(|device| is(&device.state))
                .count()
        };
        json!({
            "deviceCount": self.devices.len(),
            "failedCount": count(|state| matches!(state, DeviceState::Failed(_))),
            "succeededCount": count(|state| matches!(state, DeviceState::Completed(_))),
            "runningCount": count(|state| matches!(state, DeviceState::Running)),
            "pendingCount": count(|state| matches!(state, DeviceState::Pending)),
        })
    }
}

impl DeviceJob {
    /// The form of "Queries for IoT Hub jobs".
    pub(super) fn to_json(&self, id: &JobId, device: &DeviceId, job: &Job) -> Value {
        let (status, response, error) = match &self.state {
            DeviceState::Pending => ("pending", None, None),
            DeviceState::Running => ("running", None, None),
            DeviceState::Completed(response) => ("completed", response.as_ref(), None),
            DeviceState::Failed(error) => ("failed", None, Some(error)),
            DeviceState::Cancelled => ("canceled", None, None),
        };
        let response = response.map(|response| {
            let payload = payload_json(response);
            json!({ "status": response.status, "payload": payload })
        });
        let mut json = json!({
            "deviceId": device,
            "jobId": id.to_string(),
            "jobType": job.work.kind(),
            "status": status,
            "startTimeUtc": job.start_at,
            "endTimeUtc": self.ended_at,
            "createdDateTimeUtc": self.created_at,
            "lastUpdatedDateTimeUtc": self.updated_at,
            "outcome": { "deviceMethodResponse": response },
        });
        if let Some(error) = error {
            let code = error.code.number().to_string();
            json["error"] = json!({ "code": code, "description": error.message });
        }
        json
    }
}
