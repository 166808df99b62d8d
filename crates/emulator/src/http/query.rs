//! `POST /devices/query`: queries over twins and jobs.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Http,
    answer::HttpError,
    extract::{JsonBody, Path},
};
use crate::hub::QUERY_PAGE;

pub(super) async fn run(
    State(http): State<Http>,
    _: Named,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Body>,
) -> Result<Response, HttpError> {
    let paging = Paging::of(&headers)?;
    let (most, continuation) = (paging.most, paging.continuation.as_deref());
    let page = http
        .shell
        .with(|hub, _| hub.query(&body.query, most, continuation))?;
    Ok(paged(
        page.items,
        page.item_type.as_str(),
        page.continuation,
    ))
}

/// `query` stands where a device's id does, and a device may have this id: but nothing else is posted there.
pub(super) struct Named;

impl FromRequestParts<Http> for Named {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, http: &Http) -> Result<Self, HttpError> {
        let Path(name) = Path::<String>::from_request_parts(parts, http).await?;
        if name.eq_ignore_ascii_case("query") {
            return Ok(Self);
        }
        Err(HttpError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "This path has other methods.",
        ))
    }
}

#[derive(Deserialize)]
pub(super) struct Body {
    query: String,
}

/// Which page is asked for.
pub(super) struct Paging {
    pub(super) most: usize,
    pub(super) continuation: Option<String>,
}

impl Paging {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, HttpError> {
        let text = |name: &str| {
            let value = headers.get(name)?;
            let text = value.to_str().map(str::trim);
            Some(text.map_err(|_| HttpError::invalid(format!("{name} is no text."))))
        };
        let most = text("x-ms-max-item-count").transpose()?;
        let most = match most.filter(|most| !most.is_empty()) {
            None => QUERY_PAGE,
            Some(most) => most
                .parse()
                .map_err(|_| HttpError::invalid("x-ms-max-item-count is a number."))?,
        };
        let continuation = text("x-ms-continuation").transpose()?;
        let continuation = continuation.filter(|token| !token.is_empty());
        Ok(Self {
            most,
            continuation: continuation.map(str::to_owned),
        })
    }
}

/// A page in the form that the SDKs read: they go on as long as `x-ms-continuation` is there.
pub(super) fn paged(items: Vec<Value>, item_type: &'static str, next: Option<String>) -> Response {
    let mut response = Json(items).into_response();
    let headers = response.headers_mut();
    headers.insert("x-ms-item-type", HeaderValue::from_static(item_type));
    if let Some(next) = next.and_then(|next| HeaderValue::try_from(next).ok()) {
        headers.insert("x-ms-continuation", next);
    }
    response
}
