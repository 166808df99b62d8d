//! The session itself: what can be asked of it, and how it goes from state to state.

use std::{fmt, mem, sync::Arc, time::Instant};

use bytes::Bytes;
use iothub::{
    Identity, MethodResponse, Telemetry, connect::Username, limits, topic, topic::ToHub,
    twin::ReportedPatch,
};
use mqtt_protocol_core::mqtt::result_code::ConnectReturnCode;

use crate::{
    Config, ConnectionEpoch, Event, LossReason, MethodRequestId, NotTaken, Receipt, RefusalReason,
    StaleReceipt, Subscriptions, Violation, WorkId,
    backoff::Attempts,
    lasting::Lasting,
    online::{Leave, Online},
    state::{Handshake, Next, State, Timer},
    wire::{self, Connack, Packet, Reader},
};

/// One device's session with IoT Hub.
///
/// # Contract
///
/// The session does nothing by itself. Its driver calls the `handle_*` functions with what happened and the commands
/// with what is wanted, and after **every** call drains, in this order,
///
/// 1. [`poll_transmit`](Self::poll_transmit) until `None`: bytes for the socket,
/// 2. [`poll_event`](Self::poll_event) until `None`: [`Event`]s, some of which ask for something,
/// 3. [`poll_timeout`](Self::poll_timeout) once: when to call [`handle_timeout`](Self::handle_timeout).
///
/// `now` never goes backwards. A timeout that comes early or twice is harmless.
///
/// # Sockets
///
/// [`Event::Connect`] asks for a socket, [`Event::Renew`] for a second one beside the first, [`Event::Switch`] and
/// [`Event::Close`] for the end of one or all. Each end of a socket is reported with
/// [`handle_disconnected`](Self::handle_disconnected), whoever asked for it, and the session writes nothing for the
/// next socket before that. A renewal:
///
/// ```text
/// session  Renew                    ..drains.. DISCONNECT Switch                    CONNECT
/// driver         (opens a socket)                                (closes the older)
///                handle_connected                                handle_disconnected
/// ```
///
/// # Work
///
/// There are three lanes: method answers, twin requests, telemetry. Each has a window; [`room`](Self::room) says what
/// fits, and what does not fit is not taken. Work that was taken may wait for a connection. It ends with exactly one
/// of [`Event::Delivered`], [`Event::TwinRead`], [`Event::ReportedPatched`] and [`Event::Gone`], or with
/// [`cancel`](Self::cancel).
pub struct Session {
    state: State,
    lasting: Lasting,
    is_wanted: bool,
    next_epoch: ConnectionEpoch,
    attempts: Attempts,
    rng: fastrand::Rng,
}

/// What a connection is made with.
#[derive(Clone)]
pub struct Credentials {
    /// The password: a SAS token, or none with a client certificate.
    pub password: Option<String>,
    /// When the connection should be replaced by one with fresher credentials; at the earliest after
    /// [`Config::stable_after`], so that a clock that is wrong does not make a storm of connections.
    pub renew_at: Option<Instant>,
}

/// How many more pieces of work each lane takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Answers to direct methods.
    pub answers: usize,
    /// Twin requests.
    pub twin: usize,
    /// Telemetry messages.
    pub telemetry: usize,
}

impl Session {
    /// A closed session. Its connections are numbered from `first_connection`; a number must never have been used
    /// before for this identity, because requests of direct methods carry it.
    #[must_use]
    pub fn new(
        identity: Identity,
        config: Arc<Config>,
        first_connection: ConnectionEpoch,
        mut rng: fastrand::Rng,
    ) -> Self {
        Self {
            state: State::Closed,
            lasting: Lasting::new(identity, config, rng.u64(..)),
            is_wanted: false,
            next_epoch: first_connection,
            attempts: Attempts::default(),
            rng,
        }
    }

    /// The socket that was asked for is there: sends CONNECT, at once or, in a renewal, when the older socket is gone.
    pub fn handle_connected(&mut self, credentials: Credentials, now: Instant) {
        match &mut self.state {
            State::Connecting => self.connect(credentials, now),
            State::Online(online) if online.awaits_socket() => {
                let left = online.renew(credentials, &mut self.lasting, now);
                self.end_on_error(left, now);
            }
            // Nobody asked; `Close` has been said.
            State::Online(_)
            | State::Closed
            | State::Waiting { .. }
            | State::Handshake(_)
            | State::Disconnecting(_) => {}
        }
    }

    /// The socket that was asked for could not be had.
    pub fn handle_connect_failed(&mut self, now: Instant) {
        match &mut self.state {
            State::Connecting => {
                let until = now
                    + self
                        .attempts
                        .after_connect_failure(&self.lasting.config, &mut self.rng);
                self.state = State::Waiting { until };
            }
            State::Online(online) if online.awaits_socket() => {
                let wait = self
                    .attempts
                    .after_connect_failure(&self.lasting.config, &mut self.rng);
                online.postpone_renewal(now + wait);
            }
            State::Disconnecting(_) => self.on_socket_closed(now),
            State::Online(_) | State::Closed | State::Waiting { .. } | State::Handshake(_) => {}
        }
    }

    /// The socket in use is gone. If the session asked for that, `reason` is of no interest.
    pub fn handle_disconnected(&mut self, reason: LossReason, now: Instant) {
        match self.state {
            State::Connecting => self.handle_connect_failed(now),
            State::Handshake(_) | State::Online(_) => self.end(reason, Socket::Gone, now),
            State::Disconnecting(_) => self.on_socket_closed(now),
            State::Closed | State::Waiting { .. } => {}
        }
    }

    /// Bytes from the socket in use, cut anywhere.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        let mut input = bytes;
        loop {
            let packet = match &mut self.state {
                State::Handshake(handshake) => handshake.reader.next(&mut input),
                State::Online(online) => online.read(&mut input, now),
                State::Closed
                | State::Waiting { .. }
                | State::Connecting
                | State::Disconnecting(_) => return,
            };
            let handled = match packet {
                Ok(None) => return,
                Ok(Some(packet)) => self.on_packet(packet, now),
                Err(violation) => Err(violation.into()),
            };
            self.end_on_error(handled, now);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_AT_ONCE {
            match self.next_timer() {
                Some((at, timer)) if at <= now => self.on_timer(timer, now),
                Some(_) | None => return,
            }
        }
    }

    /// From here on the session wants to be connected.
    pub fn open(&mut self, now: Instant) {
        self.is_wanted = true;
        match &mut self.state {
            State::Closed => self.ask_for_socket(),
            State::Online(online) => online.stay(&mut self.lasting, now),
            State::Waiting { .. }
            | State::Connecting
            | State::Handshake(_)
            | State::Disconnecting(_) => {}
        }
    }

    /// From here on the session wants to be closed; [`Event::Closed`] says when it is. What is in flight is awaited
    /// for a short time.
    pub fn close(&mut self, now: Instant) {
        self.is_wanted = false;
        match &mut self.state {
            State::Closed | State::Disconnecting(_) => {}
            State::Waiting { .. } => self.proceed(Next::Connect, now),
            State::Connecting | State::Handshake(_) => {
                self.state = State::Disconnecting(Next::Connect);
                self.lasting.out.push(Event::Close);
            }
            State::Online(online) => {
                let left = online.leave(Leave::Close, &mut self.lasting, now);
                self.end_on_error(left, now);
            }
        }
    }

    /// Leaves the connection for a new one. The hub takes back what was not acknowledged, and offers it again.
    pub fn reconnect(&mut self, now: Instant) {
        if let (State::Online(online), true) = (&mut self.state, self.is_wanted) {
            let left = online.leave(Leave::Reconnect, &mut self.lasting, now);
            self.end_on_error(left, now);
        }
    }

    /// Says what should come down. Whoever wants to know the desired properties asks for their changes first and
    /// reads the twin after that, so that no change falls between the two.
    pub fn set_wanted(&mut self, wanted: Subscriptions, now: Instant) {
        self.lasting.wanted = wanted;
        if let State::Online(online) = &mut self.state {
            online.serve(&mut self.lasting, now);
        }
    }

    /// Takes a telemetry message; done with [`Event::Delivered`].
    ///
    /// # Errors
    ///
    /// The lane has no room, or the hub would not take the message.
    pub fn publish(
        &mut self,
        id: WorkId,
        message: &Telemetry,
        now: Instant,
    ) -> Result<(), NotTaken> {
        if self.room().telemetry == 0 {
            return Err(NotTaken::NoRoom);
        }
        check_size(message.size(), limits::TELEMETRY_BYTES)?;
        let topic = ToHub::telemetry(&self.lasting.identity, message.to_bag()).encode();
        if !topic::fits(&topic) {
            return Err(NotTaken::TopicTooLong { size: topic.len() });
        }
        self.lasting
            .telemetry
            .push(id, topic, message.payload.clone());
        self.serve(now);
        Ok(())
    }

    /// Reads the twin; done with [`Event::TwinRead`]. Asked again if the hub does not answer.
    ///
    /// # Errors
    ///
    /// The lane has no room.
    pub fn twin_get(&mut self, id: WorkId, now: Instant) -> Result<(), NotTaken> {
        if self.room().twin == 0 {
            return Err(NotTaken::NoRoom);
        }
        self.lasting.twin.push_get(id);
        self.serve(now);
        Ok(())
    }

    /// Patches the reported properties; done with [`Event::ReportedPatched`]. Patches reach the hub one after the
    /// other, each after the answer to the one before. One without an answer is sent again on the next connection.
    ///
    /// # Errors
    ///
    /// The lane has no room.
    pub fn patch_reported(
        &mut self,
        id: WorkId,
        patch: &ReportedPatch,
        now: Instant,
    ) -> Result<(), NotTaken> {
        if self.room().twin == 0 {
            return Err(NotTaken::NoRoom);
        }
        self.lasting.twin.push_patch(id, patch.to_json().into());
        self.serve(now);
        Ok(())
    }

    /// Answers a direct method; done with [`Event::Delivered`], or with [`Event::Gone`] if the request's connection
    /// has ended or ends before the hub acknowledges.
    ///
    /// # Errors
    ///
    /// The lane has no room, or the hub would not take the answer.
    pub fn answer(
        &mut self,
        id: WorkId,
        request: &MethodRequestId,
        response: &MethodResponse,
        now: Instant,
    ) -> Result<(), NotTaken> {
        if self.room().answers == 0 {
            return Err(NotTaken::NoRoom);
        }
        check_size(response.payload.len(), limits::METHOD_PAYLOAD_BYTES)?;
        match &mut self.state {
            State::Online(online) if online.epoch() == request.epoch => {
                online.answer(id, request.rid.clone(), response, &mut self.lasting, now);
            }
            State::Online(_)
            | State::Closed
            | State::Waiting { .. }
            | State::Connecting
            | State::Handshake(_)
            | State::Disconnecting(_) => self.lasting.out.push(Event::Gone(id)),
        }
        Ok(())
    }

    /// Tells the hub that a cloud-to-device message is done with. Its PUBACK goes out after those of all earlier
    /// messages; [`Event::Acknowledged`] says when.
    ///
    /// # Errors
    ///
    /// The connection that the message came on has ended; the hub delivers it again.
    pub fn acknowledge(&mut self, receipt: Receipt, now: Instant) -> Result<(), StaleReceipt> {
        match &mut self.state {
            State::Online(online) => online.acknowledge(receipt, &mut self.lasting, now),
            State::Closed
            | State::Waiting { .. }
            | State::Connecting
            | State::Handshake(_)
            | State::Disconnecting(_) => Err(StaleReceipt),
        }
    }

    /// Forgets a piece of work: nobody waits for it any more, so it is not sent again, and no event will name it.
    pub fn cancel(&mut self, id: WorkId, now: Instant) {
        self.lasting.telemetry.cancel(id);
        self.lasting.twin.cancel(id);
        if let State::Online(online) = &mut self.state {
            let advanced = online.cancel(id, &mut self.lasting, now);
            self.end_on_error(advanced, now);
        }
    }

    /// The bytes to write next.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.lasting.out.take_packets()
    }

    /// What happened, or is asked for, next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.lasting.out.next_event()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.next_timer().map(|(at, timer)| (at, timer.name()))
    }

    /// What each lane takes.
    #[must_use]
    pub fn room(&self) -> Room {
        let Lasting {
            config,
            telemetry,
            twin,
            ..
        } = &self.lasting;
        let answers = match &self.state {
            State::Online(online) => online.answers_in_flight(),
            State::Closed
            | State::Waiting { .. }
            | State::Connecting
            | State::Handshake(_)
            | State::Disconnecting(_) => 0,
        };
        let if_wanted = |room: usize| if self.is_wanted { room } else { 0 };
        Room {
            answers: config.answer_window.saturating_sub(answers),
            twin: if_wanted(config.twin_window.saturating_sub(twin.len())),
            telemetry: if_wanted(config.telemetry_window.saturating_sub(telemetry.len())),
        }
    }

    /// The connection in use, if the hub has accepted one.
    #[must_use]
    pub fn epoch(&self) -> Option<ConnectionEpoch> {
        match &self.state {
            State::Online(online) => Some(online.epoch()),
            State::Closed
            | State::Waiting { .. }
            | State::Connecting
            | State::Handshake(_)
            | State::Disconnecting(_) => None,
        }
    }

    /// Whether every cloud-to-device message that was waiting in the hub has been received; see [`Event::Settled`].
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(&self.state, State::Online(online) if online.is_settled())
    }

    fn serve(&mut self, now: Instant) {
        if let State::Online(online) = &mut self.state {
            online.serve(&mut self.lasting, now);
        }
    }

    fn ask_for_socket(&mut self) {
        self.state = State::Connecting;
        self.lasting.out.push(Event::Connect);
    }

    fn connect(&mut self, credentials: Credentials, now: Instant) {
        let Lasting {
            identity,
            config,
            out,
            ..
        } = &mut self.lasting;
        let username = Username::new(identity.clone(), config.client_type.clone()).encode();
        let written = wire::connect(
            out.packets(now),
            &identity.client_id(),
            &username,
            credentials.password.as_deref(),
            config.keep_alive_s(),
        );
        self.state = State::Handshake(Handshake {
            reader: Reader::new(config.max_packet),
            renew_at: credentials.renew_at,
            deadline: now + config.connack_timeout,
        });
        if written.is_err() {
            self.end(LossReason::CredentialsTooLong, Socket::Open, now);
        }
    }

    fn on_packet(&mut self, packet: Packet, now: Instant) -> Result<(), LossReason> {
        match &mut self.state {
            State::Online(online) => online.on_packet(packet, &mut self.lasting, now),
            State::Handshake(_) => match packet {
                Packet::Connack(connack) => {
                    self.on_connack(&connack, now);
                    Ok(())
                }
                Packet::Publish(_)
                | Packet::Puback(_)
                | Packet::Suback { .. }
                | Packet::Unsuback(_)
                | Packet::Pingresp => Err(Violation::Unexpected.into()),
            },
            State::Closed | State::Waiting { .. } | State::Connecting | State::Disconnecting(_) => {
                Ok(())
            }
        }
    }

    fn on_connack(&mut self, connack: &Connack, now: Instant) {
        let State::Handshake(handshake) = mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        let refusal = match connack.code {
            ConnectReturnCode::Accepted => {
                self.attempts.on_accepted();
                let epoch = self.next_epoch;
                self.next_epoch.0 += 1;
                let session_present = connack.session_present;
                self.lasting.out.push(Event::Connected {
                    epoch,
                    session_present,
                });
                self.state = State::Online(Online::start(
                    epoch,
                    handshake.reader,
                    session_present,
                    handshake.renew_at,
                    &mut self.lasting,
                    now,
                ));
                return;
            }
            ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNameOrPassword => {
                RefusalReason::Credentials
            }
            ConnectReturnCode::ServerUnavailable => RefusalReason::Unavailable,
            ConnectReturnCode::UnacceptableProtocolVersion
            | ConnectReturnCode::IdentifierRejected => RefusalReason::Protocol,
        };
        let wait = self
            .attempts
            .after_refusal(refusal, &self.lasting.config, &mut self.rng);
        self.lasting.out.push(Event::Refused { reason: refusal });
        self.lasting.out.push(Event::Close);
        self.state = State::Disconnecting(Next::Wait { until: now + wait });
    }

    fn end_on_error(&mut self, result: Result<(), LossReason>, now: Instant) {
        if let Err(reason) = result {
            self.end(reason, Socket::Open, now);
        }
    }

    /// Ends the connection, accepted or not.
    fn end(&mut self, reason: LossReason, socket: Socket, now: Instant) {
        let next = match mem::replace(&mut self.state, State::Closed) {
            State::Handshake(_) => {
                self.lasting.out.push(Event::ConnectFailed { reason });
                let wait = self
                    .attempts
                    .after_connect_failure(&self.lasting.config, &mut self.rng);
                Next::Wait { until: now + wait }
            }
            State::Online(online) => {
                let lasted = now.saturating_duration_since(online.since());
                match (online.end(reason, &mut self.lasting), socket) {
                    // `Close` is about to end the second socket as well.
                    (None, _) | (Some(Next::AwaitSocket), Socket::Open) => {
                        let wait =
                            self.attempts
                                .after_loss(lasted, &self.lasting.config, &mut self.rng);
                        Next::Wait { until: now + wait }
                    }
                    (Some(next), _) => next,
                }
            }
            other @ (State::Closed
            | State::Waiting { .. }
            | State::Connecting
            | State::Disconnecting(_)) => {
                self.state = other;
                return;
            }
        };
        match socket {
            Socket::Gone => {
                self.lasting.out.forget_packets();
                self.proceed(next, now);
            }
            Socket::Open => {
                self.lasting.out.push(match next {
                    Next::UseSocket(_) => Event::Switch,
                    Next::Connect | Next::Wait { .. } | Next::AwaitSocket => Event::Close,
                });
                self.state = State::Disconnecting(next);
            }
        }
    }

    fn on_socket_closed(&mut self, now: Instant) {
        if let State::Disconnecting(next) = mem::replace(&mut self.state, State::Closed) {
            self.lasting.out.forget_packets();
            self.proceed(next, now);
        }
    }

    /// Goes on after the end of a connection.
    fn proceed(&mut self, next: Next, now: Instant) {
        if !self.is_wanted {
            self.state = State::Closed;
            self.lasting.give_up();
            self.lasting.out.push(Event::Closed);
            return;
        }
        match next {
            Next::Connect => self.ask_for_socket(),
            Next::Wait { until } => self.state = State::Waiting { until },
            Next::AwaitSocket => self.state = State::Connecting,
            Next::UseSocket(credentials) => self.connect(credentials, now),
        }
    }

    fn next_timer(&self) -> Option<(Instant, Timer)> {
        match &self.state {
            State::Closed | State::Connecting | State::Disconnecting(_) => None,
            State::Waiting { until } => Some((*until, Timer::BackOff)),
            State::Handshake(handshake) => Some((handshake.deadline, Timer::Connack)),
            State::Online(online) => online.next_timer(&self.lasting),
        }
    }

    fn on_timer(&mut self, timer: Timer, now: Instant) {
        match &mut self.state {
            State::Closed | State::Connecting | State::Disconnecting(_) => {}
            State::Waiting { .. } => self.ask_for_socket(),
            State::Handshake(_) => self.end(LossReason::ConnackTimeout, Socket::Open, now),
            State::Online(online) => {
                let handled = online.on_timer(timer, &mut self.lasting, now);
                self.end_on_error(handled, now);
            }
        }
    }
}

/// Whether the driver still has the socket of a connection that ends.
#[derive(Clone, Copy)]
enum Socket {
    Open,
    Gone,
}

fn check_size(size: usize, limit: usize) -> Result<(), NotTaken> {
    if size > limit {
        return Err(NotTaken::TooLarge { size, limit });
    }
    Ok(())
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("password", &self.password.as_ref().map(|_| "[hidden]"))
            .field("renew_at", &self.renew_at)
            .finish()
    }
}

/// Timers handled in one call. More than there are, and few enough to stay harmless if a duration of the
/// configuration is zero; what is left is due at once, and says so.
const TIMERS_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand sessions cost what one costs ten thousand times, so growth should be noticed.
    #[test]
    fn a_session_and_an_event_stay_small() {
        assert!(size_of::<Session>() <= 640, "{}", size_of::<Session>());
        assert!(size_of::<Event>() <= 96, "{}", size_of::<Event>());
    }
}
