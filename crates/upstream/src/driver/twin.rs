//! The twin: read, patched, followed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use iothub::twin::{Twin, TwinVersion};
use session::{TwinError, WorkId};
use store::{Done, Failure, StoreError};

use super::{Driver, in_flight::Origin};
use crate::{connect::chain, node::now};

impl Driver {
    pub(super) async fn on_twin_read(
        &mut self,
        id: WorkId,
        result: Result<Box<Twin>, TwinError>,
    ) -> Result<(), StoreError> {
        self.paused_until = None;
        match result {
            Ok(twin) => {
                if let Some(generation) = self.in_flight.reads(id) {
                    let cell = self.desired.on_read(&twin.desired, generation);
                    self.desk.show_desired(cell, self.connection()).await?;
                }
                self.on_done(id, Done::TwinRead(Arc::from(twin))).await
            }
            Err(error) => {
                self.read_at = now() + READ_AGAIN;
                self.on_twin_error(id, error).await
            }
        }
    }

    pub(super) async fn on_reported_patched(
        &mut self,
        id: WorkId,
        result: Result<Option<TwinVersion>, TwinError>,
    ) -> Result<(), StoreError> {
        match result {
            Ok(version) => self.on_done(id, Done::ReportedPatched { version }).await,
            Err(error) => self.on_twin_error(id, error).await,
        }
    }

    pub(super) async fn on_twin_error(
        &mut self,
        id: WorkId,
        error: TwinError,
    ) -> Result<(), StoreError> {
        self.paused_until = None;
        tracing::debug!(device = %self.identity, error = chain(&error), "the hub refused a twin request");
        let Some(work) = self.in_flight.end(id) else {
            return Ok(());
        };
        let failure = match error {
            TwinError::Refused { status, error } => Failure::HubError { status, error },
            // The hub's fault, and not one that it names.
            TwinError::Unreadable(_) => Failure::HubError {
                status: 502,
                error: None,
            },
        };
        self.fail(&work, failure).await
    }

    /// Reads the twin, if the desired properties are followed and not known.
    pub(super) fn read_if_followed(&mut self, now: Instant) {
        let generation = self.desired.generation();
        let is_read_wanted = self.wanted.desired
            && self.session.epoch().is_some()
            && !self.desired.is_known()
            && !self.in_flight.is_reading(generation)
            && self.read_at <= now;
        if is_read_wanted && self.session.room().twin > 0 {
            self.read_at = now + READ_PACE;
            let begun = self
                .in_flight
                .begin(Origin::OwnRead, Some(generation), None, true, now);
            if self.session.twin_get(begun, now).is_err() {
                self.in_flight.end(begun);
            }
        }
    }
}

/// Shortest time between two reads of the gateway's own: what a hub would cost whose answers never fit its changes.
const READ_PACE: Duration = Duration::from_secs(1);

/// Wait before the gateway reads the twin again after the hub has refused that.
const READ_AGAIN: Duration = Duration::from_secs(10);
