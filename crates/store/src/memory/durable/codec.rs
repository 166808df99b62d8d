//! Numbers, texts and the values made of them, as bytes. Numbers take seven bits a byte, the lowest first, the eighth says that
//! more follow; what has a length has it before. Moments and ids, which are large, are little-endian.

use std::sync::Arc;

use bytes::Bytes;
use iothub::{
    AckRequest, CloudMessage, HubError, Identity, Properties, SystemProperties, Telemetry,
    Timestamp,
    twin::{ReportedPatch, TwinVersion},
};

use crate::{Done, Failure, Fingerprint, Outcome, Work};

/// Bytes as they are made.
#[derive(Default)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    /// With room for so many bytes; if there are more, it grows.
    pub(super) fn with_room_for(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn number(&mut self, value: impl Into<u64>) -> &mut Self {
        let mut value = value.into();
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                return self.u8(low);
            }
            self.u8(low | MORE);
        }
    }

    pub(super) fn u128(&mut self, value: u128) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn time(&mut self, value: Timestamp) -> &mut Self {
        self.0.extend(value.unix_millis().to_le_bytes());
        self
    }

    /// A flag, and what follows if it is set.
    pub(super) fn option<T>(
        &mut self,
        value: Option<T>,
        some: impl FnOnce(&mut Self, T) -> &mut Self,
    ) -> &mut Self {
        match value {
            None => self.u8(0),
            Some(value) => some(self.u8(1), value),
        }
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.length(value.len());
        self.0.extend(value);
        self
    }

    fn length(&mut self, length: usize) -> &mut Self {
        self.number(length as u64)
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// What is encoded already; nothing follows it.
    pub(super) fn rest(&mut self, value: &[u8]) -> &mut Self {
        self.0.extend(value);
        self
    }

    pub(super) fn identity(&mut self, identity: &Identity) -> &mut Self {
        self.text(identity.hub().as_str());
        self.text(identity.device_id().as_str());
        self.option(identity.module_id(), |to, module| to.text(module.as_str()))
    }

    pub(super) fn fingerprint(&mut self, fingerprint: Option<Fingerprint>) -> &mut Self {
        self.option(fingerprint, |to, value| {
            to.u128(u128::from_le_bytes(*value.as_bytes()))
        })
    }

    fn properties(&mut self, properties: &Properties) -> &mut Self {
        self.length(properties.len());
        for (name, value) in properties {
            self.text(name).text(value);
        }
        self
    }

    fn system(&mut self, system: &SystemProperties) -> &mut Self {
        let SystemProperties {
            message_id,
            correlation_id,
            user_id,
            to,
            content_type,
            content_encoding,
            expiry,
            creation_time,
            others,
        } = system;
        let texts = [
            message_id,
            correlation_id,
            user_id,
            to,
            content_type,
            content_encoding,
            expiry,
            creation_time,
        ];
        let is_there = |bits, text: &&Option<String>| bits << 1 | u8::from(text.is_some());
        self.u8(texts.iter().rev().fold(0, is_there));
        for text in texts.into_iter().flatten() {
            self.text(text);
        }
        self.properties(others)
    }

    pub(super) fn message(&mut self, message: &CloudMessage) -> &mut Self {
        let ack = match message.ack {
            AckRequest::None => 0,
            AckRequest::Positive => 1,
            AckRequest::Negative => 2,
            AckRequest::Full => 3,
        };
        self.system(&message.system);
        self.u8(ack);
        self.properties(&message.properties);
        self.bytes(&message.payload)
    }

    /// False, and nothing is encoded, if the work cannot outlive its connection or is no change.
    pub(super) fn work(&mut self, work: &Work) -> bool {
        match work {
            Work::Telemetry(telemetry) => {
                self.u8(1);
                self.system(&telemetry.system);
                self.properties(&telemetry.properties);
                self.bytes(&telemetry.payload);
                true
            }
            Work::ReportedPatch(patch) => {
                self.u8(2);
                self.bytes(&patch.to_json());
                true
            }
            Work::TwinRead | Work::MethodAnswer { .. } => false,
        }
    }

    pub(super) fn outcome(&mut self, outcome: &Outcome) -> &mut Self {
        match outcome {
            // A read is never stored; that the hub answered is what there is to say of it.
            Ok(Done::Acknowledged | Done::TwinRead(_)) => self.u8(0),
            Ok(Done::ReportedPatched { version }) => {
                self.u8(1);
                self.option(*version, |to, version| to.number(version.0))
            }
            Err(failure) => self.failure(failure),
        }
    }

    fn failure(&mut self, failure: &Failure) -> &mut Self {
        match failure {
            Failure::HubError { status, error } => {
                self.u8(2).number(*status);
                self.option(error.as_ref(), |to, error| {
                    to.number(error.error_code)
                        .text(&error.tracking_id)
                        .text(&error.message)
                        .text(&error.timestamp_utc)
                })
            }
            Failure::CredentialRefused => self.u8(3),
            Failure::HubUnavailable => self.u8(4),
            Failure::HubTimeout => self.u8(5),
            Failure::MethodGone => self.u8(6),
            Failure::DoesNotFit => self.u8(7),
            Failure::Stopping => self.u8(8),
            Failure::HubClosedOnPublish => self.u8(9),
            Failure::Damaged => self.u8(10),
            Failure::NoSession => self.u8(11),
        }
    }
}

/// Bytes as they are read. `None` is the answer to whatever is not what [`Encoder`] made.
pub(super) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All that has not been read.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// A number in its shortest form.
    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        let mut value = 0;
        for place in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & !MORE);
            let is_lost = bits << place >> place != bits || (bits == 0 && place > 0);
            value |= bits << place;
            if byte & MORE == 0 {
                return T::try_from(value).ok().filter(|_| !is_lost);
            }
        }
        None
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        let millis = self.array().map(i64::from_le_bytes)?;
        Some(Timestamp::from_unix_millis(millis))
    }

    pub(super) fn option<T>(
        &mut self,
        some: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => some(self).map(Some),
            _ => None,
        }
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn string(&mut self) -> Option<String> {
        self.text().map(str::to_owned)
    }

    pub(super) fn identity(&mut self) -> Option<Identity> {
        let hub = self.text()?.parse().ok()?;
        let device = self.text()?.parse().ok()?;
        let module = self.option(|from| from.text()?.parse().ok())?;
        Some(match module {
            None => Identity::device(hub, device),
            Some(module) => Identity::module(hub, device, module),
        })
    }

    pub(super) fn fingerprint(&mut self) -> Option<Option<Fingerprint>> {
        self.option(|from| {
            let bits = from.u128()?;
            Some(Fingerprint::from_bytes(bits.to_le_bytes()))
        })
    }

    fn properties(&mut self) -> Option<Properties> {
        let count = self.number::<u64>()?;
        // Each takes bytes, so a length that is none ends early.
        (0..count)
            .map(|_| Some((self.string()?, self.string()?)))
            .collect()
    }

    fn system(&mut self) -> Option<SystemProperties> {
        let mut there = self.u8()?;
        let mut next = || {
            let is_there = there & 1 == 1;
            there >>= 1;
            is_there
                .then(|| self.string())
                .map_or(Some(None), |text| text.map(Some))
        };
        Some(SystemProperties {
            message_id: next()?,
            correlation_id: next()?,
            user_id: next()?,
            to: next()?,
            content_type: next()?,
            content_encoding: next()?,
            expiry: next()?,
            creation_time: next()?,
            others: self.properties()?,
        })
    }

    pub(super) fn message(&mut self) -> Option<Arc<CloudMessage>> {
        Some(Arc::new(CloudMessage {
            system: self.system()?,
            ack: match self.u8()? {
                0 => AckRequest::None,
                1 => AckRequest::Positive,
                2 => AckRequest::Negative,
                3 => AckRequest::Full,
                _ => return None,
            },
            properties: self.properties()?,
            payload: Bytes::copy_from_slice(self.bytes()?),
        }))
    }

    pub(super) fn work(&mut self) -> Option<Work> {
        match self.u8()? {
            1 => Some(Work::Telemetry(Telemetry {
                system: self.system()?,
                properties: self.properties()?,
                payload: Bytes::copy_from_slice(self.bytes()?),
            })),
            2 => {
                let patch = ReportedPatch::parse(self.bytes()?).ok()?;
                Some(Work::ReportedPatch(patch))
            }
            _ => None,
        }
    }

    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        Some(match self.u8()? {
            0 => Ok(Done::Acknowledged),
            1 => Ok(Done::ReportedPatched {
                version: self.option(|from| from.number().map(TwinVersion))?,
            }),
            2 => Err(Failure::HubError {
                status: self.number()?,
                error: self.option(|from| {
                    Some(Box::new(HubError {
                        error_code: from.number()?,
                        tracking_id: from.string()?,
                        message: from.string()?,
                        timestamp_utc: from.string()?,
                        info: serde_json::Value::Null,
                    }))
                })?,
            }),
            3 => Err(Failure::CredentialRefused),
            4 => Err(Failure::HubUnavailable),
            5 => Err(Failure::HubTimeout),
            6 => Err(Failure::MethodGone),
            7 => Err(Failure::DoesNotFit),
            8 => Err(Failure::Stopping),
            9 => Err(Failure::HubClosedOnPublish),
            10 => Err(Failure::Damaged),
            11 => Err(Failure::NoSession),
            _ => return None,
        })
    }
}

/// The bit of a byte that says that the number goes on.
const MORE: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
            let mut to = Encoder::default();
            to.number(value);
            let bytes = to.finish();
            let mut from = Decoder::new(&bytes);
            assert_eq!((from.number(), from.is_at_end()), (Some(value), true));
            assert_eq!(
                Decoder::new(&bytes[..bytes.len() - 1]).number::<u64>(),
                None
            );
        }
        for bad in [
            // Longer than it need be.
            &[0x80, 0][..],
            // More than 64 bits.
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0xff; 11],
        ] {
            assert_eq!(Decoder::new(bad).number::<u64>(), None, "{bad:?}");
        }
        assert_eq!(Decoder::new(&[0x80, 2]).number::<u8>(), None);
    }
}
