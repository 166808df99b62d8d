//! The connection: asked for, made, refused, lost.

use session::{LossReason, RefusalReason};
use store::{Conclusion, ConnectionEpoch, StoreError};

use super::{Driver, Outlook, Phase, custody::Held, link::LinkEvent};
use crate::{
    connect::chain,
    metrics::Meters,
    node::{now, wall_now},
    pace::Rank,
    tokens::Purpose,
};

impl Driver {
    pub(super) async fn on_connect(&mut self) -> Result<(), StoreError> {
        self.outlook = Outlook::Good;
        if let Err(error) = self.open_socket(Purpose::Open) {
            self.node.meters.refused.increment(1);
            self.session.handle_connect_failed(now());
            return self.on_no_connection(Outlook::Refused, error).await;
        }
        Ok(())
    }

    /// The answer to a direct method cannot go to another connection: open ones are awaited if the token lasts as long.
    pub(super) fn on_renew(&mut self) {
        let longest_call = now() + self.node.method_timeout;
        if let Some(until) = self.calls.deadline()
            && longest_call < self.token_ends.in_use
        {
            return self.session.postpone_renewal(until);
        }
        if let Err(error) = self.open_socket(Purpose::Renew) {
            tracing::debug!(device = %self.identity, error, "the credential is not renewed");
            self.session.handle_connect_failed(now());
        }
    }

    fn open_socket(&mut self, purpose: Purpose) -> Result<(), String> {
        let name = self.identity.hub();
        let hub = self.node.hubs.get(name);
        let hub = hub.ok_or_else(|| format!("{name} is not configured"))?;
        let login = self.credential.login(purpose, wall_now());
        let login = login.map_err(|error| error.to_string())?;
        let rank = if !login.is_proved {
            Rank::Unproved
        } else if purpose == Purpose::Open && self.has_waiting_client() {
            Rank::Urgent
        } else {
            Rank::Idle
        };
        let now = now();
        self.token_ends.shown = now + login.lasts_for;
        let credentials = session::Credentials {
            password: Some(login.password),
            renew_at: Some(now + login.renew_after),
        };
        self.link.open(hub, credentials, rank);
        Ok(())
    }

    pub(super) async fn on_link(&mut self, event: LinkEvent) -> Result<(), StoreError> {
        match event {
            LinkEvent::Opened { credentials, took } => {
                self.node.meters.connect_seconds.record(took);
                self.session.handle_connected(credentials, now());
            }
            LinkEvent::OpenFailed(error) => {
                self.node.meters.failed.increment(1);
                self.credential.failed();
                self.session.handle_connect_failed(now());
                if self.session.epoch().is_none() {
                    return self
                        .on_no_connection(Outlook::Unavailable, chain(&error))
                        .await;
                }
                tracing::debug!(device = %self.identity, error = chain(&error), "no connection for fresh credentials");
            }
            LinkEvent::Read => {}
            LinkEvent::Written => {
                for id in std::mem::take(&mut self.unwritten) {
                    self.desk.conclude(id, Conclusion::Hub).await?;
                }
            }
            LinkEvent::Lost(reason) => self.session.handle_disconnected(reason, now()),
        }
        Ok(())
    }

    pub(super) fn on_connected(&mut self, epoch: session::ConnectionEpoch, session_present: bool) {
        tracing::info!(device = %self.identity, connection = epoch.0, session_present, "session up");
        self.node.meters.connected.increment(1);
        self.outlook = Outlook::Good;
        self.credential.accepted(now());
        self.token_ends.in_use = self.token_ends.shown;
        self.in_flight.on_connected();
        self.held = Held::on(ConnectionEpoch(epoch.0), self.record.custody);
        self.read_at = now();
    }

    pub(super) async fn on_refused(&mut self, reason: RefusalReason) -> Result<(), StoreError> {
        self.node.meters.refused.increment(1);
        let outlook = match reason {
            RefusalReason::Credentials => {
                if self.credential.refused(now()) {
                    return Ok(());
                }
                self.node.forget_refused_token(&self.identity).await?;
                Outlook::Refused
            }
            RefusalReason::Protocol => {
                self.credential.failed();
                Outlook::Refused
            }
            RefusalReason::Unavailable => {
                self.credential.failed();
                Outlook::Unavailable
            }
        };
        self.on_no_connection(outlook, chain(&reason)).await
    }

    pub(super) async fn on_no_connection(
        &mut self,
        outlook: Outlook,
        error: String,
    ) -> Result<(), StoreError> {
        if self.report.last_error.as_ref() == Some(&error) {
            tracing::debug!(device = %self.identity, error, "still no session");
        } else {
            tracing::warn!(device = %self.identity, error, "no session");
        }
        self.report.last_error = Some(error);
        self.outlook = outlook;
        let Some(failure) = outlook.failure() else {
            return Ok(());
        };
        while let Some((id, work)) = self.in_flight.take_unsent() {
            self.give_up(id, work, failure.clone()).await?;
        }
        Ok(())
    }

    pub(super) async fn on_disconnected(
        &mut self,
        connection: ConnectionEpoch,
        reason: LossReason,
    ) -> Result<(), StoreError> {
        tracing::info!(device = %self.identity, connection = connection.0, %reason, "session down");
        Meters::disconnected(loss_name(reason));
        self.credential.lost(now());
        if !is_orderly(reason) {
            self.report.last_error = Some(reason.to_string());
        }
        if self.phase == Phase::GivingBack {
            self.phase = Phase::Open;
        }
        self.held = Held::on(connection, self.record.custody);
        self.unwritten = Vec::new();
        self.calls.close_all();
        if is_end_by_hub(reason) {
            self.suspect_what_was_in_flight().await?;
        }
        self.desk.withdraw(connection).await?;
        let cell = self.desired.on_stale();
        self.desk.show_desired(cell, self.connection()).await
    }
}

/// Whether the gateway itself wanted the end of the connection.
const fn is_orderly(reason: LossReason) -> bool {
    match reason {
        LossReason::Renewed | LossReason::Reconnected | LossReason::Closed => true,
        LossReason::ClosedByHub
        | LossReason::Socket
        | LossReason::ConnackTimeout
        | LossReason::PingTimeout
        | LossReason::AckTimeout
        | LossReason::SubscriptionRefused
        | LossReason::Protocol(_)
        | LossReason::CredentialsTooLong => false,
    }
}

/// Whether the hub may have ended the connection for what it was sent. A line that has gone silent says nothing of it.
const fn is_end_by_hub(reason: LossReason) -> bool {
    match reason {
        // A socket that the hub closes with bytes in it unread ends with an error.
        LossReason::ClosedByHub | LossReason::Socket => true,
        LossReason::ConnackTimeout
        | LossReason::PingTimeout
        | LossReason::AckTimeout
        | LossReason::SubscriptionRefused
        | LossReason::Protocol(_)
        | LossReason::CredentialsTooLong
        | LossReason::Renewed
        | LossReason::Reconnected
        | LossReason::Closed => false,
    }
}

const fn loss_name(reason: LossReason) -> &'static str {
    match reason {
        LossReason::ClosedByHub => "closed_by_hub",
        LossReason::Socket => "socket",
        LossReason::ConnackTimeout => "connack_timeout",
        LossReason::PingTimeout => "ping_timeout",
        LossReason::AckTimeout => "ack_timeout",
        LossReason::SubscriptionRefused => "subscription_refused",
        LossReason::Protocol(_) => "protocol",
        LossReason::CredentialsTooLong => "credentials_too_long",
        LossReason::Renewed => "renewed",
        LossReason::Reconnected => "given_back",
        LossReason::Closed => "closed",
    }
}
