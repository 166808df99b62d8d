//! `/enrollments`, `/enrollmentGroups`, `/registrations`: what operators ask for, as the provisioning service SDKs do.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde_json::Value;

use super::{
    Http, HttpError,
    extract::{self, JsonBody, if_match},
};
use crate::{
    hub::Now,
    provisioning::service::{Enrollment, Error, Page, RegistrationId, Service, check_query},
};

/// Creates an enrollment or replaces it; 200 in both cases. The answer has the keys, which the service may have made.
pub(super) async fn write<E: Enrollment>(
    State(http): State<Http>,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, HttpError> {
    let (id, if_match) = (extract::id(&id)?, if_match(&headers)?);
    let written =
        http.with(|service, now| service.write::<E>(&id, body, if_match.as_ref(), now))?;
    Ok(Json(written))
}

pub(super) async fn read<E: Enrollment>(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let id = extract::id(&id)?;
    Ok(Json(http.with(|service, _| service.read::<E>(&id))?))
}

pub(super) async fn mechanism<E: Enrollment>(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let id = extract::id(&id)?;
    Ok(Json(http.with(|service, _| service.mechanism::<E>(&id))?))
}

pub(super) async fn remove<E: Enrollment>(
    State(http): State<Http>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, HttpError> {
    let (id, if_match) = (extract::id(&id)?, if_match(&headers)?);
    http.with(|service, _| service.remove::<E>(&id, if_match.as_ref()))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn bulk<E: Enrollment>(
    State(http): State<Http>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, HttpError> {
    let done = http.with(|service, now| service.bulk::<E>(&body, now))?;
    Ok(Json(done))
}

pub(super) async fn query<E: Enrollment>(
    State(http): State<Http>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, HttpError> {
    let question = Question::read(&headers, &body)?;
    let page = http.with(|service, _| service.list::<E>(question.most, question.continuation))?;
    Ok(question.answer(page, E::LIST))
}

/// Of a group, as the path says.
pub(super) async fn query_registrations(
    State(http): State<Http>,
    Path(group): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, HttpError> {
    let (group, question) = (extract::id(&group)?, Question::read(&headers, &body)?);
    let (most, continuation) = (question.most, question.continuation);
    let page = http.with(|service, _| service.list_registrations(&group, most, continuation))?;
    Ok(question.answer(page, "registrations"))
}

pub(super) async fn registration(
    State(http): State<Http>,
    Path(id): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let id: RegistrationId = extract::id(&id)?;
    Ok(Json(http.with(|service, _| service.registration(&id))?))
}

pub(super) async fn delete_registration(
    State(http): State<Http>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, HttpError> {
    let (id, if_match) = (extract::id(&id)?, if_match(&headers)?);
    http.with(|service, _| service.delete_registration(&id, if_match.as_ref()))?;
    Ok(StatusCode::NO_CONTENT)
}

impl Http {
    fn with<R>(&self, act: impl FnOnce(&mut Service, Now) -> Result<R, Error>) -> Result<R, Error> {
        let wiring = &self.mqtt.wiring;
        wiring.with(|served, now| act(&mut served.service, now))
    }
}

/// Which part of a list is wanted.
struct Question<'a> {
    most: usize,
    continuation: Option<&'a str>,
}

impl<'a> Question<'a> {
    fn read(headers: &'a HeaderMap, body: &Value) -> Result<Self, HttpError> {
        check_query(
            body.get("query")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        )?;
        let most = match extract::text(headers, MAX_ITEM_COUNT.as_str())? {
            None => PAGE,
            Some(text) => text
                .parse()
                .ok()
                .filter(|most| (1..=PAGE).contains(most))
                .ok_or_else(|| {
                    Error::invalid(format!("{MAX_ITEM_COUNT} is a number from 1 to {PAGE}."))
                })?,
        };
        let continuation = extract::text(headers, CONTINUATION.as_str())?;
        Ok(Self {
            most,
            continuation: continuation.filter(|token| !token.is_empty()),
        })
    }

    fn answer(&self, page: Page, what: &'static str) -> Response {
        let mut response = Json(page.items).into_response();
        let headers = response.headers_mut();
        headers.insert(MAX_ITEM_COUNT, HeaderValue::from(self.most));
        headers.insert(ITEM_TYPE, HeaderValue::from_static(what));
        if let Some(token) = page.continuation
            && let Ok(token) = HeaderValue::from_str(&token)
        {
            headers.insert(CONTINUATION, token);
        }
        response
    }
}

const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");
/// Items of one answer; the real service's number is not published.
const PAGE: usize = 1000;
