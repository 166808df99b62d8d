//! `POST .../messages/events`.

use api::{Code, Delivery, header, media_type};
use http::{HeaderMap, header::CONTENT_TYPE};
use iothub::{SystemProperties, Telemetry, limits};

use super::{
    Gateway,
    answer::{self, Answer},
    extract::{self, BadRequest, DeviceRequest},
    problem::Refusal,
};

/// Sends one message.
pub(super) async fn send(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    if is_batch(&request.headers) {
        return Err(Refusal::new(
            Code::NotImplemented,
            "this version does not take batches yet: send one message a request",
        ));
    }
    let wait = request.write_wait(&gateway.waits)?;
    let (system, properties) = properties(&request.headers)?;
    let payload = extract::read_body(request.body, limits::TELEMETRY_BYTES, &gateway.waits).await?;
    let telemetry = Telemetry {
        system,
        properties,
        payload,
    };
    gateway
        .devices
        .send_telemetry(&request.identity, telemetry, wait)
        .await?;
    Ok(answer::done(Delivery::Hub))
}

/// The media types that make a body a list of messages. No other says anything: a single message's own media type
/// stands in `iothub-contenttype`.
fn is_batch(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    [
        media_type::HUB_BATCH,
        media_type::BATCH,
        media_type::BATCH_LINES,
    ]
    .iter()
    .any(|batch| media_type.eq_ignore_ascii_case(batch))
}

/// The properties that stand in headers, their values as they stand: IoT Hub decodes nothing here.
pub(super) fn properties(
    headers: &HeaderMap,
) -> Result<(SystemProperties, iothub::Properties), BadRequest> {
    let mut system = SystemProperties::default();
    let mut properties = iothub::Properties::new();
    for (name, value) in headers {
        let place = match name.as_str() {
            header::MESSAGE_ID => &mut system.message_id,
            header::CORRELATION_ID => &mut system.correlation_id,
            header::USER_ID => &mut system.user_id,
            header::CONTENT_TYPE => &mut system.content_type,
            header::CONTENT_ENCODING => &mut system.content_encoding,
            header::EXPIRY => &mut system.expiry,
            header::CREATION_TIME => &mut system.creation_time,
            header::MESSAGE_SCHEMA => {
                system
                    .others
                    .push(("schema".to_owned(), extract::text(name, value)?.to_owned()));
                continue;
            }
            header::INTERFACE_ID => {
                system
                    .others
                    .push(("ifid".to_owned(), extract::text(name, value)?.to_owned()));
                continue;
            }
            header::SUBJECT => {
                system
                    .others
                    .push(("sub".to_owned(), extract::text(name, value)?.to_owned()));
                continue;
            }
            other => {
                if let Some(property) = other.strip_prefix(header::APP_PREFIX) {
                    properties.push((property.to_owned(), extract::text(name, value)?.to_owned()));
                }
                continue;
            }
        };
        *place = Some(extract::text(name, value)?.to_owned());
    }
    Ok((system, properties))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn headers_become_properties() {
        let (system, properties) = properties(&headers(&[
            ("IoTHub-MessageId", "m-1"),
            ("iothub-contenttype", "application/json"),
            ("iothub-to", "/devices/d/messages/events"),
            ("dt-subject", "thermostat"),
            ("content-type", "text/plain"),
            ("iothub-app-zeta", "a b%20"),
            ("iothub-app-empty", ""),
        ]))
        .unwrap();
        assert_eq!(system.message_id.as_deref(), Some("m-1"));
        assert_eq!(system.content_type.as_deref(), Some("application/json"));
        assert_eq!(system.to, None);
        assert_eq!(system.others, [("sub".to_owned(), "thermostat".to_owned())]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(properties, [pair("zeta", "a b%20"), pair("empty", "")]);
    }

    #[test]
    fn a_value_that_is_no_text_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "iothub-app-a",
            HeaderValue::from_bytes(b"gr\xc3\xbcn").unwrap(),
        );
        assert_eq!(properties(&headers).unwrap().1[0].1, "grün");
        headers.insert("iothub-app-a", HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(matches!(
            properties(&headers),
            Err(BadRequest::HeaderText { .. })
        ));
    }

    #[test]
    fn two_media_types_and_their_parameters_make_a_batch() {
        for (value, is) in [
            ("application/vnd.microsoft.iothub.json", true),
            ("Application/VND.microsoft.iothub.json; charset=utf-8", true),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(
                is_batch(&headers(&[("content-type", value)])),
                is,
                "{value}"
            );
        }
    }
}
