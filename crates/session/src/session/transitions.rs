//! How a session goes from state to state; the picture is in `state.rs`.

use std::{mem, time::Instant};

use iothub::connect::Username;
use mqtt_protocol_core::mqtt::result_code::ConnectReturnCode;

use super::{Credentials, Session};
use crate::{
    Event, LossReason, RefusalReason, Violation,
    backoff::Wait,
    lasting::Lasting,
    online::{Leave, Online, Patience},
    state::{Handshake, Next, State, Timer},
    wire::{self, Connack, Packet, Reader},
};

/// Whether the driver still has the socket of a connection that ends.
#[derive(Clone, Copy)]
pub(super) enum Socket {
    Open,
    Gone,
}

impl Session {
    pub(super) fn serve(&mut self, now: Instant) {
        if let Some(online) = self.state.online_mut() {
            online.serve(&mut self.lasting, now);
        }
    }

    pub(super) fn close_with(&mut self, patience: Patience, now: Instant) {
        self.is_wanted = false;
        match &mut self.state {
            State::Closed | State::Disconnecting(_) => {}
            State::Waiting(_) => self.proceed(Next::Connect, now),
            State::Connecting | State::Handshake(_) => {
                self.state = State::Disconnecting(Next::Connect);
                self.lasting.out.push(Event::Close);
            }
            State::Online(online) => {
                let left = online.leave(Leave::Close, patience, &mut self.lasting, now);
                self.end_on_error(left, now);
            }
        }
    }

    pub(super) fn ask_for_socket(&mut self) {
        self.state = State::Connecting;
        self.lasting.out.push(Event::Connect);
    }

    pub(super) fn wait_after_connect_failure(&mut self, now: Instant) -> Wait {
        self.attempts
            .after_connect_failure(&self.lasting.config, &mut self.rng, now)
    }

    pub(super) fn connect(&mut self, credentials: Credentials, now: Instant) {
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

    pub(super) fn on_packet(&mut self, packet: Packet, now: Instant) -> Result<(), LossReason> {
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
            State::Closed | State::Waiting(_) | State::Connecting | State::Disconnecting(_) => {
                Ok(())
            }
        }
    }

    pub(super) fn on_connack(&mut self, connack: &Connack, now: Instant) {
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
            .after_refusal(refusal, &self.lasting.config, &mut self.rng, now);
        self.lasting.out.push(Event::Refused { reason: refusal });
        self.lasting.out.push(Event::Close);
        self.state = State::Disconnecting(Next::Wait(wait));
    }

    pub(super) fn end_on_error(&mut self, result: Result<(), LossReason>, now: Instant) {
        if let Err(reason) = result {
            self.end(reason, Socket::Open, now);
        }
    }

    /// Ends the connection, accepted or not.
    pub(super) fn end(&mut self, reason: LossReason, socket: Socket, now: Instant) {
        let next = match mem::replace(&mut self.state, State::Closed) {
            State::Handshake(_) => {
                self.lasting.out.push(Event::ConnectFailed { reason });
                Next::Wait(self.wait_after_connect_failure(now))
            }
            State::Online(online) => {
                let lasted = now.saturating_duration_since(online.since());
                match (online.end(reason, &mut self.lasting), socket) {
                    // `Close` is about to end the second socket as well.
                    (None, _) | (Some(Next::AwaitSocket), Socket::Open) => {
                        let config = &self.lasting.config;
                        Next::Wait(self.attempts.after_loss(lasted, config, &mut self.rng, now))
                    }
                    (Some(next), _) => next,
                }
            }
            other @ (State::Closed
            | State::Waiting(_)
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
                    Next::Connect | Next::Wait(_) | Next::AwaitSocket => Event::Close,
                });
                self.state = State::Disconnecting(next);
            }
        }
    }

    pub(super) fn on_socket_closed(&mut self, now: Instant) {
        if let State::Disconnecting(next) = mem::replace(&mut self.state, State::Closed) {
            self.lasting.out.forget_packets();
            self.proceed(next, now);
        }
    }

    /// Goes on after the end of a connection.
    pub(super) fn proceed(&mut self, next: Next, now: Instant) {
        if !self.is_wanted {
            self.state = State::Closed;
            self.lasting.give_up();
            self.lasting.out.push(Event::Closed);
            return;
        }
        match next {
            Next::Connect => self.ask_for_socket(),
            Next::Wait(wait) => self.state = State::Waiting(wait),
            Next::AwaitSocket => self.state = State::Connecting,
            Next::UseSocket(credentials) => self.connect(credentials, now),
        }
    }

    pub(super) fn next_timer(&self) -> Option<(Instant, Timer)> {
        match &self.state {
            State::Closed | State::Connecting | State::Disconnecting(_) => None,
            State::Waiting(wait) => Some((wait.until, Timer::BackOff)),
            State::Handshake(handshake) => Some((handshake.deadline, Timer::Connack)),
            State::Online(online) => online.next_timer(&self.lasting),
        }
    }

    pub(super) fn on_timer(&mut self, timer: Timer, now: Instant) {
        match &mut self.state {
            State::Closed | State::Connecting | State::Disconnecting(_) => {}
            State::Waiting(_) => self.ask_for_socket(),
            State::Handshake(_) => self.end(LossReason::ConnackTimeout, Socket::Open, now),
            State::Online(online) => {
                let handled = online.on_timer(timer, &mut self.lasting, now);
                self.end_on_error(handled, now);
            }
        }
    }
}
