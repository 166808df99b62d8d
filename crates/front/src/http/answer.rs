//! Shapes of answers.

use api::{Delivery, ItemResult};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use iothub::Identity;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Serialize;
use store::SubmissionId;

use crate::{
    delivery::Completeness,
    devices::{Reached, Settled, Terms, text_of},
};

/// An answer. Its body is complete, so it has a length and needs no box.
pub(crate) type Answer = Response<Full<Bytes>>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// An answer with bytes.
pub(crate) fn bytes(media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// An answer with a JSON document.
pub(crate) fn json(body: &impl Serialize) -> Answer {
    document(StatusCode::OK, api::media_type::JSON, body)
}

/// An answer with a JSON document of some media type.
pub(crate) fn document(
    status: StatusCode,
    media_type: &'static str,
    body: &impl Serialize,
) -> Answer {
    let body =
        serde_json::to_vec(body).expect("our documents have string keys, so they have a JSON form");
    let mut answer = bytes(media_type, body);
    *answer.status_mut() = status;
    answer
}

/// A write that is done.
pub(crate) fn done(delivery: Delivery) -> Answer {
    delivered(empty(StatusCode::NO_CONTENT), delivery)
}

/// A write that has come this far.
pub(crate) fn reached(identity: &Identity, reached: Reached<()>, terms: &Terms) -> Answer {
    match reached {
        Reached::Hub(()) => done(Delivery::Hub),
        Reached::Stored(receipt) => stored(identity, receipt, terms),
    }
}

/// A write that is stored; its receipt says later what became of it.
pub(crate) fn stored(identity: &Identity, receipt: SubmissionId, terms: &Terms) -> Answer {
    let mut path = format!("/devices/{}", escape(identity.device_id().as_str()));
    if let Some(module) = identity.module_id() {
        path += &format!("/modules/{}", escape(module.as_str()));
    }
    path += &format!("/receipts/{}", text_of(receipt));
    let mut answer = delivered(empty(StatusCode::ACCEPTED), Delivery::Stored);
    let headers = answer.headers_mut();
    let path = HeaderValue::try_from(path).expect("what is not ASCII is escaped");
    headers.insert(header::LOCATION, path);
    if terms.is_async {
        let applied = HeaderValue::from_static(api::header::RESPOND_ASYNC);
        headers.insert(api::header::PREFERENCE_APPLIED, applied);
    }
    answer
}

fn escape(id: &str) -> PercentEncode<'_> {
    utf8_percent_encode(id, RESERVED)
}

/// Says how far a write has come.
pub(crate) fn delivered(mut answer: Answer, delivery: Delivery) -> Answer {
    let value = HeaderValue::from_static(delivery.as_str());
    answer.headers_mut().insert(TOMBOLO_DELIVERY, value);
    answer
}

/// Says whether what is shown is all there is.
pub(crate) fn inbox(mut answer: Answer, completeness: Completeness) -> Answer {
    match completeness {
        Completeness::Complete => {}
        Completeness::Partial => {
            let value = HeaderValue::from_static(api::header::PARTIAL);
            answer
                .headers_mut()
                .insert(HeaderName::from_static(api::header::TOMBOLO_INBOX), value);
        }
    }
    answer
}

/// Tags an answer.
pub(crate) fn tagged(mut answer: Answer, tag: &str) -> Answer {
    let tag =
        HeaderValue::from_str(tag).expect("tags are made of digits, letters, dashes and quotes");
    answer.headers_mut().insert(header::ETAG, tag);
    answer
}

/// How far a message of a list has come.
pub(crate) fn item_of(reached: Reached<()>) -> ItemResult {
    match reached {
        Reached::Hub(()) => ItemResult::delivered(Delivery::Hub),
        Reached::Stored(receipt) => ItemResult::stored(text_of(receipt)),
    }
}

/// How far a settlement has come.
pub(crate) const fn delivery_of(settled: Settled) -> Delivery {
    match settled {
        Settled::Hub => Delivery::Hub,
        Settled::Gateway => Delivery::Gateway,
    }
}

/// All that has a meaning in a path (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Made at compile time: every acknowledged write has it.
const TOMBOLO_DELIVERY: HeaderName = HeaderName::from_static(api::header::TOMBOLO_DELIVERY);
