//! Telemetry in batches.
//!
//! IoT Hub's own batch is checked as a whole before anything is sent. On MQTT, though, its messages are single ones: if
//! the hub fails in the middle, some have arrived, and the answer says how many. Ours has a result for each message, a
//! message that cannot be read among them, and the others are sent all the same.

use api::{
    Delivery, Encoding, ItemResult, NotBase64, Object, limits, media_type,
    telemetry::{BatchAnswer, HubBatchItem, Item},
};
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use iothub::{Identity, Telemetry};
use serde_json::value::RawValue;
use store::Fingerprint;

use super::{
    Gateway,
    answer::{self, Answer},
    extract::{BadRequest, DeviceRequest},
    problem::Refusal,
    remembered::Pending,
    telemetry::Properties,
};
use crate::devices::{self, Devices, PartNames, Reached, Terms};

/// How a body holds several messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Batch {
    /// IoT Hub's own list.
    Hub,
    /// Our list.
    List,
    /// Ours, a message a line.
    Lines,
}

impl Batch {
    /// What the media type of a body says. No other media type says anything: a single message's own stands in
    /// `iothub-contenttype`.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let media_type = value.split(';').next().unwrap_or_default().trim();
        let forms = [
            (media_type::HUB_BATCH, Self::Hub),
            (media_type::BATCH, Self::List),
            (media_type::BATCH_LINES, Self::Lines),
        ];
        forms
            .into_iter()
            .find_map(|(name, form)| name.eq_ignore_ascii_case(media_type).then_some(form))
    }

    /// Sends the messages of a body.
    pub(super) async fn send(
        self,
        gateway: &Gateway,
        request: DeviceRequest,
    ) -> Result<Answer, Refusal> {
        match self {
            Self::Hub => send_all_or_none(gateway, request).await,
            Self::List => send_each(gateway, request, parse_list).await,
            Self::Lines => send_each(gateway, request, parse_lines).await,
        }
    }
}

/// IoT Hub's own batch.
async fn send_all_or_none(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    let mut terms = gateway.terms(&request).await?;
    let identity = request.identity().clone();
    let most = iothub::limits::TELEMETRY_BYTES;
    let body = gateway.bodies.read(request.body, most).await?;
    terms.key = request.key.map(|key| key.with_body(&body));
    let names = terms.part_names(Fingerprint::of(&[&body]));
    let items: Vec<Object<HubBatchItem>> =
        serde_json::from_slice(&body).map_err(BadRequest::Json)?;
    if items.is_empty() {
        return Err(BadRequest::Empty("messages").into());
    }
    let mut messages = Vec::with_capacity(items.len());
    for (place, Object(item)) in items.into_iter().enumerate() {
        let number = place + 1;
        let message =
            from_hub(item).map_err(|problem| BadRequest::BatchItem { number, problem })?;
        gateway
            .devices
            .check_in_batch(&identity, &message, &terms, place, &names)
            .map_err(|error| {
                Refusal::from(error).with_context(&format!("message {number} of the batch"))
            })?;
        messages.push(Ok(message));
    }
    let results = send_once(gateway, &identity, messages, terms, names).await?;
    Ok(answer::reached(&identity, reached_by_all(results)?, &terms))
}

/// How far all of a batch have come. If some are stored, the receipt is that of the last of them: a device's messages go to the
/// hub in their order.
fn reached_by_all(results: Vec<ItemResult>) -> Result<Reached<()>, Refusal> {
    let all = results.len();
    let (mut acknowledged, mut stored, mut last_stored) = (0, 0, None);
    let mut failed = None;
    for result in results {
        match result.delivery {
            Some(Delivery::Hub | Delivery::Gateway) => acknowledged += 1,
            Some(Delivery::Stored) => {
                stored += 1;
                last_stored = result.receipt.as_deref().and_then(devices::id_of);
            }
            None => failed = failed.or(Some(result)),
        }
    }
    match (failed.and_then(Refusal::of_item), last_stored) {
        (None, None) => Ok(Reached::Hub(())),
        (None, Some(receipt)) => Ok(Reached::Stored(receipt)),
        (Some(refusal), None) => Err(refusal.with_context(&format!(
            "IoT Hub has acknowledged {acknowledged} of the {all} messages"
        ))),
        (Some(refusal), Some(_)) => Err(refusal.with_context(&format!(
            "IoT Hub has acknowledged {acknowledged} of the {all} messages, and {stored} are stored"
        ))),
    }
}

/// Our batches: one result for each message.
async fn send_each(
    gateway: &Gateway,
    request: DeviceRequest,
    parse: fn(&[u8]) -> Result<Vec<&str>, serde_json::Error>,
) -> Result<Answer, Refusal> {
    let mut terms = gateway.terms(&request).await?;
    let identity = request.identity().clone();
    let body = gateway
        .bodies
        .read(request.body, limits::BATCH_BYTES)
        .await?;
    terms.key = request.key.map(|key| key.with_body(&body));
    let names = terms.part_names(Fingerprint::of(&[&body]));
    let items = parse(&body).map_err(BadRequest::Json)?;
    if items.is_empty() {
        return Err(BadRequest::Empty("messages").into());
    }
    if items.len() > limits::BATCH_MESSAGES {
        return Err(BadRequest::TooMany {
            what: "messages",
            items: items.len(),
            most: limits::BATCH_MESSAGES,
        }
        .into());
    }
    let messages = items.into_iter().map(from_ours).collect();
    let results = send_once(gateway, &identity, messages, terms, names).await?;
    Ok(answer::json(&BatchAnswer { results }))
}

/// Sends messages, once for the key of their request.
async fn send_once(
    gateway: &Gateway,
    identity: &Identity,
    messages: Vec<Result<Telemetry, BadRequest>>,
    terms: Terms,
    names: PartNames,
) -> Result<Vec<ItemResult>, Refusal> {
    let (devices, of) = (gateway.devices.clone(), identity.clone());
    let send = move |known| async move {
        let messages = Pending::of(messages, known);
        Ok(send_readable(&devices, &of, messages, &terms, names).await)
    };
    gateway.keys.once(identity, terms.key, send).await
}

/// Sends the messages that could be read, and says of each how far it has come or what is wrong with it.
pub(super) async fn send_readable(
    devices: &Devices,
    identity: &Identity,
    messages: Pending<Result<Telemetry, BadRequest>>,
    terms: &Terms,
    names: PartNames,
) -> Vec<ItemResult> {
    let mut messages =
        messages.try_map(|message| message.map_err(|problem| Refusal::from(problem).into_item()));
    let readable = std::mem::take(&mut messages.open);
    let sent = devices.send_telemetries(identity, readable, terms, names);
    let sent = sent.await.into_iter().map(|result| match result {
        Ok(reached) => answer::item_of(reached),
        Err(error) => Refusal::from(error).into_item(),
    });
    messages.into_results(sent)
}

/// The texts of the items of a list. What stands in them is read one by one.
pub(super) fn parse_list(body: &[u8]) -> Result<Vec<&str>, serde_json::Error> {
    let items: Vec<&RawValue> = serde_json::from_slice(body)?;
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// The lines that hold anything.
pub(super) fn parse_lines(body: &[u8]) -> Result<Vec<&str>, serde_json::Error> {
    let text = std::str::from_utf8(body).map_err(serde::de::Error::custom)?;
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty()).collect())
}

pub(super) fn from_ours(text: &str) -> Result<Telemetry, BadRequest> {
    let Object::<Item>(item) = serde_json::from_str(text).map_err(BadRequest::Json)?;
    Ok(item.try_into()?)
}

/// Properties have the names that they have as headers.
pub(super) fn from_hub(item: HubBatchItem) -> Result<Telemetry, NotBase64> {
    let encoding = if item.base64_encoded {
        Encoding::Base64
    } else {
        Encoding::Utf8
    };
    let payload: Bytes = encoding.decode(item.body)?;
    let mut properties = Properties::default();
    for (name, value) in &item.properties {
        properties.add(name, || Ok::<_, NotBase64>(value))?;
    }
    Ok(properties.into_telemetry(payload))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_media_type_makes_a_batch_whatever_its_case_and_parameters() {
        for (value, expected) in [
            ("application/vnd.microsoft.iothub.json", Some(Batch::Hub)),
            (
                "Application/VND.microsoft.iothub.json; charset=utf-8",
                Some(Batch::Hub),
            ),
            ("application/vnd.tombolo.batch+json", Some(Batch::List)),
            ("application/vnd.tombolo.batch+ndjson", Some(Batch::Lines)),
            ("application/json", None),
            ("application/x-ndjson", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(Batch::of(&headers), expected, "{value}");
        }
        assert_eq!(Batch::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_message_of_the_hubs_batch_has_its_properties_by_their_headers() {
        let item = serde_json::from_str(
            r#"{"body":"eyJ0IjoxfQ==","properties":{"iothub-app-Zeta":"a b","IoTHub-MessageId":"m","iothub-to":"x",
                "iothub-app-iothub-creation-time-utc":"2026-01-01T00:00:00Z","else":"y"},"more":1}"#,
        );
        let message = from_hub(item.unwrap()).unwrap();
        assert_eq!(&message.payload[..], br#"{"t":1}"#);
        assert_eq!(message.system.message_id.as_deref(), Some("m"));
        assert_eq!(message.system.to, None);
        let mut names: Vec<&str> = message
            .properties
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["Zeta", "iothub-creation-time-utc"]);

        let item = |text| serde_json::from_str(text).unwrap();
        let text = from_hub(item(r#"{"body":"plain","base64Encoded":false}"#)).unwrap();
        assert_eq!(&text.payload[..], b"plain");
        assert_eq!(from_hub(item(r#"{"body":"plain!"}"#)), Err(NotBase64));
    }

    #[test]
    fn items_are_read_one_by_one() {
        let list = parse_list(br#" [ {"body":"a"}, 7 ,{"body":"b"}] "#).unwrap();
        assert_eq!(list, [r#"{"body":"a"}"#, "7", r#"{"body":"b"}"#]);
        for bad in [&b""[..], b"{}", b"[1", b"[] []", b"[{]}]", b"\xff"] {
            assert!(parse_list(bad).is_err(), "{bad:?}");
        }
        let lines = parse_lines(b"{\"body\":\"a\"}\r\n\n  7\n{\"body\":\"b\"}").unwrap();
        assert_eq!(lines, [r#"{"body":"a"}"#, "7", r#"{"body":"b"}"#]);
        assert!(parse_lines(b"\xff").is_err());
        assert!(from_ours("7").is_err() && from_ours(r#"{"body":"a"}"#).is_ok());
    }
}
