//! The session itself: its contract, and what can be asked of it.

mod transitions;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use iothub::{
    Identity, MethodResponse, Telemetry, limits, topic, topic::ToHub, twin::ReportedPatch,
};

use self::transitions::Socket;
use crate::{
    Config, ConnectionEpoch, Event, LossReason, MethodRequestId, NotTaken, Receipt, StaleReceipt,
    Subscriptions, WorkId,
    backoff::Attempts,
    lasting::Lasting,
    online::{Leave, Online, Patience},
    state::State,
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
            | State::Waiting(_)
            | State::Handshake(_)
            | State::Disconnecting(_) => {}
        }
    }

    /// The socket that was asked for could not be had.
    pub fn handle_connect_failed(&mut self, now: Instant) {
        match &mut self.state {
            State::Connecting => {
                self.state = State::Waiting(self.wait_after_connect_failure(now));
            }
            State::Online(online) if online.awaits_socket() => {
                let config = &self.lasting.config;
                let wait = self
                    .attempts
                    .after_connect_failure(config, &mut self.rng, now);
                online.postpone_renewal(wait.until);
            }
            State::Disconnecting(_) => self.on_socket_closed(now),
            State::Online(_) | State::Closed | State::Waiting(_) | State::Handshake(_) => {}
        }
    }

    /// The socket in use is gone. If the session asked for that, `reason` is of no interest.
    pub fn handle_disconnected(&mut self, reason: LossReason, now: Instant) {
        match self.state {
            State::Connecting => self.handle_connect_failed(now),
            State::Handshake(_) | State::Online(_) => self.end(reason, Socket::Gone, now),
            State::Disconnecting(_) => self.on_socket_closed(now),
            State::Closed | State::Waiting(_) => {}
        }
    }

    /// Bytes from the socket in use, cut anywhere.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        let mut input = bytes;
        loop {
            let packet = match &mut self.state {
                State::Handshake(handshake) => handshake.reader.next(&mut input),
                State::Online(online) => online.read(&mut input, now),
                State::Closed | State::Waiting(_) | State::Connecting | State::Disconnecting(_) => {
                    return;
                }
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
            State::Waiting(_)
            | State::Connecting
            | State::Handshake(_)
            | State::Disconnecting(_) => {}
        }
    }

    /// From here on the session wants to be closed; [`Event::Closed`] says when it is. What is in flight is awaited
    /// for [`Config::drain_timeout`] at most.
    pub fn close(&mut self, now: Instant) {
        self.close_with(Patience::of(&self.lasting.config), now);
    }

    /// The same within a shorter time: before `limit` is over, methods are unsubscribed and DISCONNECT is written, whatever
    /// is still in flight. Hurries a session that is closing already.
    pub fn close_within(&mut self, limit: Duration, now: Instant) {
        self.close_with(Patience::of(&self.lasting.config).within(limit), now);
    }

    /// Somebody waits for the connection: a back-off that is running ends when its shortest step is over, so that a hub
    /// that has come back is noticed soon. A refusal of credentials is waited out all the same.
    pub fn hurry(&mut self, now: Instant) {
        if let State::Waiting(wait) = &mut self.state
            && let Some(from) = wait.may_hurry_from
        {
            wait.until = wait.until.min(from);
            if wait.until <= now {
                self.ask_for_socket();
            }
        }
    }

    /// There are credentials that the hub has not seen: nothing speaks against an attempt with them, or against a
    /// renewal that found none before.
    pub fn handle_fresh_credentials(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting(_) => self.ask_for_socket(),
            State::Online(online) => online.hurry_renewal(now),
            State::Closed | State::Connecting | State::Handshake(_) | State::Disconnecting(_) => {}
        }
    }

    /// Answers [`Event::Renew`] with "later": the connection in use is not to be left yet. The socket is asked for again at
    /// `until`, or as soon as there are fresher credentials.
    pub fn postpone_renewal(&mut self, until: Instant) {
        if let State::Online(online) = &mut self.state
            && online.awaits_socket()
        {
            online.postpone_renewal(until);
        }
    }

    /// Leaves the connection for a new one. The hub takes back what was not acknowledged, and offers it again.
    ///
    /// The new one is made after the same wait as after a loss, because the message that is given back comes again with
    /// it: a device that can settle nothing would otherwise connect as fast as the hub lets it.
    pub fn reconnect(&mut self, now: Instant) {
        let is_wanted = self.is_wanted;
        if let Some(online) = self.state.online_mut().filter(|_| is_wanted) {
            let patience = Patience::of(&self.lasting.config);
            let left = online.leave(Leave::Reconnect, patience, &mut self.lasting, now);
            self.end_on_error(left, now);
        }
    }

    /// Says what should come down. Whoever wants to know the desired properties asks for their changes first and
    /// reads the twin after that, so that no change falls between the two.
    pub fn set_wanted(&mut self, wanted: Subscriptions, now: Instant) {
        self.lasting.wanted = wanted;
        self.serve(now);
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
        self.lasting.twin.push_patch(id, patch.clone());
        self.serve(now);
        Ok(())
    }

    /// Like [`patch_reported`](Self::patch_reported), for a patch that nobody waits for: it may reach the hub as one with
    /// others that were given so and still wait, and is then done with the same outcome as they. It may be taken though the
    /// lane has no room.
    ///
    /// # Errors
    ///
    /// The lane has no room, and the patch cannot be joined to another.
    pub fn patch_reported_jointly(
        &mut self,
        id: WorkId,
        patch: &ReportedPatch,
        now: Instant,
    ) -> Result<(), NotTaken> {
        if self.is_wanted && self.lasting.twin.join_patch(id, patch) {
            return Ok(());
        }
        if self.room().twin == 0 {
            return Err(NotTaken::NoRoom);
        }
        self.lasting.twin.push_joinable_patch(id, patch.clone());
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
        let same = |online: &&mut Online| online.epoch() == request.epoch;
        match self.state.online_mut().filter(same) {
            Some(online) => {
                online.answer(id, request.rid.clone(), response, &mut self.lasting, now);
            }
            None => self.lasting.out.push(Event::Gone(id)),
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
        let online = self.state.online_mut().ok_or(StaleReceipt)?;
        online.acknowledge(receipt, &mut self.lasting, now)
    }

    /// Forgets a piece of work: nobody waits for it any more, so it is not sent again, and no event will name it.
    pub fn cancel(&mut self, id: WorkId, now: Instant) {
        self.lasting.telemetry.cancel(id);
        self.lasting.twin.cancel(id);
        if let Some(online) = self.state.online_mut() {
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
        let answers = self.state.online().map_or(0, Online::answers_in_flight);
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
        self.state.online().map(Online::epoch)
    }

    /// Whether every cloud-to-device message that was waiting in the hub has been received; see [`Event::Settled`].
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state.online().is_some_and(Online::is_settled)
    }

    /// Whether the hub offers direct methods on this connection, and every one that was waiting for the device has been
    /// received; see [`Event::MethodsOffered`]. Not any more once UNSUBSCRIBE is written.
    #[must_use]
    pub fn offers_methods(&self) -> bool {
        self.state.online().is_some_and(Online::offers_methods)
    }
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
