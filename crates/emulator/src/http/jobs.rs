//! `/jobs/v2`: jobs on many devices.

use std::time::Duration;

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use iothub::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Http,
    answer::HttpError,
    extract::{JsonBody, Path, Query},
    methods,
    query::{Paging, paged},
    twins::Properties,
};
use crate::hub::{IfMatch, JobId, JobSpec, JobWork};

pub(super) async fn schedule(
    State(http): State<Http>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, HttpError> {
    let spec = body.into_spec(job_id(&id)?)?;
    let job = http.shell.with(|hub, now| hub.schedule_job(spec, now))?;
    Ok(Json(job))
}

pub(super) async fn read(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let id = job_id(&id)?;
    Ok(Json(http.shell.with(|hub, _| hub.job(&id))))
}

pub(super) async fn cancel(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let id = job_id(&id)?;
    Ok(Json(http.shell.with(|hub, now| hub.cancel_job(&id, now))?))
}

pub(super) async fn list(
    State(http): State<Http>,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let paging = Paging::of(&headers)?;
    let (kind, status) = (filter.job_type.as_deref(), filter.job_status.as_deref());
    let continuation = paging.continuation.as_deref();
    let (jobs, next) = http
        .shell
        .with(|hub, _| hub.jobs(kind, status, paging.most, continuation))?;
    Ok(paged(jobs, "JobResponse", next))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    job_type: Option<String>,
    job_status: Option<String>,
}

/// `JobRequest` of the REST reference.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body {
    job_id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    cloud_to_device_method: Option<methods::Body>,
    update_twin: Option<Twin>,
    query_condition: Option<String>,
    start_time: Option<String>,
    max_execution_time_in_seconds: Option<u64>,
}

/// What of a twin a job may write.
#[derive(Deserialize)]
pub(super) struct Twin {
    etag: Option<String>,
    tags: Option<Map<String, Value>>,
    properties: Option<Properties>,
}

impl Body {
    fn into_spec(self, id: JobId) -> Result<JobSpec, HttpError> {
        if self.job_id.is_some_and(|other| other != id.to_string()) {
            return Err(HttpError::invalid(
                "The jobId in the body is not that of the path.",
            ));
        }
        let missing = |what: &str| HttpError::invalid(format!("The job has no {what}."));
        let work = match self.kind.as_str() {
            "scheduleUpdateTwin" => {
                let twin = self.update_twin.ok_or_else(|| missing("updateTwin"))?;
                let etag = twin.etag.filter(|etag| !etag.is_empty());
                JobWork::UpdateTwin {
                    if_match: etag.as_deref().map(IfMatch::parse),
                    tags: twin.tags,
                    desired: twin.properties.and_then(Properties::into_desired),
                }
            }
            "scheduleDeviceMethod" => {
                let method = self.cloud_to_device_method;
                let method = method.ok_or_else(|| missing("cloudToDeviceMethod"))?;
                JobWork::CallMethod(method.into_call()?)
            }
            other => {
                return Err(HttpError::invalid(format!(
                    "There is no job of type {other}, only scheduleUpdateTwin and scheduleDeviceMethod."
                )));
            }
        };
        let condition = self.query_condition;
        Ok(JobSpec {
            id,
            work,
            condition: condition.ok_or_else(|| missing("queryCondition"))?,
            start: self.start_time.as_deref().map_or(Ok(None), start_time)?,
            time: self.max_execution_time_in_seconds.map(Duration::from_secs),
        })
    }
}

/// Without a zone it is UTC: Python's `isoformat` writes none.
fn start_time(text: &str) -> Result<Option<Timestamp>, HttpError> {
    if text.is_empty() {
        return Ok(None);
    }
    let moment = text.parse().or_else(|_| format!("{text}Z").parse());
    moment
        .map(Some)
        .map_err(|_| HttpError::invalid("startTime is no time in the form of RFC 3339."))
}

fn job_id(text: &str) -> Result<JobId, HttpError> {
    text.parse()
        .map_err(|error| HttpError::invalid(format!("The job id cannot be used: {error}.")))
}
