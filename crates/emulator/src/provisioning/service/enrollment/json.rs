//! Enrollments in JSON, as the provisioning service SDKs write and read them (the service's REST specification, `models`).

use iothub::{HubName, sas::Key};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Allocation, Attestation, Certificates, Enrollment, InitialTwin, Policy, Record, Reprovision,
    Terms,
};
use crate::{
    hub::{DeviceKeys, Random},
    provisioning::service::{Error, certificate::Certificate},
};

/// What an individual enrollment has and a group has not.
pub(crate) struct Own {
    pub(super) device_id: Option<String>,
    pub(super) information: Option<Map<String, Value>>,
}

/// What the SDKs send; members that are not the client's to write are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    device_id: Option<String>,
    optional_device_information: Option<Map<String, Value>>,
    attestation: Option<AttestationBody>,
    capabilities: Option<Capabilities>,
    iot_hub_host_name: Option<String>,
    iot_hubs: Option<Vec<String>>,
    initial_twin: Option<TwinBody>,
    provisioning_status: Option<String>,
    reprovision_policy: Option<ReprovisionBody>,
    allocation_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttestationBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    symmetric_key: Option<KeysBody>,
    x509: Option<X509Body>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysBody {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct X509Body {
    client_certificates: Option<CertificatesBody>,
    signing_certificates: Option<CertificatesBody>,
    ca_references: Option<ReferencesBody>,
}

#[derive(Deserialize)]
struct CertificatesBody {
    primary: Option<CertificateBody>,
    secondary: Option<CertificateBody>,
}

#[derive(Deserialize)]
struct CertificateBody {
    certificate: Option<String>,
}

#[derive(Deserialize)]
struct ReferencesBody {
    primary: Option<String>,
    secondary: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    #[serde(default)]
    iot_edge: bool,
}

#[derive(Deserialize)]
struct TwinBody {
    tags: Option<Map<String, Value>>,
    properties: Option<PropertiesBody>,
}

#[derive(Deserialize)]
struct PropertiesBody {
    desired: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReprovisionBody {
    update_hub_assignment: Option<bool>,
    migrate_device_data: Option<bool>,
}

/// Reads an enrollment that is named `id`. The service makes the keys that are left out.
///
/// # Errors
///
/// The body is no enrollment of this kind, or one of another name.
pub(in super::super) fn read<E: Enrollment>(
    body: Value,
    id: &E::Id,
    random: &mut Random,
) -> Result<E, Error> {
    match body.get(E::ID) {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) if name.eq_ignore_ascii_case(&id.to_string()) => {}
        Some(_) => {
            let message = format!("{} is not that of the path.", E::ID);
            return Err(Error::invalid(message));
        }
    }
    let mut body: Body = serde_json::from_value(body)
        .map_err(|error| Error::invalid(format!("This is no enrollment: {error}.")))?;
    let own = Own {
        device_id: given(body.device_id.take()),
        information: body.optional_device_information.take(),
    };
    E::from_parts(own, body.into_terms::<E>(random)?)
}

impl<E: Enrollment> Record<E> {
    /// The document, without keys: they are shown when they are written, and by `attestationmechanism`.
    pub(in super::super) fn to_json(&self, id: &E::Id) -> Value {
        let Terms {
            attestation,
            is_enabled,
            allocation,
            reprovision,
            twin,
        } = self.enrollment.terms();
        let mut document = json!({
            E::ID: id.to_string(),
            "attestation": attestation.to_json::<E>(),
            "capabilities": { "iotEdge": false },
            // An entity tag of this service has its quotes in JSON as well.
            "etag": format!("\"{}\"", self.etag),
            "initialTwin": {
                "tags": twin.tags,
                "properties": { "desired": twin.desired },
            },
            "provisioningStatus": if *is_enabled { "enabled" } else { "disabled" },
            "reprovisionPolicy": {
                "updateHubAssignment": *reprovision != Reprovision::Never,
                "migrateDeviceData": *reprovision == Reprovision::Migrate,
            },
            "createdDateTimeUtc": self.created_at,
            "lastUpdatedDateTimeUtc": self.updated_at,
            "allocationPolicy": allocation.policy.as_str(),
        });
        for (name, value) in self.enrollment.own() {
            document[name] = value;
        }
        if !allocation.hubs.is_empty() {
            document["iotHubs"] = json!(allocation.hubs);
        }
        document
    }

    /// The document as it is answered to who wrote it: with the keys, which the service may have made
    /// (azure-iot-cli-extension's tests).
    pub(in super::super) fn to_json_with_keys(&self, id: &E::Id) -> Value {
        let mut document = self.to_json(id);
        document["attestation"] = self.mechanism();
        document
    }

    /// The attestation with its keys.
    pub(in super::super) fn mechanism(&self) -> Value {
        let attestation = &self.enrollment.terms().attestation;
        let mut mechanism = attestation.to_json::<E>();
        if let Attestation::SymmetricKey(keys) = attestation {
            mechanism["symmetricKey"] = json!({
                "primaryKey": keys.primary.to_base64(),
                "secondaryKey": keys.secondary.to_base64(),
            });
        }
        mechanism
    }
}

impl Attestation {
    fn to_json<E: Enrollment>(&self) -> Value {
        match self {
            Self::SymmetricKey(_) => json!({ "type": "symmetricKey" }),
            Self::X509(certificates) => {
                let secondary = certificates.secondary.as_ref();
                let certificates = json!({
                    "primary": { "info": certificates.primary.info() },
                    "secondary": secondary.map(|one| json!({ "info": one.info() })),
                });
                json!({ "type": "x509", "x509": { E::CERTIFICATES: certificates } })
            }
            Self::CaReferences { primary, secondary } => json!({
                "type": "x509",
                "x509": { "caReferences": { "primary": primary, "secondary": secondary } },
            }),
        }
    }
}

impl Body {
    fn into_terms<E: Enrollment>(self, random: &mut Random) -> Result<Terms, Error> {
        if self.capabilities.is_some_and(|c| c.iot_edge) {
            return Err(Error::invalid(
                "capabilities.iotEdge: the emulator has no IoT Edge devices.",
            ));
        }
        let attestation = self
            .attestation
            .ok_or_else(|| Error::invalid("attestation is missing."))?
            .into_attestation::<E>(random)?;
        let is_enabled = match self.provisioning_status.as_deref() {
            None | Some("enabled") => true,
            Some("disabled") => false,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "provisioningStatus is enabled or disabled, not {other}."
                )));
            }
        };
        // The older way to say static, of individual enrollments.
        let target = given(self.iot_hub_host_name);
        let policy = match self.allocation_policy.as_deref() {
            None if target.is_some() => Policy::Static,
            None | Some("hashed") => Policy::Hashed,
            Some("geoLatency") => Policy::GeoLatency,
            Some("static") => Policy::Static,
            Some("custom") => {
                return Err(Error::invalid(
                    "allocationPolicy custom calls a webhook, which the emulator does not: use hashed, geoLatency or static.",
                ));
            }
            Some(other) => {
                return Err(Error::invalid(format!(
                    "There is no allocationPolicy {other}."
                )));
            }
        };
        let hubs = target.into_iter().chain(self.iot_hubs.unwrap_or_default());
        let mut allocation = Allocation {
            policy,
            hubs: Vec::new(),
        };
        for hub in hubs {
            let hub: HubName = hub
                .parse()
                .map_err(|error| Error::invalid(format!("iotHubs: {error}.")))?;
            if !allocation.hubs.contains(&hub) {
                allocation.hubs.push(hub);
            }
        }
        let reprovision = self.reprovision_policy.map_or(
            Reprovision::Migrate,
            |ReprovisionBody {
                 update_hub_assignment,
                 migrate_device_data,
             }| match (update_hub_assignment, migrate_device_data) {
                (Some(false), _) => Reprovision::Never,
                (_, Some(false)) => Reprovision::Reset,
                (Some(true) | None, Some(true) | None) => Reprovision::Migrate,
            },
        );
        Ok(Terms {
            attestation,
            is_enabled,
            allocation,
            reprovision,
            twin: self
                .initial_twin
                .map_or_else(InitialTwin::default, Into::into),
        })
    }
}

impl AttestationBody {
    fn into_attestation<E: Enrollment>(self, random: &mut Random) -> Result<Attestation, Error> {
        match self.kind.as_deref() {
            Some("symmetricKey") => self
                .symmetric_key
                .unwrap_or_default()
                .read(random)
                .map(Attestation::SymmetricKey),
            Some("x509") => self
                .x509
                .ok_or_else(|| Error::invalid("attestation.x509 is missing."))?
                .into_attestation(E::CERTIFICATES),
            Some("tpm") => Err(Error::invalid(
                "attestation.type tpm: the emulator has no TPM attestation, only symmetricKey and x509.",
            )),
            Some(other) => Err(Error::invalid(format!(
                "There is no attestation.type {other}, only symmetricKey and x509."
            ))),
            None => Err(Error::invalid("attestation.type is missing.")),
        }
    }
}

impl KeysBody {
    /// The service makes the keys that are left out or empty.
    fn read(self, random: &mut Random) -> Result<DeviceKeys, Error> {
        let mut read = |name: &str, text: Option<String>| match given(text) {
            None => Ok(random.key()),
            Some(text) => Key::from_base64(&text).map_err(|error| {
                Error::invalid(format!("attestation.symmetricKey.{name}: {error}."))
            }),
        };
        Ok(DeviceKeys {
            primary: read("primaryKey", self.primary_key)?,
            secondary: read("secondaryKey", self.secondary_key)?,
        })
    }
}

impl X509Body {
    fn into_attestation(self, name: &'static str) -> Result<Attestation, Error> {
        if let Some(references) = self.ca_references {
            let primary = given(references.primary).ok_or_else(|| {
                Error::invalid("attestation.x509.caReferences.primary is missing.")
            })?;
            return Ok(Attestation::CaReferences {
                primary,
                secondary: given(references.secondary),
            });
        }
        let given_certificates = [
            ("clientCertificates", self.client_certificates),
            ("signingCertificates", self.signing_certificates),
        ];
        let certificates = given_certificates
            .into_iter()
            .find_map(|(given, certificates)| certificates.filter(|_| given == name))
            .ok_or_else(|| Error::invalid(format!("attestation.x509.{name} is missing.")))?;
        let read = |which: &str, body: Option<CertificateBody>| {
            given(body.and_then(|body| body.certificate))
                .map(|text| {
                    Certificate::from_text(&text).map_err(|error| {
                        Error::invalid(format!("attestation.x509.{name}.{which}: {error}."))
                    })
                })
                .transpose()
        };
        Ok(Attestation::X509(Certificates {
            primary: read("primary", certificates.primary)?.ok_or_else(|| {
                Error::invalid(format!("attestation.x509.{name}.primary is missing."))
            })?,
            secondary: read("secondary", certificates.secondary)?,
        }))
    }
}

impl From<TwinBody> for InitialTwin {
    /// `$version` and `$metadata`, which .NET's collections carry, are not properties.
    fn from(body: TwinBody) -> Self {
        let properties = |section: Option<Map<String, Value>>| {
            let mut section = section.unwrap_or_default();
            section.retain(|key, _| !key.starts_with('$'));
            section
        };
        Self {
            tags: properties(body.tags),
            desired: properties(body.properties.and_then(|p| p.desired)),
        }
    }
}

/// SDKs write `null` and `""` for what is not there.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
