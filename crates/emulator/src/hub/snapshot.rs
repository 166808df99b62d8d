//! What a hub remembers from one life to the next: its identities with their keys, twins, sessions and queues, and the
//! authorities that it trusts. The registry is written as it is; what belongs to a connection is left out.
//!
//! Forgotten are telemetry and feedback that nobody has read, files, jobs, faults, and what was counted today. A message that was
//! in flight or locked waits again.
//!
//! The forms of values that have none of their own stand here.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize, de::Error as _};

use super::{Hub, Now, registry::Registry, timers::Timer};
use crate::x509::Authority;

#[derive(Serialize)]
struct Remembered<'a> {
    registry: &'a Registry,
    /// Certificates in base64.
    authorities: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recalled {
    registry: Registry,
    authorities: Vec<String>,
}

impl Hub {
    /// The version of what [`Hub::remembered`] writes.
    pub(crate) const VERSION: u32 = 1;

    /// Moves with each change of what is remembered, and perhaps without one.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.registry.revision()
    }

    /// All that it remembers, as JSON: with secrets.
    #[must_use]
    pub fn remembered(&self) -> Vec<u8> {
        let certificate = |authority: &Authority| BASE64.encode(authority.certificate());
        let remembered = Remembered {
            registry: &self.registry,
            authorities: self.authorities.iter().map(certificate).collect(),
        };
        serde_json::to_vec(&remembered)
            .expect("maps with text keys, texts and numbers have a JSON form")
    }

    /// Becomes a hub that remembers this, in place of what it knows.
    ///
    /// # Errors
    ///
    /// It is not what [`Hub::remembered`] has written. Nothing has changed then.
    pub fn recall(&mut self, json: &[u8], now: Now) -> serde_json::Result<()> {
        let recalled: Recalled = serde_json::from_slice(json)?;
        let mut authorities = self.authorities.clone();
        for text in &recalled.authorities {
            let der = BASE64.decode(text).map_err(serde_json::Error::custom)?;
            authorities
                .add(&CertificateDer::from(der))
                .map_err(serde_json::Error::custom)?;
        }
        self.authorities = authorities;
        self.registry = recalled.registry;
        self.registry.end_connections();
        for (device, _) in self.registry.iter() {
            self.timers.set(now.at, Timer::Messages(device.clone()));
        }
        Ok(())
    }
}

/// Symmetric keys, in base64 as a hub shows them.
pub(super) mod key {
    use iothub::sas::Key;
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de::Error as _};

    pub(in crate::hub) fn serialize<S: Serializer>(key: &Key, to: S) -> Result<S::Ok, S::Error> {
        key.to_base64().serialize(to)
    }

    pub(in crate::hub) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Key, D::Error> {
        Key::from_base64(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Sections of a twin.
pub(super) mod section {
    use iothub::twin::{Section, TwinVersion};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::{Map, Value};

    #[derive(Serialize, Deserialize)]
    struct Written {
        properties: Map<String, Value>,
        version: TwinVersion,
    }

    pub(in crate::hub) fn serialize<S: Serializer>(
        section: &Section,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let Section {
            properties,
            version,
        } = section.clone();
        Written {
            properties,
            version,
        }
        .serialize(to)
    }

    pub(in crate::hub) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Section, D::Error> {
        let Written {
            properties,
            version,
        } = Written::deserialize(from)?;
        Ok(Section {
            properties,
            version,
        })
    }
}

/// Cloud-to-device messages, with their payload in base64.
pub(super) mod message {
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
    use iothub::{AckRequest, CloudMessage, SystemProperties};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    #[derive(Serialize, Deserialize)]
    struct Written {
        system: SystemProperties,
        ack: AckRequest,
        properties: Vec<(String, String)>,
        payload: String,
    }

    pub(in crate::hub) fn serialize<S: Serializer>(
        message: &CloudMessage,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let CloudMessage {
            system,
            ack,
            properties,
            payload,
        } = message.clone();
        Written {
            system,
            ack,
            properties,
            payload: BASE64.encode(payload),
        }
        .serialize(to)
    }

    pub(in crate::hub) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<CloudMessage, D::Error> {
        let written = Written::deserialize(from)?;
        let payload = BASE64.decode(written.payload).map_err(D::Error::custom)?;
        Ok(CloudMessage {
            system: written.system,
            ack: written.ack,
            properties: written.properties,
            payload: payload.into(),
        })
    }
}

/// Subscriptions of a session.
pub(super) mod subscriptions {
    use std::collections::BTreeMap;

    use iothub::topic::Filter;
    use mqtt_protocol_core::mqtt::packet::Qos;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Written {
        CloudMessages,
        TwinResponses,
        DesiredPatches,
        Methods,
        Method(String),
        ModuleInputs,
    }

    pub(in crate::hub) fn serialize<S: Serializer>(
        subscriptions: &BTreeMap<Filter, Qos>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let written = subscriptions.iter().map(|(filter, qos)| {
            let filter = match filter {
                Filter::CloudMessages => Written::CloudMessages,
                Filter::TwinResponses => Written::TwinResponses,
                Filter::DesiredPatches => Written::DesiredPatches,
                Filter::Methods => Written::Methods,
                Filter::Method(name) => Written::Method(name.to_string()),
                Filter::ModuleInputs => Written::ModuleInputs,
            };
            (filter, *qos as u8)
        });
        written.collect::<Vec<_>>().serialize(to)
    }

    pub(in crate::hub) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Filter, Qos>, D::Error> {
        let written = Vec::<(Written, u8)>::deserialize(from)?;
        written
            .into_iter()
            .map(|(filter, qos)| {
                let filter = match filter {
                    Written::CloudMessages => Filter::CloudMessages,
                    Written::TwinResponses => Filter::TwinResponses,
                    Written::DesiredPatches => Filter::DesiredPatches,
                    Written::Methods => Filter::Methods,
                    Written::Method(name) => {
                        Filter::Method(name.parse().map_err(D::Error::custom)?)
                    }
                    Written::ModuleInputs => Filter::ModuleInputs,
                };
                let qos = Qos::try_from(qos).map_err(|_| D::Error::custom("no QoS"))?;
                Ok((filter, qos))
            })
            .collect()
    }
}
