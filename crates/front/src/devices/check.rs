//! What is known to be too much for the hub before it is sent.

use iothub::{Identity, Telemetry, limits, topic::ToHub};

use super::Error;

/// Checks what the hub would answer by closing the connection.
pub(crate) fn check_telemetry(identity: &Identity, telemetry: &Telemetry) -> Result<(), Error> {
    let size = telemetry.size();
    if size > limits::TELEMETRY_BYTES {
        return Err(Error::TooLarge {
            size,
            limit: limits::TELEMETRY_BYTES,
        });
    }
    if let Some(id) = &telemetry.system.message_id
        && id.chars().count() > limits::MESSAGE_ID_LENGTH
    {
        return Err(Error::MessageIdTooLong(id.chars().count()));
    }
    let is_reserved = |(name, _): &(String, String)| name.starts_with("$.");
    if telemetry.properties.iter().any(is_reserved) {
        return Err(Error::ReservedName);
    }
    // What is not payload stands in the topic, at most three times as long as it is, with separators and names of
    // system properties. Only what may not fit is worth encoding for it.
    let properties = size - telemetry.payload.len();
    let separators = (telemetry.properties.len() + telemetry.system.others.len()) * 8;
    if (properties + separators) * 3 + TOPIC_OVERHEAD > limits::TOPIC_BYTES {
        let size = ToHub::telemetry(identity, telemetry.to_bag())
            .encode()
            .len();
        if size > limits::TOPIC_BYTES {
            return Err(Error::PropertiesTooLarge {
                size,
                limit: limits::TOPIC_BYTES,
            });
        }
    }
    Ok(())
}

/// More than the bytes of a telemetry topic without application properties: two ids, literals, names of system
/// properties.
const TOPIC_OVERHEAD: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap())
    }

    fn with_property(value: String) -> Telemetry {
        Telemetry {
            properties: vec![("p".to_owned(), value)],
            ..Telemetry::default()
        }
    }

    #[test]
    fn a_message_is_as_large_as_the_hub_takes() {
        for (bytes, fits) in [(262_143, true), (262_144, true), (262_145, false)] {
            let telemetry = Telemetry {
                payload: vec![0; bytes].into(),
                ..Telemetry::default()
            };
            assert_eq!(
                check_telemetry(&identity(), &telemetry).is_ok(),
                fits,
                "{bytes}"
            );
        }
    }

    #[test]
    fn properties_fit_into_a_topic() {
        let frame = ToHub::telemetry(&identity(), with_property(String::new()).to_bag())
            .encode()
            .len();
        for (topic, fits) in [(65_534, true), (65_535, true), (65_536, false)] {
            let telemetry = with_property("v".repeat(topic - frame));
            assert_eq!(
                check_telemetry(&identity(), &telemetry).is_ok(),
                fits,
                "{topic}"
            );
        }
        // Every character that must be encoded takes three bytes.
        assert!(check_telemetry(&identity(), &with_property("/".repeat(21_800))).is_ok());
        assert!(check_telemetry(&identity(), &with_property("/".repeat(21_900))).is_err());
    }

    #[test]
    fn a_message_id_has_128_characters_at_most() {
        for (length, fits) in [(127, true), (128, true), (129, false)] {
            let mut telemetry = Telemetry::default();
            telemetry.system.message_id = Some("m".repeat(length));
            assert_eq!(
                check_telemetry(&identity(), &telemetry).is_ok(),
                fits,
                "{length}"
            );
        }
    }
}
