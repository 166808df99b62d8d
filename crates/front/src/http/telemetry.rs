//! `POST .../messages/events`: one message; several in one body are [`Batch`]es.

use api::header;
use bytes::Bytes;
use http::HeaderMap;
use iothub::{SystemProperties, Telemetry, limits};

use super::{
    Gateway,
    answer::{self, Answer},
    batch::Batch,
    extract::{self, BadRequest, DeviceRequest},
    problem::Refusal,
};

/// Sends what the body holds.
pub(super) async fn send(gateway: &Gateway, request: DeviceRequest) -> Result<Answer, Refusal> {
    if let Some(batch) = Batch::of(&request.headers) {
        // Boxed: seldom, and larger than all that a single message needs.
        return Box::pin(batch.send(gateway, request)).await;
    }
    let mut terms = gateway.terms(&request).await?;
    let properties = properties(&request.headers)?;
    let identity = request.grant.identity;
    let payload = gateway
        .bodies
        .read(request.body, limits::TELEMETRY_BYTES)
        .await?;
    terms.key = request.key.map(|key| key.with_body(&payload));
    let telemetry = properties.into_telemetry(payload);
    let sent = gateway.devices.send_telemetry(&identity, telemetry, &terms);
    Ok(answer::reached(&identity, sent.await?, &terms))
}

/// Properties of a message, found by the names that they have as headers.
#[derive(Default)]
pub(super) struct Properties {
    system: SystemProperties,
    application: iothub::Properties,
}

impl Properties {
    /// Adds a property. What means nothing to a message is passed over, and its value is not looked at.
    pub(super) fn add<'a, E>(
        &mut self,
        name: &str,
        value: impl FnOnce() -> Result<&'a str, E>,
    ) -> Result<(), E>
    where
        E: 'a,
    {
        if let Some(name) = strip_prefix(name, header::APP_PREFIX) {
            self.application
                .push((name.to_owned(), value()?.to_owned()));
            return Ok(());
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if let Some((_, place)) = MEMBERS.iter().find(|(known, _)| is(known)) {
            *place(&mut self.system) = Some(value()?.to_owned());
        } else if let Some((_, key)) = OTHERS.iter().find(|(known, _)| is(known)) {
            let pair = ((*key).to_owned(), value()?.to_owned());
            self.system.others.push(pair);
        }
        Ok(())
    }

    /// The message with this body.
    pub(super) fn into_telemetry(self, payload: Bytes) -> Telemetry {
        Telemetry {
            system: self.system,
            properties: self.application,
            payload,
        }
    }
}

/// The properties that stand in headers, their values as they stand: IoT Hub decodes nothing here.
pub(super) fn properties(headers: &HeaderMap) -> Result<Properties, BadRequest> {
    let mut properties = Properties::default();
    for (name, value) in headers {
        properties.add(name.as_str(), || extract::text(name, value))?;
    }
    Ok(properties)
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

type Place = fn(&mut SystemProperties) -> &mut Option<String>;

/// Where system properties stand. `iothub-to` is not among them: IoT Hub's clients send it, nobody needs it.
const MEMBERS: [(&str, Place); 7] = [
    (header::MESSAGE_ID, |system| &mut system.message_id),
    (header::CORRELATION_ID, |system| &mut system.correlation_id),
    (header::USER_ID, |system| &mut system.user_id),
    (header::CONTENT_TYPE, |system| &mut system.content_type),
    (header::CONTENT_ENCODING, |system| {
        &mut system.content_encoding
    }),
    (header::EXPIRY, |system| &mut system.expiry),
    (header::CREATION_TIME, |system| &mut system.creation_time),
];

/// System properties without a member of their own, and their keys on MQTT.
const OTHERS: [(&str, &str); 3] = [
    (header::MESSAGE_SCHEMA, "schema"),
    (header::INTERFACE_ID, "ifid"),
    (header::SUBJECT, "sub"),
];

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
        let found = properties(&headers(&[
            ("IoTHub-MessageId", "m-1"),
            ("iothub-contenttype", "application/json"),
            ("iothub-to", "/devices/d/messages/events"),
            ("dt-subject", "thermostat"),
            ("content-type", "text/plain"),
            ("iothub-app-zeta", "a b%20"),
            ("iothub-app-empty", ""),
        ]))
        .unwrap();
        let Telemetry {
            system, properties, ..
        } = found.into_telemetry(Bytes::new());
        assert_eq!(system.message_id.as_deref(), Some("m-1"));
        assert_eq!(system.content_type.as_deref(), Some("application/json"));
        assert_eq!(system.to, None);
        assert_eq!(system.others, [("sub".to_owned(), "thermostat".to_owned())]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(properties, [pair("zeta", "a b%20"), pair("empty", "")]);
    }

    #[test]
    fn a_value_that_is_no_text_is_refused_where_it_means_something() {
        let with = |name: &'static str, value: &[u8]| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                HeaderValue::from_bytes(value).unwrap(),
            )]);
            properties(&headers).map(|found| found.application)
        };
        assert_eq!(with("iothub-app-a", b"gr\xc3\xbcn").unwrap()[0].1, "grün");
        assert!(matches!(
            with("iothub-app-a", b"\xff"),
            Err(BadRequest::HeaderText { .. })
        ));
        assert!(with("user-agent", b"\xff").unwrap().is_empty());
    }
}
