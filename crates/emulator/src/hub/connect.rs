//! CONNECT: who is it, may it, and what did its last session leave.

use std::{sync::Arc, time::Duration};

use iothub::{Identity, Telemetry, connect::Username, limits, topic::ToHub};
use mqtt_protocol_core::mqtt::{packet::Qos, result_code::ConnectReturnCode};

use super::{
    CloseReason, ConnectionId, Hub, Now, Operation,
    access::{DeviceAccess, Proof},
    connection::{Connection, Held, Open},
    faults::ConnectFault,
    methods::OpenCalls,
    packet::{self, Connect, Publish},
    session::Session,
    telemetry::{self, Stamps},
};
use crate::x509::Peer;

/// A CONNECT that may be accepted.
struct Admission {
    username: Username,
    access: DeviceAccess,
}

impl Hub {
    pub(super) fn on_connect(
        &mut self,
        id: ConnectionId,
        connect: Connect,
        now: Now,
    ) -> Result<(), CloseReason> {
        let peer = self.connections.get(&id).map(Connection::peer);
        let admission = match self.admit(&connect, &peer.unwrap_or_default(), now) {
            Ok(admission) => admission,
            // Unknown, disabled, expired, wrong: one and the same answer (azure-iot-sdk-c issues 373 and 928). For a
            // disabled device 3 has been suspected as well (issue 2300).
            Err(why) => {
                tracing::info!(device = connect.client_id, why, "refused a device");
                return Err(self.refuse(id, ConnectReturnCode::NotAuthorized, &why));
            }
        };
        let identity = admission.username.identity.clone();
        match self.faults.on_connect(&identity, now) {
            Some(ConnectFault::Refuse(code)) => {
                return Err(self.refuse(id, code, "a fault asks for it"));
            }
            Some(ConnectFault::Unreachable) => return Err(CloseReason::Unreachable),
            None => {}
        }
        match self.throttle(Operation::Connects, 1, now) {
            Ok(Duration::ZERO) => {}
            // CONNACK, and all that comes after it, waits for its turn.
            Ok(wait) => self.freeze(id, now.at + wait, now),
            // How a hub refuses a connection that it throttles is not documented; the protocol gateway answers 3 to
            // whatever is not the credential's fault.
            Err(error) => {
                return Err(self.refuse(id, ConnectReturnCode::ServerUnavailable, &error.message));
            }
        }
        let will = connect
            .will
            .map(|will| parse_will(will, &identity))
            .transpose()?;
        let session_present = self.take_over(&identity, connect.is_clean, now)?;
        self.outputs.transmit(
            id,
            packet::connack(ConnectReturnCode::Accepted, session_present),
        );
        let open = self.open(admission, connect.keep_alive_s, will, now)?;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.open(open);
        }
        if let Ok(record) = self.registry.record_mut(&identity) {
            record.connection = Some(id);
            record.connections += 1;
        }
        // Queued messages come right after CONNACK, before the client could SUBSCRIBE (freertos-samples issue 397).
        self.deliver_messages(identity.device_id(), now);
        self.deliver_calls(&identity, now);
        Ok(())
    }

    /// Answers CONNECT with a code; the reason that is returned closes the connection.
    pub(super) fn refuse(
        &mut self,
        id: ConnectionId,
        code: ConnectReturnCode,
        why: &str,
    ) -> CloseReason {
        self.outputs.transmit(id, packet::connack(code, false));
        CloseReason::Refused {
            code: code as u8,
            why: why.to_owned(),
        }
    }

    /// Client id, username and password ("Communicate with an IoT hub using the MQTT protocol", section on
    /// authentication). The text of a refusal is for the hub's log.
    fn admit(&self, connect: &Connect, peer: &Peer, now: Now) -> Result<Admission, String> {
        let username = connect.username.as_deref().ok_or("no username")?;
        let username = Username::parse(username).map_err(|error| error.to_string())?;
        let identity = &username.identity;
        // EdgeHub's DeviceIdentityProvider compares by code unit.
        if connect.client_id != identity.client_id() {
            return Err("the client id is not the identity in the username".to_owned());
        }
        if *identity.hub() != self.config.name {
            return Err("the username names another hub".to_owned());
        }
        let proof = Proof::new(connect.password.as_deref(), peer);
        let access = self
            .authorize_device(identity, proof, &[], now)
            .map_err(|denied| denied.to_string())?;
        Ok(Admission { username, access })
    }

    /// Ends an older connection of the same identity, and makes the session ready. Returns whether one was there.
    fn take_over(
        &mut self,
        identity: &Identity,
        is_clean: bool,
        now: Now,
    ) -> Result<bool, CloseReason> {
        let gone = |_| CloseReason::IdentityDeleted;
        let older = self.registry.record(identity).map_err(gone)?.connection;
        if let Some(older) = older {
            // 400027 ConnectionForcefullyClosedOnNewConnection; the MQTT page: the older connection is dropped.
            self.close(older, CloseReason::TakenOver, now);
        }
        let is_lost = self.faults.on_session(identity, now);
        let record = self.registry.record_mut(identity).map_err(gone)?;
        record.connection_updated_at = Some(now.utc);
        record.session.take_if(|_| is_lost);
        match &mut record.session {
            Some(session) if !is_clean => {
                session.is_clean = false;
                Ok(true)
            }
            // The queue stays on clean session 1: the MQTT page drops subscriptions only; Embedded C's documentation says
            // that messages go as well.
            session => {
                *session = Some(Session::new(is_clean));
                Ok(false)
            }
        }
    }

    fn open(
        &mut self,
        admission: Admission,
        keep_alive_s: u16,
        will: Option<Telemetry>,
        now: Now,
    ) -> Result<Open, CloseReason> {
        let Admission { username, access } = admission;
        let identity = username.identity;
        let record = self
            .registry
            .record_mut(&identity)
            .map_err(|_| CloseReason::IdentityDeleted)?;
        // Embedded C's header: a model is announced with this api-version at least. They are dates, so they order as texts do.
        let knows_models = username.api_version.as_deref() >= Some(FIRST_WITH_MODELS);
        let model_id = username.model_id.filter(|_| knows_models);
        let model_id: Option<Arc<str>> = model_id.map(Into::into);
        if let Some(model_id) = &model_id {
            record.twin.announce_model(model_id);
        }
        record.newest_token = record.newest_token.max(access.expires_at);
        let hold = self.faults.on_connected(&identity, now);
        Ok(Open {
            stamps: Stamps {
                identity: identity.clone(),
                generation_id: Arc::clone(&record.generation_id),
                scope: access.scope,
                model_id,
            },
            has_api_version: username.api_version.is_some(),
            silence: silence(keep_alive_s),
            token_expires_at: access.expires_at,
            will,
            calls: OpenCalls::default(),
            last_activity_at: now.utc,
            messages_held_until: hold.map(|hold| now.at + hold),
            held_pubacks: Held::default(),
            held_answers: Held::default(),
            throttled_until: None,
            identity,
        })
    }
}

/// A will is telemetry of the device itself (the MQTT page); for another topic the hub's answer is not documented.
fn parse_will(will: Publish, identity: &Identity) -> Result<Telemetry, CloseReason> {
    if will.qos == Qos::ExactlyOnce {
        return Err(CloseReason::Qos2);
    }
    let Ok(ToHub::Telemetry {
        device,
        module,
        bag,
    }) = ToHub::parse(&will.topic)
    else {
        return Err(CloseReason::BadWill);
    };
    if *identity.device_id() != device || identity.module_id() != module.as_ref() {
        return Err(CloseReason::BadWill);
    }
    let mut message = Telemetry::from_bag(&bag, will.payload);
    if message.size() > limits::TELEMETRY_BYTES {
        return Err(CloseReason::MessageTooLarge);
    }
    message.properties.push(telemetry::from_will());
    if will.is_retained {
        message.properties.push(telemetry::retained());
    }
    Ok(message)
}

/// The MQTT page: one and a half times the keep-alive, 1767 s at most. With keep-alive 0 the protocol gateway applies
/// its maximum.
pub(crate) fn silence(keep_alive_s: u16) -> Duration {
    match keep_alive_s {
        0 => LONGEST_SILENCE,
        seconds => (Duration::from_secs(seconds.into()) * 3 / 2).min(LONGEST_SILENCE),
    }
}

const FIRST_WITH_MODELS: &str = "2020-09-30";
const LONGEST_SILENCE: Duration = Duration::from_secs(1767);
