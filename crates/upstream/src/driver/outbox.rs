//! Up: what devices send.

use std::time::{Duration, Instant};

use session::{NotTaken, WorkId};
use store::{Done, Failure, GivenUp, Lane, LaneSet, OutboxEntry, StoreError, Survival, Work};

use super::{
    Driver, LOOK_AGAIN,
    in_flight::{self, Origin},
};
use crate::node::{now, wall_now};

impl Driver {
    /// Takes as much work of these lanes as the session has room for.
    pub(super) async fn take_work(&mut self, lanes: LaneSet) -> Result<(), StoreError> {
        let now = now();
        self.look_at = now + LOOK_AGAIN;
        let mut is_any = false;
        for lane in Lane::ALL.into_iter().filter(|lane| lanes.has(*lane)) {
            is_any |= self.take_from(lane, now).await?;
        }
        if is_any {
            self.last_work = now;
            if self.session.epoch().is_none() && self.in_flight.has_waiting_client() {
                self.link.hurry();
            }
        } else if self.suspicion.is_any() {
            if self.in_flight.has_sendable() {
                self.paused_until = Some(now + PAUSE_FOR_SUSPECTS);
            } else {
                // The store has none of them any more.
                self.suspicion.is_all_over();
            }
        } else if Lane::ALL.iter().any(|lane| self.room(*lane) == 0) {
            self.paused_until = Some(now + PAUSE_FOR_ROOM);
        }
        Ok(())
    }

    /// Takes as much of a lane as the session has room for, and goes on while it has: stored patches that are joined take
    /// no room. Says whether there was any.
    async fn take_from(&mut self, lane: Lane, now: Instant) -> Result<bool, StoreError> {
        let mut is_any = false;
        loop {
            let room = self.room(lane);
            if room == 0 {
                return Ok(is_any);
            }
            let entries = self.lanes.take(lane, room).await?;
            for entry in &entries {
                self.begin(lane, entry, now).await?;
            }
            is_any |= !entries.is_empty();
            if entries.len() < room {
                return Ok(is_any);
            }
        }
    }

    pub(super) async fn begin(
        &mut self,
        lane: Lane,
        entry: &OutboxEntry,
        now: Instant,
    ) -> Result<(), StoreError> {
        let waited = wall_now().saturating_since(entry.accepted_at);
        self.node.meters.lane(lane).wait_seconds.record(waited);
        let mut deadline = match entry.survival {
            Survival::Durable => None,
            Survival::Ephemeral { deadline } => Some(deadline),
        };
        // An answer is a matter of its connection: the session knows.
        let failure = self.outlook.failure().filter(|_| lane != Lane::Answers);
        if let (Some(failure), Some(_)) = (failure, deadline) {
            // Whoever tries again a moment later is to find the next attempt made.
            self.session.hurry(now);
            match self.lanes.give_up(entry.id, failure).await? {
                GivenUp::Settled => {
                    self.node.meters.lane(lane).failed.increment(1);
                    return Ok(());
                }
                GivenUp::Kept => deadline = None,
            }
        }
        let reads = matches!(*entry.work, Work::TwinRead).then(|| {
            // Changes are subscribed to before the twin is read, so that its answer can be kept up to date.
            self.last_read = Some(now);
            self.subscribe(now);
            self.desired.generation()
        });
        let origin = Origin::Entry { id: entry.id, lane };
        let is_connected = self.session.epoch().is_some();
        let id = self
            .in_flight
            .begin(origin, reads, deadline, is_connected, now);
        let session = &mut self.session;
        let taken = match &*entry.work {
            Work::Telemetry(message) => session.publish(id, message, now),
            Work::TwinRead => session.twin_get(id, now),
            // One that was sent before goes alone, for it may be why the connection ended.
            Work::ReportedPatch(patch) if deadline.is_none() && entry.attempts == 0 => {
                session.patch_reported_jointly(id, patch, now)
            }
            Work::ReportedPatch(patch) => session.patch_reported(id, patch, now),
            Work::MethodAnswer { request, response } => {
                self.calls.close(request);
                let request = session::MethodRequestId {
                    epoch: session::ConnectionEpoch(request.connection.0),
                    rid: request.rid.clone(),
                };
                session.answer(id, &request, response, now)
            }
        };
        let Err(error) = taken else {
            return Ok(());
        };
        tracing::debug!(device = %self.identity, %error, "not taken by the session");
        let failure = match error {
            NotTaken::TooLarge { .. } | NotTaken::TopicTooLong { .. } => Failure::DoesNotFit,
            // The session began to close while the entries were on their way.
            NotTaken::NoRoom => Failure::Stopping,
        };
        match self.in_flight.end(id) {
            Some(work) => self.fail(&work, failure).await,
            None => Ok(()),
        }
    }

    pub(super) async fn on_done(&mut self, id: WorkId, done: Done) -> Result<(), StoreError> {
        self.paused_until = None;
        let Some(work) = self.in_flight.end(id) else {
            return Ok(());
        };
        match work.origin {
            Origin::Entry { id, lane } => {
                // The session lingers from the answer on, not from the question.
                self.last_work = now();
                self.suspicion.is_over(id);
                let meters = self.node.meters.lane(lane);
                meters.done.increment(1);
                meters
                    .hub_seconds
                    .record(now().saturating_duration_since(work.since));
                self.lanes.settle(id, Ok(done)).await
            }
            Origin::OwnRead | Origin::OwnAnswer => Ok(()),
        }
    }

    /// The session has given it up.
    pub(super) async fn on_gone(&mut self, id: WorkId) -> Result<(), StoreError> {
        let Some(work) = self.in_flight.end(id) else {
            return Ok(());
        };
        match work.origin {
            Origin::Entry {
                lane: Lane::Answers,
                ..
            } => self.fail(&work, Failure::MethodGone).await,
            Origin::Entry {
                lane: Lane::Twin | Lane::Telemetry,
                ..
            } if !work.is_durable() => self.fail(&work, work.failure(Failure::Stopping)).await,
            // The next session gets it again.
            Origin::Entry {
                lane: Lane::Twin | Lane::Telemetry,
                ..
            }
            | Origin::OwnRead
            | Origin::OwnAnswer => Ok(()),
        }
    }

    pub(super) async fn fail(
        &mut self,
        work: &in_flight::Work,
        failure: Failure,
    ) -> Result<(), StoreError> {
        match work.origin {
            Origin::Entry { id, lane } => {
                self.node.meters.lane(lane).failed.increment(1);
                if failure.is_final() {
                    self.suspicion.is_over(id);
                }
                self.lanes.settle(id, Err(failure)).await
            }
            Origin::OwnRead | Origin::OwnAnswer => Ok(()),
        }
    }

    /// Nobody waits for this work, or there is no hub for it: it fails. What has become durable since it was taken stays
    /// where it is in the session, before what was taken later.
    pub(super) async fn give_up(
        &mut self,
        id: WorkId,
        work: in_flight::Work,
        cause: Failure,
    ) -> Result<(), StoreError> {
        let Origin::Entry { id: entry, lane } = work.origin else {
            self.session.cancel(id, now());
            return Ok(());
        };
        match self.lanes.give_up(entry, work.failure(cause)).await? {
            GivenUp::Settled => {
                self.session.cancel(id, now());
                self.node.meters.lane(lane).failed.increment(1);
            }
            GivenUp::Kept => self.in_flight.keep(work),
        }
        Ok(())
    }

    /// The hub has closed the connection, maybe for what it was sent. As soon as there is a suspect, everything goes back
    /// to its place in the store, to be taken again one at a time; a suspect that was alone is a dead letter. What somebody
    /// waits for goes back as well: if it failed, it would be stored anew, behind what came after it.
    pub(super) async fn suspect_what_was_in_flight(&mut self) -> Result<(), StoreError> {
        for entry in self.in_flight.stored_and_seen() {
            self.suspicion.was_in_flight(entry);
        }
        if !self.suspicion.is_any() {
            return Ok(());
        }
        while let Some((id, work)) = self.in_flight.take_sendable() {
            self.session.cancel(id, now());
            if let Origin::Entry { id, .. } = work.origin
                && self.suspicion.is_confirmed(id)
            {
                tracing::error!(
                    device = %self.identity,
                    entry = id.0,
                    "the hub closes the connection whenever this message is sent: it is a dead letter"
                );
                self.fail(&work, Failure::HubClosedOnPublish).await?;
            }
        }
        // A reader that opens gets again what the one before has taken.
        self.lanes = self.desk.open_lanes().await?;
        self.paused_until = None;
        Ok(())
    }

    /// The node stops: says so to whoever waits for what the session has not taken.
    pub(super) async fn refuse_waiting(&mut self) -> Result<(), StoreError> {
        for lane in Lane::ALL {
            for entry in self.lanes.take(lane, usize::MAX).await? {
                match entry.survival {
                    // Put back when the outbox is closed.
                    Survival::Durable => {}
                    Survival::Ephemeral { .. } => {
                        self.lanes.settle(entry.id, Err(Failure::Stopping)).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// How long the outbox is left alone when all that it has is for lanes without room. An acknowledgement ends it
/// earlier; an entry for another lane waits so long at most.
///
/// The store lets a lane rest whose room was filled with its entries. This is for room that went otherwise, of which the
/// store does not know: to the gateway's own reads and answers, and to entries that failed at their deadline while the
/// hub has still not acknowledged them.
const PAUSE_FOR_ROOM: Duration = Duration::from_millis(10);

/// The same while entries are sent one at a time: the hub's word ends it, and who waits for another lane waits so long.
const PAUSE_FOR_SUSPECTS: Duration = Duration::from_millis(250);
