//! What is said of the session to everybody else.

use std::sync::Arc;

use store::{ConnectionEpoch, SessionState, Status, StoreError};

use super::{Driver, Outlook, Phase};
use crate::node::{Node, wall_now};

/// What was last said of the session.
pub(super) struct Report {
    node: Arc<Node>,
    status: Status,
    /// Why the last connection ended, or could not be had.
    pub(super) last_error: Option<String>,
}

impl Driver {
    /// Says what has changed since the last time.
    pub(super) async fn report_status(&mut self) -> Result<(), StoreError> {
        let state = self.state();
        let connection = self.connection();
        let offers_methods = self.session.offers_methods();
        if self.report.moves(state, connection, offers_methods) {
            self.desk.set_status(&self.report.status).await?;
        }
        Ok(())
    }

    /// The connection in use, if the hub has accepted one.
    pub(super) fn connection(&self) -> Option<ConnectionEpoch> {
        self.session.epoch().map(|epoch| ConnectionEpoch(epoch.0))
    }

    fn state(&self) -> SessionState {
        if self.phase == Phase::Closed {
            return SessionState::Closed;
        }
        if self.session.epoch().is_some() {
            // "Nothing waiting" is true only if the inbox shows all that has arrived, or nothing ever can.
            let is_settled = self.session.is_settled() || !self.wanted.cloud_messages;
            return if is_settled && self.held.is_all_offered() {
                SessionState::Settled
            } else {
                SessionState::Connected
            };
        }
        match self.outlook {
            Outlook::Good => SessionState::Connecting,
            Outlook::Unavailable => SessionState::Unreachable,
            Outlook::Refused => SessionState::Refused,
        }
    }
}

impl Report {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            status: Status::default(),
            last_error: None,
        }
    }

    /// Whether there is something to say that was not said before.
    fn moves(
        &mut self,
        state: SessionState,
        connection: Option<ConnectionEpoch>,
        offers_methods: bool,
    ) -> bool {
        let is_same = self.status.state == state
            && self.status.connection == connection
            && self.status.offers_methods == offers_methods
            && self.status.last_error == self.last_error;
        if is_same {
            return false;
        }
        if self.status.state != state {
            self.node.meters.session_moved(self.status.state, state);
            self.status.since = Some(wall_now());
        }
        self.status.state = state;
        self.status.connection = connection;
        self.status.offers_methods = offers_methods;
        self.status.last_error.clone_from(&self.last_error);
        true
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.node
            .meters
            .session_moved(self.status.state, SessionState::Closed);
    }
}
