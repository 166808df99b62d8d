//! Twin requests of a device over MQTT (the MQTT page).
//!
//! Answers are QoS 0 whatever was subscribed (Embedded C's header, traces of the C SDK), apart from the PUBACK that a QoS 1
//! request gets. An error always has a JSON body: the Node SDK looks at its `errorCode` and not at the status.

use std::{fmt, time::Duration};

use iothub::{
    ErrorCode,
    topic::{Filter, RequestId, ToDevice},
    twin::{ParseTwinError, ReportedPatch, TwinVersion},
};

use super::{ConnectionId, Error, Hub, Now, Operation, faults::TwinFault, packet};

/// What a twin request is answered with.
struct Response {
    status: u16,
    rid: RequestId,
    version: Option<TwinVersion>,
    body: Vec<u8>,
}

impl Hub {
    /// The body of the request is not looked at: C and .NET send none, Node and Python one space.
    pub(super) fn on_twin_get(&mut self, id: ConnectionId, rid: RequestId, now: Now) {
        let Ok(identity) = self.speaker(id) else {
            return;
        };
        let Ok(record) = self.registry.record(&identity) else {
            return;
        };
        let body = record.twin.for_device().to_json().to_string();
        if let Some(delay) = self.admitted(id, &rid, Operation::TwinReads, body.len(), now) {
            let response = Response::new(200, rid, body.into_bytes());
            self.answer(id, response, delay, now);
        }
    }

    pub(super) fn on_patch_reported(
        &mut self,
        id: ConnectionId,
        rid: RequestId,
        body: &[u8],
        now: Now,
    ) {
        let operation = Operation::TwinUpdates;
        let Some(delay) = self.admitted(id, &rid, operation, body.len(), now) else {
            return;
        };
        let response = match self.report(id, body, now) {
            Ok(version) => Response {
                version: Some(version),
                ..Response::new(204, rid, Vec::new())
            },
            Err(error) => {
                let (status, number) = (error.code.status(), error.code.number());
                self.error_response(status, rid, number, error.message, now)
            }
        };
        self.answer(id, response, delay, now);
    }

    fn report(&mut self, id: ConnectionId, body: &[u8], now: Now) -> Result<TwinVersion, Error> {
        let gone = || Error::new(ErrorCode::DeviceNotFound, "the connection is gone");
        let open = self.open_mut(id).ok_or_else(gone)?;
        if !open.has_api_version {
            // andriyadi PR 5: without an api-version in the username the hub answers 400.
            return Err(Error::new(
                ErrorCode::InvalidProtocolVersion,
                "The username names no api-version.",
            ));
        }
        let identity = open.identity.clone();
        let invalid = |text: String| Error::new(ErrorCode::ArgumentInvalid, text);
        let patch = ReportedPatch::parse(body).map_err(|error| match error {
            ParseTwinError::Json(_) | ParseTwinError::NotAnObject | ParseTwinError::Missing(_) => {
                Error::new(ErrorCode::IotHubFormatError, error.to_string())
            }
            ParseTwinError::Rule(broken) => invalid(broken.to_string()),
        })?;
        self.registry
            .record_mut(&identity)?
            .twin
            .report(patch.as_map(), now.utc)
            .map_err(|broken| invalid(broken.to_string()))
    }

    /// Lets faults, throttles and the quota deal with a request. Returns how late it is to be answered; none if that has
    /// happened.
    fn admitted(
        &mut self,
        id: ConnectionId,
        rid: &RequestId,
        operation: Operation,
        bytes: usize,
        now: Now,
    ) -> Option<Duration> {
        let delay = self.divert(id, rid, now)?;
        let turn = self.throttle(operation, 1, now);
        match turn.and_then(|wait| self.charge([bytes], now).map(|()| wait)) {
            Ok(wait) => Some(delay + wait),
            // 429 for a throttle (the MQTT page), 403 for the quota (iotedge issue 1560).
            Err(error) => {
                let (status, number) = (error.code.status(), error.code.number());
                let response = self.error_response(status, rid.clone(), number, error.message, now);
                self.answer(id, response, Duration::ZERO, now);
                None
            }
        }
    }

    /// Lets faults deal with a request. Returns how late it is to be answered; none if it has been dealt with.
    fn divert(&mut self, id: ConnectionId, rid: &RequestId, now: Now) -> Option<Duration> {
        let fault = self.fault(id, |faults, identity| faults.on_twin_request(identity, now));
        let (status, code, delay) = match fault {
            None => return Some(Duration::ZERO),
            Some(TwinFault::Delay(delay)) => return Some(delay),
            Some(TwinFault::Ignore) => return None,
            Some(TwinFault::Fail(status)) => (status, number_of(status), Duration::ZERO),
            Some(TwinFault::Throttle(wait)) => (
                ErrorCode::ThrottlingBacklogTimeout.status(),
                ErrorCode::ThrottlingBacklogTimeout.number(),
                wait,
            ),
        };
        let response = self.error_response(
            status,
            rid.clone(),
            code,
            "A fault asks for this error.",
            now,
        );
        self.answer(id, response, delay, now);
        None
    }

    fn error_response(
        &mut self,
        status: u16,
        rid: RequestId,
        number: u32,
        message: impl fmt::Display,
        now: Now,
    ) -> Response {
        let body = self.error_body(number, &message.to_string(), now);
        let body = serde_json::to_vec(&body).expect("texts and a number have a JSON form");
        Response::new(status, rid, body)
    }

    /// A request before the subscription to its answers gets none.
    fn answer(&mut self, id: ConnectionId, response: Response, delay: Duration, now: Now) {
        let Ok(identity) = self.speaker(id) else {
            return;
        };
        let session = self.registry.record(&identity).map(|r| r.session.as_ref());
        let is_subscribed = session
            .ok()
            .flatten()
            .is_some_and(|session| session.has(&Filter::TwinResponses));
        if !is_subscribed {
            return;
        }
        let topic = ToDevice::TwinResponse {
            status: response.status,
            rid: response.rid,
            version: response.version,
        };
        let packet = packet::publish(&topic.encode(), &response.body);
        let Some(open) = self.open_mut(id) else {
            return;
        };
        if let Some(packet) = open.held_answers.hold(packet, delay, now) {
            self.outputs.transmit(id, packet);
        }
    }
}

impl Response {
    const fn new(status: u16, rid: RequestId, body: Vec<u8>) -> Self {
        Self {
            status,
            rid,
            version: None,
            body,
        }
    }
}

/// The number that goes with a status: 429001 for 429, the first one of the status otherwise.
fn number_of(status: u16) -> u32 {
    match status {
        429 => ErrorCode::ThrottlingException.number(),
        other => u32::from(other) * 1000 + 1,
    }
}
