//! Twin requests of a device over MQTT (the MQTT page).
//!
//! Answers are QoS 0 whatever was subscribed (Embedded C's header, traces of the C SDK), apart from the PUBACK that a QoS 1
//! request gets. An error always has a JSON body: the Node SDK looks at its `errorCode` and not at the status.

use iothub::{
    ErrorCode,
    topic::{Filter, RequestId, ToDevice},
    twin::{ParseTwinError, ReportedPatch, TwinVersion},
};

use super::{ConnectionId, Error, Hub, Now, faults::TwinFault, packet};

impl Hub {
    /// The body of the request is not looked at: C and .NET send none, Node and Python one space.
    pub(super) fn on_twin_get(&mut self, id: ConnectionId, rid: RequestId, now: Now) {
        if self.is_diverted(id, &rid, now) {
            return;
        }
        let Ok(identity) = self.speaker(id) else {
            return;
        };
        if let Ok(record) = self.registry.record(&identity) {
            let body = record.twin.for_device().to_json().to_string();
            self.answer(id, 200, rid, None, body.as_bytes());
        }
    }

    pub(super) fn on_patch_reported(
        &mut self,
        id: ConnectionId,
        rid: RequestId,
        body: &[u8],
        now: Now,
    ) {
        if self.is_diverted(id, &rid, now) {
            return;
        }
        match self.report(id, body, now) {
            Ok(version) => self.answer(id, 204, rid, Some(version), &[]),
            Err(error) => {
                let body = self.error_body(error.code.number(), &error.message, now);
                let body = serde_json::to_vec(&body).expect("texts and a number have a JSON form");
                self.answer(id, error.code.status(), rid, None, &body);
            }
        }
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

    /// Whether a fault has dealt with a request.
    fn is_diverted(&mut self, id: ConnectionId, rid: &RequestId, now: Now) -> bool {
        let Ok(identity) = self.speaker(id) else {
            return true;
        };
        match self.faults.on_twin_request(&identity) {
            None => false,
            Some(TwinFault::Ignore) => true,
            Some(TwinFault::Fail(status)) => {
                let number = match status {
                    429 => ErrorCode::ThrottlingException.number(),
                    other => u32::from(other) * 1000 + 1,
                };
                let body = self.error_body(number, "A fault asks for this error.", now);
                let body = serde_json::to_vec(&body).expect("texts and a number have a JSON form");
                self.answer(id, status, rid.clone(), None, &body);
                true
            }
        }
    }

    /// A request before the subscription to its answers gets none.
    fn answer(
        &mut self,
        id: ConnectionId,
        status: u16,
        rid: RequestId,
        version: Option<TwinVersion>,
        body: &[u8],
    ) {
        let Ok(identity) = self.speaker(id) else {
            return;
        };
        let session = self.registry.record(&identity).map(|r| r.session.as_ref());
        if session
            .ok()
            .flatten()
            .is_some_and(|session| session.has(&Filter::TwinResponses))
        {
            let topic = ToDevice::TwinResponse {
                status,
                rid,
                version,
            };
            self.outputs
                .transmit(id, packet::publish(&topic.encode(), body));
        }
    }
}
