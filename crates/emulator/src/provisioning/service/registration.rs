//! Registrations: what a device asks for, and what it gets.

use iothub::{DeviceId, HubName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Code, Error, Now, Output, Presented, RegistrationId, Service, allocation,
    attestation::{Admitted, Origin},
    enrollment::{InitialTwin, Reprovision},
    registry::check_etag,
    throttle::Window,
};
use crate::hub::{self, Authentication, IfMatch, Random};

/// Names one operation: what became of a register is asked for by it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(String);

/// A device that is to be brought to a hub.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Its registration.
    pub registration: RegistrationId,
    /// What [`Service::handle_assigned`] tells outdated answers by.
    pub operation: OperationId,
    /// The hub.
    pub hub: HubName,
    /// Its id there.
    pub device: DeviceId,
    /// What it will prove itself with.
    pub authentication: Authentication,
    /// What its twin begins with if it is new there.
    pub twin: InitialTwin,
    /// Where it was before.
    pub departure: Option<Departure>,
}

/// Where a device is to be deleted, because it is now somewhere else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Departure {
    /// The hub.
    pub hub: HubName,
    /// Its id there.
    pub device: DeviceId,
    /// Whether its twin comes along.
    pub takes_twin: bool,
}

/// An answer to a device.
#[derive(Clone, Debug)]
pub struct Reply {
    /// 202 while the operation lasts, 200 afterwards.
    pub status: u16,
    /// Seconds to wait before asking again.
    pub retry_after_s: Option<u32>,
    /// The operation that it tells of.
    pub operation: OperationId,
    /// JSON.
    pub body: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    pub(super) id: RegistrationId,
    pub(super) origin: Origin,
    operation: OperationId,
    #[serde(skip)]
    polls: Window,
    state: State,
    /// Where the device is, also while a further assignment is under way.
    place: Option<Place>,
    etag: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum State {
    Assigning(Place),
    Assigned,
    Failed { number: u32, message: String },
    Disabled,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    hub: HubName,
    device: DeviceId,
    substatus: Substatus,
}

/// How a device came to its hub (the service's REST specification, `AssignedDeviceSubstatus`).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Substatus {
    InitialAssignment,
    DeviceDataMigrated,
    DeviceDataReset,
    ReprovisionedToInitialAssignment,
}

/// What a device sends with its register.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    registration_id: Option<String>,
    tpm: Option<Value>,
    csr: Option<Value>,
}

impl Service {
    /// A device registers.
    ///
    /// # Errors
    ///
    /// Its proof is not good, its body breaks a rule, or there are too many registrations, within a minute or in all.
    pub fn register(
        &mut self,
        id: &RegistrationId,
        presented: Presented<'_>,
        body: &[u8],
        now: Now,
    ) -> Result<Reply, Error> {
        self.registered
            .count(self.config.limits.registrations(), now.at)?;
        let admitted = self.admit(id, presented, now)?;
        check_body(id, body)?;
        let known = self.registrations.get(id);
        if let Some(registration) = known
            && matches!(registration.state, State::Assigning(_))
        {
            return Ok(registration.reply(self.config.retry_after_s));
        }
        if known.is_none() && self.registrations.len() >= self.config.limits.registrations {
            return Err(Error::new(
                Code::Throttled,
                format!(
                    "The service has {} registrations.",
                    self.registrations.len()
                ),
            ));
        }
        let place = known.and_then(|registration| registration.place.clone());
        let (state, assignment) = self.decide(id, &admitted, place.as_ref());
        let origin = admitted.origin;
        let operation = OperationId::make(&mut self.random);
        let etag = self.random.guid();
        let registration = Registration {
            id: id.clone(),
            origin,
            operation: operation.clone(),
            polls: Window::default(),
            state,
            place,
            etag,
            created_at: known_since(self.registrations.get(id), now.utc),
            updated_at: now.utc,
        };
        let reply = Reply::assigning(operation.clone(), self.config.retry_after_s);
        self.revision += 1;
        self.registrations.insert(id.clone(), registration);
        if let Some(assignment) = assignment {
            self.outputs.push_back(Output::Assign(Box::new(Assignment {
                operation,
                ..assignment
            })));
        }
        Ok(reply)
    }

    /// A device asks what became of its register.
    ///
    /// # Errors
    ///
    /// Its proof is not good, there is no such operation, or it asks too often.
    pub fn operation_status(
        &mut self,
        id: &RegistrationId,
        presented: Presented<'_>,
        operation: &str,
        now: Now,
    ) -> Result<Reply, Error> {
        self.count_operation(now)?;
        self.admit(id, presented, now)?;
        let registration = self
            .registrations
            .get_mut(id)
            .filter(|registration| registration.operation.0 == operation)
            .ok_or_else(|| Error::new(Code::NotFound, "There is no such operation."))?;
        registration
            .polls
            .count(self.config.limits.polls(), now.at)?;
        Ok(registration.reply(self.config.retry_after_s))
    }

    /// A device asks how it is registered; returns its `registrationState`.
    ///
    /// # Errors
    ///
    /// Its proof is not good, or it is not registered.
    pub fn look_up(
        &mut self,
        id: &RegistrationId,
        presented: Presented<'_>,
        body: &[u8],
        now: Now,
    ) -> Result<Value, Error> {
        self.count_operation(now)?;
        self.admit(id, presented, now)?;
        check_body(id, body)?;
        self.registration(id)
    }

    /// A hub has taken a device, or refused it.
    pub fn handle_assigned(
        &mut self,
        assignment: &Assignment,
        result: Result<(), hub::Error>,
        now: Now,
    ) {
        let registration = self.registrations.get_mut(&assignment.registration);
        // Deleted meanwhile, or begun anew.
        let Some(registration) = registration.filter(|r| r.operation == assignment.operation)
        else {
            return;
        };
        let State::Assigning(place) = &registration.state else {
            return;
        };
        let place = place.clone();
        self.revision += 1;
        registration.state = match result {
            Ok(()) => {
                registration.place = Some(place);
                State::Assigned
            }
            // The message is the hub's own (azure-iot-sdk-c issue 1789 shows one).
            Err(error) => State::Failed {
                number: error.code.number(),
                message: error.to_string(),
            },
        };
        registration.etag = self.random.guid();
        registration.updated_at = now.utc;
    }

    /// How a device is registered, as operators read it.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn registration(&self, id: &RegistrationId) -> Result<Value, Error> {
        self.registrations
            .get(id)
            .map(Registration::to_json)
            .ok_or_else(|| not_registered(id))
    }

    /// Forgets a registration; the device stays at its hub ("How to deprovision devices").
    ///
    /// # Errors
    ///
    /// There is none, or its entity tag is another one.
    pub fn delete_registration(
        &mut self,
        id: &RegistrationId,
        if_match: Option<&IfMatch>,
    ) -> Result<(), Error> {
        let registration = self
            .registrations
            .get(id)
            .ok_or_else(|| not_registered(id))?;
        check_etag(if_match, &registration.etag)?;
        self.registrations.remove(id);
        self.revision += 1;
        Ok(())
    }

    /// What a register leads to. The operation of the assignment is not made yet.
    fn decide(
        &self,
        id: &RegistrationId,
        admitted: &Admitted<'_>,
        place: Option<&Place>,
    ) -> (State, Option<Assignment>) {
        let Admitted { terms, device, .. } = admitted;
        if !terms.is_enabled {
            return (State::Disabled, None);
        }
        let linked = &self.config.hubs;
        let stays = place
            .filter(|place| terms.reprovision == Reprovision::Never && linked.contains(&place.hub));
        let chosen = stays
            .map(|place| &place.hub)
            .or_else(|| allocation::choose(&terms.allocation, linked, id));
        let Some(hub) = chosen else {
            let state = State::Failed {
                number: Code::HubFailed.number(),
                message: "No hub is linked to this provisioning service.".to_owned(),
            };
            return (state, None);
        };
        let takes_twin = terms.reprovision == Reprovision::Migrate;
        let moves = place.filter(|place| place.hub != *hub || place.device != *device);
        let substatus = match (place, moves) {
            (None, _) => Substatus::InitialAssignment,
            (Some(_), None) => Substatus::ReprovisionedToInitialAssignment,
            (Some(_), Some(_)) if takes_twin => Substatus::DeviceDataMigrated,
            (Some(_), Some(_)) => Substatus::DeviceDataReset,
        };
        let assignment = Assignment {
            registration: id.clone(),
            operation: OperationId(String::new()),
            hub: hub.clone(),
            device: device.clone(),
            authentication: admitted.authentication.clone(),
            twin: terms.twin.clone(),
            departure: moves.map(|place| Departure {
                hub: place.hub.clone(),
                device: place.device.clone(),
                takes_twin,
            }),
        };
        let place = Place {
            hub: hub.clone(),
            device: device.clone(),
            substatus,
        };
        (State::Assigning(place), Some(assignment))
    }
}

impl Registration {
    /// The service has ended and begun again: whoever was on the way to a hub is told to register once more, for nobody knows
    /// how far it came.
    pub(super) fn resume(&mut self) {
        if matches!(self.state, State::Assigning(_)) {
            self.state = State::Failed {
                number: Code::HubFailed.number(),
                message: "The service ended before the hub had answered; register again."
                    .to_owned(),
            };
        }
    }

    /// What the device is told of its operation.
    fn reply(&self, retry_after_s: u32) -> Reply {
        let operation = self.operation.clone();
        if matches!(self.state, State::Assigning(_)) {
            return Reply::assigning(operation, retry_after_s);
        }
        let body = json!({
            "operationId": operation.0,
            "status": self.state.as_str(),
            "registrationState": self.to_json(),
        });
        Reply {
            status: 200,
            retry_after_s: None,
            operation,
            body,
        }
    }

    /// `registrationState`.
    pub(super) fn to_json(&self) -> Value {
        let mut document = json!({
            "registrationId": self.id.as_str(),
            "createdDateTimeUtc": self.created_at,
            "status": self.state.as_str(),
            "lastUpdatedDateTimeUtc": self.updated_at,
            "etag": format!("\"{}\"", self.etag),
        });
        match &self.state {
            State::Assigned => {}
            State::Failed { number, message } => {
                document["errorCode"] = json!(number);
                document["errorMessage"] = json!(message);
            }
            State::Disabled => {
                document["errorCode"] = json!(Code::Unauthorized.number());
                document["errorMessage"] = json!("The enrollment is disabled.");
            }
            State::Assigning(_) => return document,
        }
        if let (State::Assigned, Some(place)) = (&self.state, &self.place) {
            document["assignedHub"] = json!(place.hub);
            document["deviceId"] = json!(place.device);
            document["substatus"] = json!(place.substatus.as_str());
        }
        document
    }
}

impl State {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Assigning(_) => "assigning",
            Self::Assigned => "assigned",
            Self::Failed { .. } => "failed",
            Self::Disabled => "disabled",
        }
    }
}

impl Substatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InitialAssignment => "initialAssignment",
            Self::DeviceDataMigrated => "deviceDataMigrated",
            Self::DeviceDataReset => "deviceDataReset",
            Self::ReprovisionedToInitialAssignment => "reprovisionedToInitialAssignment",
        }
    }
}

impl OperationId {
    /// A number, sixteen hexadecimal digits and a GUID, as the documentation's example has it.
    fn make(random: &mut Random) -> Self {
        let hex = random.hex();
        Self(format!("5.{}.{}", &hex[..16], random.guid()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Reply {
    fn assigning(operation: OperationId, retry_after_s: u32) -> Self {
        Self {
            status: 202,
            retry_after_s: Some(retry_after_s),
            body: json!({ "operationId": operation.0, "status": "assigning" }),
            operation,
        }
    }
}

/// A body may be empty, and may leave out the id (.NET's SDK). `payload` is for the webhook of custom allocation alone.
fn check_body(id: &RegistrationId, body: &[u8]) -> Result<(), Error> {
    if body.len() > BODY_BYTES {
        return Err(Error::new(
            Code::TooLarge,
            format!("A register has at most {BODY_BYTES} bytes."),
        ));
    }
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| Error::invalid(format!("This is no device registration: {error}.")))?;
    let named = body.registration_id.as_deref();
    if named.is_some_and(|named| !named.eq_ignore_ascii_case(id.as_str())) {
        return Err(Error::invalid(
            "registrationId is not that of the connection or path.",
        ));
    }
    let unsupported = [("tpm", body.tpm), ("csr", body.csr)];
    match unsupported.into_iter().find(|(_, value)| value.is_some()) {
        Some((name, _)) => Err(Error::invalid(format!(
            "{name}: the emulator has neither TPM attestation nor certificate signing."
        ))),
        None => Ok(()),
    }
}

fn known_since(registration: Option<&Registration>, now: Timestamp) -> Timestamp {
    registration.map_or(now, |registration| registration.created_at)
}

fn not_registered(id: &RegistrationId) -> Error {
    Error::new(Code::NotFound, format!("There is no registration {id}."))
}

/// Of one message ("Azure IoT Hub Device Provisioning Service limits").
const BODY_BYTES: usize = 96 * 1024;
