//! What a request asks of its write: how long to wait, whether it may be stored, and under which key it is known.

use std::time::{Duration, Instant};

use iothub::{Telemetry, Timestamp};
use store::{Fingerprint, KeyId, SubmissionId};

use super::entry::SHORTEST_WAIT;

/// How a write is to be carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long to wait for the hub.
    pub(crate) wait: Duration,
    /// Not to wait for the hub, if the write can be stored.
    pub(crate) is_async: bool,
    /// Whether it may be stored: what the gateway has no credential for could wait for ever.
    pub(crate) may_be_stored: bool,
    /// The device's own name for it.
    pub(crate) key: Option<WriteKey>,
}

/// How far a write has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reached<T> {
    /// The hub has done it, and said this.
    Hub(T),
    /// It is stored; this names its receipt.
    Stored(SubmissionId),
}

/// An idempotency key, with the call that it belongs to and a fingerprint of the request. Whose it is, is not in it: the store
/// keeps records by device and module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriteKey {
    name: u128,
    fingerprint: Fingerprint,
}

/// What the parts of a request are called: after its key, or else after all that it holds, so that a copy of the request has
/// the same names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartNames(Fingerprint);

impl Terms {
    /// Until when to wait.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.wait.max(SHORTEST_WAIT)
    }

    /// What the parts of a request are called whose body has this fingerprint.
    pub(crate) fn part_names(&self, body: Fingerprint) -> PartNames {
        match &self.key {
            Some(key) => key.part_names(),
            None => PartNames(body),
        }
    }
}

impl<T> Reached<T> {
    /// The same, if what the hub said is something else.
    pub(crate) fn try_map<U, E>(
        self,
        map: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<Reached<U>, E> {
        Ok(match self {
            Self::Hub(said) => Reached::Hub(map(said)?),
            Self::Stored(receipt) => Reached::Stored(receipt),
        })
    }
}

impl WriteKey {
    /// `call`: the call that the key belongs to, with what its path names below the device. `request`: all that has to be the
    /// same when the key comes again.
    pub(crate) fn new(call: &[&[u8]], key: &str, request: Fingerprint) -> Self {
        let mut parts = call.to_vec();
        parts.push(key.as_bytes());
        Self {
            name: KeyId::of(&parts).0,
            fingerprint: request,
        }
    }

    /// Of what request it is.
    pub(crate) const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What the record of a request is called that is more, or less, than one submission.
    pub(crate) const fn record(&self) -> KeyId {
        KeyId(self.name)
    }

    /// What the one submission of a request is called, which is its own record.
    pub(super) const fn submission(&self) -> SubmissionId {
        SubmissionId(self.name)
    }

    /// The message id of a request's one message. Another request that uses the key, after the first is forgotten, has another.
    pub(super) fn message_id(&self) -> String {
        self.part_names().message_id(0)
    }

    /// What the parts of its request are called.
    pub(crate) fn part_names(&self) -> PartNames {
        PartNames(Fingerprint::of(&[
            &self.name.to_be_bytes(),
            self.fingerprint.as_bytes(),
        ]))
    }
}

impl PartNames {
    /// What the part in this place is called when it is first submitted.
    pub(crate) fn first(&self, place: usize) -> SubmissionId {
        self.named(b"first", place)
    }

    /// What it is called when it is stored after its session has failed it.
    pub(crate) fn again(&self, place: usize) -> SubmissionId {
        self.named(b"again", place)
    }

    /// The names under the request's for what is no message: its reported patch.
    pub(crate) fn of_patch(&self) -> Self {
        Self(Fingerprint::of(&[self.0.as_bytes(), b"reported"]))
    }

    /// The message id that it gets if it has none.
    pub(super) fn message_id(&self, place: usize) -> String {
        text_of(self.named(b"message", place))
    }

    fn named(&self, what: &[u8], place: usize) -> SubmissionId {
        SubmissionId::of(&[self.0.as_bytes(), what, &place.to_be_bytes()])
    }
}

/// A submission's name as a text: a receipt's id, and the message id of a message that has none of its own.
pub(crate) fn text_of(id: SubmissionId) -> String {
    format!("{:032x}", id.0)
}

/// The submission's name that a text is.
pub(crate) fn id_of(text: &str) -> Option<SubmissionId> {
    let is_name = text.len() == 32
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = u128::from_str_radix(text, 16).ok()?;
    is_name.then_some(SubmissionId(number))
}

/// Says in a message when it was accepted, unless the device has said when it was made.
pub(super) fn stamp_creation(telemetry: &mut Telemetry, accepted_at: Timestamp) {
    let has_property = || {
        let mut names = telemetry.properties.iter().map(|(name, _)| name);
        names.any(|name| name.eq_ignore_ascii_case(CREATION_TIME))
    };
    if telemetry.system.creation_time.is_none() && !has_property() {
        let property = (CREATION_TIME.to_owned(), accepted_at.to_string());
        telemetry.properties.push(property);
    }
}

/// The application property by which IoT Hub's gateways say when a message was made that arrives later ("IoT Edge: understand
/// extended offline capabilities"; IoT Central shows it as the time of the message).
const CREATION_TIME: &str = "iothub-creation-time-utc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_creation_time_is_the_devices_own_if_it_says_one() {
        let at = Timestamp::from_unix_seconds(1_767_225_600);
        let stamped = |mut telemetry: Telemetry| {
            stamp_creation(&mut telemetry, at);
            telemetry.properties
        };
        let property = |value: &str| vec![(CREATION_TIME.to_owned(), value.to_owned())];
        assert_eq!(
            stamped(Telemetry::default()),
            property("2026-01-01T00:00:00Z")
        );
        let own = Telemetry {
            properties: property("yesterday"),
            ..Telemetry::default()
        };
        assert_eq!(stamped(own), property("yesterday"));
        let mut system = Telemetry::default();
        system.system.creation_time = Some("yesterday".to_owned());
        assert_eq!(stamped(system), []);
    }

    #[test]
    fn a_name_is_32_hexadecimal_digits() {
        let name = "0123456789abcdef0123456789abcdef";
        assert_eq!(id_of(name).map(text_of).as_deref(), Some(name));
        for bad in ["", "+123456789abcdef0123456789abcdef", &name[1..]] {
            assert_eq!(id_of(bad), None, "{bad}");
        }
        assert_eq!(id_of(&name.to_uppercase()), None);
        assert_eq!(id_of(&format!("{name}0")), None);
    }

    #[test]
    fn parts_are_named_after_the_key_or_else_after_the_body() {
        let body = |text: &str| Fingerprint::of(&[text.as_bytes()]);
        let key = |key: &str| WriteKey::new(&[b"call"], key, body("x"));
        let names = |key: Option<WriteKey>, text: &str| {
            let terms = Terms {
                wait: Duration::ZERO,
                is_async: false,
                may_be_stored: true,
                key,
            };
            terms.part_names(body(text)).message_id(0)
        };
        assert_eq!(names(None, "a"), names(None, "a"));
        assert_ne!(names(None, "a"), names(None, "b"));
        assert_ne!(names(Some(key("1")), "a"), names(None, "a"));
        assert_ne!(names(Some(key("1")), "a"), names(Some(key("2")), "a"));
        let one = key("1").message_id();
        let other = WriteKey::new(&[b"call"], "1", body("y"));
        assert!(one.len() == 32 && other.submission() == key("1").submission());
        assert_ne!(one, other.message_id());
    }
}
