//! Enrollments: which devices may register, with what proof, and what they get.
//!
//! An *individual* enrollment is for one registration and bears its name; a *group* is for all whose key derives from the
//! group's, or whose certificate one of the group's has signed. Where both would do, the individual one decides: that is
//! how one device of a group is shut out ("How to disenroll or revoke device").

pub(super) mod json;

use std::{collections::BTreeMap, fmt, str::FromStr};

use iothub::{
    DeviceId, HubName, Timestamp, limits,
    twin::{RuleBroken, check_patch, check_size},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Code, Error, GroupId, InvalidId, Limits, RegistrationId, Service, attestation::Origin,
    certificate::Certificate, registration::Registration,
};
use crate::{hub::DeviceKeys, x509::Authority};

/// An enrollment for one device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Individual {
    /// The device's id at its hub; without it, the registration's.
    pub device_id: Option<DeviceId>,
    /// `optionalDeviceInformation`: kept for the operator.
    pub information: Option<Map<String, Value>>,
    /// What it has in common with a group.
    pub terms: Terms,
}

/// An enrollment for many devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What it has in common with an individual enrollment.
    pub terms: Terms,
}

/// Proof, state, hub and twin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// What a device must prove.
    pub attestation: Attestation,
    /// Whether devices may register.
    pub is_enabled: bool,
    /// Which hub they get.
    pub allocation: Allocation,
    /// What happens when they register again.
    pub reprovision: Reprovision,
    /// What their twins begin with.
    pub twin: InitialTwin,
}

/// What a device must prove.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Attestation {
    /// Its token is signed by one of these, or by a key that derives from one of them if this is a group.
    SymmetricKey(DeviceKeys),
    /// It has one of these certificates (individual), or one that they have signed (group).
    X509(Certificates),
    /// It has a certificate that one of these authorities has signed, by their names at the service.
    CaReferences {
        /// One.
        primary: String,
        /// Another, for the time of a change.
        secondary: Option<String>,
    },
}

/// One certificate or two.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// One.
    pub primary: Certificate,
    /// Another, for the time of a change.
    pub secondary: Option<Certificate>,
}

/// Which hub a device gets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// How it is chosen.
    pub policy: Policy,
    /// The hubs to choose from; none means all that are linked.
    pub hubs: Vec<HubName>,
}

/// How a hub is chosen ("How to use allocation policies to provision devices across IoT hubs").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// Evenly, by the registration's name.
    Hashed,
    /// The nearest. All hubs of an emulator are equally near, and then the service chooses like [`Policy::Hashed`].
    GeoLatency,
    /// The first of the list.
    Static,
}

/// What happens when a device registers again ("IoT Hub Device reprovisioning concepts").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reprovision {
    /// Its hub is chosen afresh, and its twin moves with it.
    Migrate,
    /// Its hub is chosen afresh, and its twin begins anew.
    Reset,
    /// It stays where it is.
    Never,
}

/// What a twin begins with.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialTwin {
    /// The tags.
    pub tags: Map<String, Value>,
    /// The desired properties.
    pub desired: Map<String, Value>,
}

/// What individual enrollments and groups have in common, for those who keep and show them.
pub(crate) trait Enrollment: Sized + Send + 'static {
    /// What names one.
    type Id: Ord + Clone + fmt::Display + FromStr<Err = InvalidId> + Send;
    /// The member of its document that names it.
    const ID: &'static str;
    /// The member of a bulk operation that lists them.
    const LIST: &'static str;
    /// The member of `x509` that its certificates stand in.
    const CERTIFICATES: &'static str;

    /// Reads what only this kind has, and takes the rest.
    ///
    /// # Errors
    ///
    /// What only this kind has breaks a rule.
    fn from_parts(own: json::Own, terms: Terms) -> Result<Self, Error>;
    fn terms(&self) -> &Terms;
    /// The members that only this kind has.
    fn own(&self) -> Map<String, Value>;
    fn not_found(id: &Self::Id) -> Error;
    fn all(service: &Service) -> &BTreeMap<Self::Id, Record<Self>>;
    fn all_mut(service: &mut Service) -> &mut BTreeMap<Self::Id, Record<Self>>;
    /// How many there may be.
    fn most(limits: &Limits) -> usize;
    /// Whether a registration comes from this enrollment.
    fn is_origin_of(id: &Self::Id, registration: &Registration) -> bool;
    /// The registration that is shown within the enrollment.
    fn registration<'a>(service: &'a Service, id: &Self::Id) -> Option<&'a Registration>;
}

/// An enrollment as the service keeps it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record<T> {
    pub(super) enrollment: T,
    pub(super) etag: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

impl Enrollment for Individual {
    type Id = RegistrationId;
    const ID: &'static str = "registrationId";
    const LIST: &'static str = "enrollments";
    const CERTIFICATES: &'static str = "clientCertificates";

    fn from_parts(own: json::Own, terms: Terms) -> Result<Self, Error> {
        let device_id = own.device_id.map(|id| id.parse()).transpose();
        Ok(Self {
            device_id: device_id.map_err(|error| Error::invalid(format!("deviceId: {error}.")))?,
            information: own.information,
            terms,
        })
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn own(&self) -> Map<String, Value> {
        let mut own = Map::new();
        if let Some(device) = &self.device_id {
            own.insert("deviceId".to_owned(), device.as_str().into());
        }
        if let Some(information) = &self.information {
            let information = Value::Object(information.clone());
            own.insert("optionalDeviceInformation".to_owned(), information);
        }
        own
    }

    fn not_found(id: &RegistrationId) -> Error {
        let message = format!("There is no individual enrollment {id}.");
        Error::new(Code::EnrollmentNotFound, message)
    }

    fn all(service: &Service) -> &BTreeMap<RegistrationId, Record<Self>> {
        &service.individuals
    }

    fn all_mut(service: &mut Service) -> &mut BTreeMap<RegistrationId, Record<Self>> {
        service.revision += 1;
        &mut service.individuals
    }

    fn most(limits: &Limits) -> usize {
        limits.registrations
    }

    fn is_origin_of(id: &RegistrationId, registration: &Registration) -> bool {
        registration.id == *id && registration.origin == Origin::Individual
    }

    fn registration<'a>(service: &'a Service, id: &RegistrationId) -> Option<&'a Registration> {
        let registration = service.registrations.get(id);
        registration.filter(|registration| registration.origin == Origin::Individual)
    }
}

impl Enrollment for Group {
    type Id = GroupId;
    const ID: &'static str = "enrollmentGroupId";
    const LIST: &'static str = "enrollmentGroups";
    const CERTIFICATES: &'static str = "signingCertificates";

    fn from_parts(_: json::Own, terms: Terms) -> Result<Self, Error> {
        if let Attestation::X509(certificates) = &terms.attestation {
            for certificate in certificates.iter() {
                Authority::read(certificate.der())
                    .map_err(|error| Error::invalid(format!("{}: {error}.", Self::CERTIFICATES)))?;
            }
        }
        Ok(Self { terms })
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn own(&self) -> Map<String, Value> {
        Map::new()
    }

    fn not_found(id: &GroupId) -> Error {
        Error::new(
            Code::NotFound,
            format!("There is no enrollment group {id}."),
        )
    }

    fn all(service: &Service) -> &BTreeMap<GroupId, Record<Self>> {
        &service.groups
    }

    fn all_mut(service: &mut Service) -> &mut BTreeMap<GroupId, Record<Self>> {
        service.revision += 1;
        &mut service.groups
    }

    fn most(limits: &Limits) -> usize {
        limits.groups
    }

    fn is_origin_of(id: &GroupId, registration: &Registration) -> bool {
        registration.origin == Origin::Group(id.clone())
    }

    fn registration<'a>(_: &'a Service, _: &GroupId) -> Option<&'a Registration> {
        None
    }
}

impl Terms {
    /// The defaults of the service: enabled, evenly over all hubs, migrate.
    #[must_use]
    pub fn new(attestation: Attestation) -> Self {
        Self {
            attestation,
            is_enabled: true,
            allocation: Allocation {
                policy: Policy::Hashed,
                hubs: Vec::new(),
            },
            reprovision: Reprovision::Migrate,
            twin: InitialTwin::default(),
        }
    }

    /// # Errors
    ///
    /// It names a hub that is not linked, none where it must, or its twin breaks the rules of twins.
    pub(super) fn check(&self, linked: &[HubName]) -> Result<(), Error> {
        let Allocation { policy, hubs } = &self.allocation;
        if let Some(unknown) = hubs.iter().find(|hub| !linked.contains(hub)) {
            return Err(Error::invalid(format!(
                "The hub {unknown} is not linked to this provisioning service."
            )));
        }
        if *policy == Policy::Static && hubs.is_empty() {
            return Err(Error::invalid(
                "allocationPolicy static wants one hub in iotHubs.",
            ));
        }
        self.twin
            .check()
            .map_err(|broken| Error::invalid(format!("initialTwin: {broken}.")))
    }
}

impl Individual {
    /// With the service's defaults.
    #[must_use]
    pub const fn new(terms: Terms) -> Self {
        Self {
            device_id: None,
            information: None,
            terms,
        }
    }

    /// The device's id at its hub.
    pub(super) fn device(&self, id: &RegistrationId) -> DeviceId {
        self.device_id.clone().unwrap_or_else(|| id.device())
    }
}

impl Certificates {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.primary).chain(&self.secondary)
    }
}

impl InitialTwin {
    fn check(&self) -> Result<(), RuleBroken> {
        check_patch(&self.tags)?;
        check_size(&self.tags, limits::TWIN_TAGS_BYTES)?;
        check_patch(&self.desired)?;
        check_size(&self.desired, limits::TWIN_SECTION_BYTES)
    }
}

impl Policy {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hashed => "hashed",
            Self::GeoLatency => "geoLatency",
            Self::Static => "static",
        }
    }
}

impl<T> Record<T> {
    pub(super) fn new(enrollment: T, etag: String, now: Timestamp) -> Self {
        Self {
            enrollment,
            etag,
            created_at: now,
            updated_at: now,
        }
    }

    pub(super) fn replace(&mut self, enrollment: T, etag: String, now: Timestamp) {
        self.enrollment = enrollment;
        self.etag = etag;
        self.updated_at = now;
    }
}
