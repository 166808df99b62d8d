//! Direct methods ("Understand and invoke direct methods from IoT Hub").
//!
//! ```text
//! invoke ─▶ Awaiting the device ──connected and subscribed──▶ Sent ──answer──▶ done
//!              └── connect time-out: 404103                    └── response time-out: 504101
//! ```
//!
//! A request lives on the connection that it was sent on: the `$rid` counts per connection, so after a reconnect the same
//! id names another request, and an answer to the old one finds nothing. The caller waits to the end of its time all the
//! same: that the hub would tell it earlier is not documented.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use iothub::{
    ErrorCode, Identity, MethodName, MethodResponse, limits,
    topic::{RequestId, ToDevice},
};
use serde_json::Value;

use super::{ConnectionId, Error, Hub, Now, Output, faults::AnswerFault, packet, timers::Timer};

/// Names one invocation for as long as the hub lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(u64);

/// A direct method as the service invokes it.
#[derive(Clone, Debug)]
pub struct MethodCall {
    /// Which method.
    pub name: MethodName,
    /// JSON, or no byte at all.
    pub payload: Bytes,
    /// How long the device has for its answer: 5 to 300 s.
    pub response_timeout: Duration,
    /// How long to wait for the device to connect: 0 to 300 s.
    pub connect_timeout: Duration,
}

/// An invocation that is under way.
pub(super) struct Call {
    /// For whom.
    identity: Identity,
    state: State,
}

enum State {
    AwaitingDevice {
        call: MethodCall,
        deadline: Instant,
    },
    Sent {
        deadline: Instant,
        connection: ConnectionId,
        number: u64,
        /// What the device has said, and when its caller hears it (a fault).
        answer: Option<(Instant, Result<MethodResponse, Error>)>,
    },
}

/// The requests of one connection, by their number.
#[derive(Default)]
pub(super) struct OpenCalls {
    call_by_number: BTreeMap<u64, CallId>,
    last_number: u64,
}

impl Hub {
    /// Begins an invocation; its end comes as [`Output::MethodDone`].
    ///
    /// # Errors
    ///
    /// Unknown device or module, a payload or time that is not allowed, too many at once, the day's quota is spent, or the
    /// device is not online and the caller does not want to wait for it.
    pub fn invoke_method(
        &mut self,
        identity: &Identity,
        call: MethodCall,
        now: Now,
    ) -> Result<CallId, Error> {
        check(&call)?;
        let record = self.registry.record_mut(identity)?;
        if record.calls.len() >= self.config.methods_in_flight {
            return Err(Error::new(
                ErrorCode::TooManyMethods,
                "Too many direct methods in flight for the device.",
            ));
        }
        let is_reachable = record.connection.is_some()
            && record
                .session
                .as_ref()
                .is_some_and(|session| session.takes_method(&call.name));
        if !is_reachable && call.connect_timeout.is_zero() {
            return Err(not_online());
        }
        self.charge([call.payload.len()], now)?;
        let record = self.registry.record_mut(identity)?;
        let id = CallId(self.next_call);
        self.next_call += 1;
        record.calls.insert(id);
        let deadline = now.at + call.connect_timeout;
        self.timers.set(deadline, Timer::Call(id));
        self.calls.insert(
            id,
            Call {
                identity: identity.clone(),
                state: State::AwaitingDevice { call, deadline },
            },
        );
        self.deliver_calls(identity, now);
        Ok(id)
    }

    /// Sends the calls that wait for an identity, if it is connected and has subscribed to them.
    pub(super) fn deliver_calls(&mut self, identity: &Identity, now: Now) {
        let Ok(record) = self.registry.record(identity) else {
            return;
        };
        let (Some(id), Some(session)) = (record.connection, &record.session) else {
            return;
        };
        let open = self.connections.get_mut(&id).and_then(|c| c.as_open_mut());
        let Some(open) = open else { return };
        for call_id in &record.calls {
            let Some(waiting) = self.calls.get_mut(call_id) else {
                continue;
            };
            let State::AwaitingDevice { call, .. } = &waiting.state else {
                continue;
            };
            if !session.takes_method(&call.name) {
                continue;
            }
            let number = open.calls.add(*call_id);
            let topic = ToDevice::MethodRequest {
                name: call.name.clone(),
                rid: number.into(),
            };
            // Always QoS 0 (traces); zero bytes if the caller gave no payload.
            self.outputs
                .transmit(id, packet::publish(&topic.encode(), &call.payload));
            let deadline = now.at + call.response_timeout;
            waiting.state = State::Sent {
                deadline,
                connection: id,
                number,
                answer: None,
            };
            self.timers.set(deadline, Timer::Call(*call_id));
        }
    }

    /// An answer; late or unknown ones are ignored ("Understand and invoke direct methods").
    pub(super) fn on_method_response(
        &mut self,
        id: ConnectionId,
        status: i32,
        rid: &RequestId,
        payload: Bytes,
        now: Now,
    ) {
        let call = self.open_mut(id).and_then(|open| open.calls.get(rid));
        let Some(call) = call else { return };
        // Answers are charged for as well ("Azure IoT Hub billing information"), but nobody would know what to do with a
        // refusal: the method has been carried out.
        let _ = self.charge([payload.len()], now);
        let result = if payload.len() > limits::METHOD_PAYLOAD_BYTES {
            // What the hub does is not documented; the caller is told, so that nobody searches for a lost answer.
            Err(Error::new(
                ErrorCode::MessageTooLarge,
                format!(
                    "The answer of the device has {} bytes, the limit is {}.",
                    payload.len(),
                    limits::METHOD_PAYLOAD_BYTES
                ),
            ))
        } else {
            Ok(MethodResponse { status, payload })
        };
        match self.fault(id, |faults, identity| {
            faults.on_method_answer(identity, now)
        }) {
            None => self.finish_call(call, result, now),
            Some(AnswerFault::Swallow) => {}
            Some(AnswerFault::Delay(delay)) => self.hold_answer(call, result, now.at + delay),
        }
    }

    /// Keeps an answer back from its caller, who waits no longer than it would for a device (a fault).
    fn hold_answer(&mut self, id: CallId, result: Result<MethodResponse, Error>, due: Instant) {
        if let Some(call) = self.calls.get_mut(&id)
            && let State::Sent { answer, .. } = &mut call.state
            && answer.is_none()
        {
            *answer = Some((due, result));
            self.timers.set(due, Timer::Call(id));
        }
    }

    pub(super) fn on_call_timer(&mut self, id: CallId, now: Now) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        match &mut call.state {
            State::AwaitingDevice { deadline, .. } if *deadline <= now.at => {
                self.finish_call(id, Err(not_online()), now);
            }
            State::Sent {
                answer, deadline, ..
            } if answer
                .as_ref()
                .is_some_and(|(due, _)| due <= deadline && *due <= now.at) =>
            {
                if let Some((_, result)) = answer.take() {
                    self.finish_call(id, result, now);
                }
            }
            State::Sent { deadline, .. } if *deadline <= now.at => {
                let timeout = Error::new(
                    ErrorCode::GatewayTimeout,
                    "Timed out waiting for the response from device.",
                );
                self.finish_call(id, Err(timeout), now);
            }
            State::AwaitingDevice { .. } | State::Sent { .. } => {}
        }
    }

    pub(super) fn finish_call(
        &mut self,
        id: CallId,
        result: Result<MethodResponse, Error>,
        now: Now,
    ) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        if let Ok(record) = self.registry.record_mut(&call.identity) {
            record.calls.remove(&id);
        }
        if let State::Sent {
            connection, number, ..
        } = call.state
            && let Some(open) = self.open_mut(connection)
        {
            open.calls.call_by_number.remove(&number);
        }
        if !self.on_job_call(id, &result, now) {
            self.outputs.push(Output::MethodDone { call: id, result });
        }
    }
}

impl OpenCalls {
    /// Short lower-case hexadecimal numbers, counted per connection (captures of Microchip's Azure demo; EdgeHub).
    fn add(&mut self, call: CallId) -> u64 {
        self.last_number += 1;
        self.call_by_number.insert(self.last_number, call);
        self.last_number
    }

    /// The device must echo the id unchanged.
    fn get(&self, rid: &RequestId) -> Option<CallId> {
        let number = u64::from_str_radix(rid.as_str(), 16).ok()?;
        let call = self.call_by_number.get(&number)?;
        (RequestId::from(number) == *rid).then_some(*call)
    }
}

/// What the caller sees of an answer. What the hub does with one that is no JSON is not documented; here it is shown as text.
pub(crate) fn payload_json(response: &MethodResponse) -> Value {
    match &*response.payload {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into()),
    }
}

/// # Errors
///
/// A payload or a time that is not allowed.
pub(super) fn check(call: &MethodCall) -> Result<(), Error> {
    let invalid = |text: String| Err(Error::new(ErrorCode::ArgumentInvalid, text));
    let response = limits::METHOD_RESPONSE_TIMEOUT_S;
    if !response.contains(&call.response_timeout.as_secs()) {
        return invalid(format!(
            "responseTimeoutInSeconds is {} to {}.",
            response.start(),
            response.end()
        ));
    }
    let connect = limits::METHOD_CONNECT_TIMEOUT_S;
    if !connect.contains(&call.connect_timeout.as_secs()) {
        return invalid(format!(
            "connectTimeoutInSeconds is {} to {}.",
            connect.start(),
            connect.end()
        ));
    }
    if call.payload.len() > limits::METHOD_PAYLOAD_BYTES {
        return invalid(format!(
            "The payload of a direct method has at most {} bytes.",
            limits::METHOD_PAYLOAD_BYTES
        ));
    }
    Ok(())
}

/// The text of a live hub, 2026.
fn not_online() -> Error {
    Error::new(
        ErrorCode::DeviceNotOnline,
        "The operation failed because the requested device isn't online. To learn more, see \
         https://aka.ms/iothub404103",
    )
}
