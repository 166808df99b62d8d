//! One task per session: it gives the session its sockets, its timers and its store.
//!
//! ```text
//!             outbox  needs  settlements
//!                 \     |     /
//!    link  <-->   [ driver ]   --> inbox, outcomes, status
//!                     |
//!                 [ session ]
//! ```
//!
//! The driver waits for one of them, calls the session, and drains it: bytes to the link, events to the store. What it
//! does then stands by subject in [`connection`], [`outbox`], [`arrivals`], [`twin`], [`wishes`] and [`report`]. What it
//! must not forget between two calls is plain data: work that is [`in_flight`], what is under [`suspicion`], messages in
//! [`custody`], open [`calls`],
//! [`desired`] properties; for how long something is wanted is computed in [`presence`].
//!
//! # While there is no connection
//!
//! An ephemeral entry waits for the attempt that is under way, until its deadline. When an attempt has failed, those that were
//! not sent fail at once, and so do new ones until the next attempt begins: their clients can do something better than wait.
//! What was sent on a connection that was lost keeps its deadline, for it may have happened and can still be confirmed.
//!
//! # Logs
//!
//! Each line names the device in a field of its own. A span around the task would be entered and left at every poll, and kept
//! by the subscriber for as long as the session lasts: that costs more than all lines that a session ever writes.
//!
//! # After a crash
//!
//! Nothing here survives. The hub offers again what it got no PUBACK for; the store gives durable entries to the next
//! session; what was ephemeral is forgotten with those who waited for it.

mod alarm;
mod arrivals;
mod calls;
mod connection;
mod custody;
mod desired;
mod desk;
mod in_flight;
mod link;
mod outbox;
mod presence;
mod report;
mod suspicion;
mod twin;
mod wishes;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use iothub::Identity;
use session::{Event, LossReason, Receipt, Session, Subscriptions};
use store::{
    ArrivalId, Conclusion, ConnectionEpoch, DeviceRecord, Done, Failure, LaneSet, Need, NeedsNow,
    NeedsWatch, Partition, StoreError,
};
use tokio::select;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::{
    alarm::Alarm,
    calls::Calls,
    custody::Held,
    desired::{Cell, DesiredProperties},
    desk::{Desk, Lanes},
    in_flight::InFlight,
    link::{Link, LinkEvent},
    report::Report,
    suspicion::Suspicion,
};
use crate::{
    connect::chain,
    credentials::SessionCredential,
    leases::HeldLease,
    node::{Node, now, wall_now},
    place::Place,
};

/// Holds the session of one device for as long as it is wanted.
pub(crate) async fn drive(node: Arc<Node>, identity: Identity, place: Arc<Place>) {
    let Some(lease) = acquire(&node, &identity).await else {
        return;
    };
    let opened = Box::pin(Driver::open(
        Arc::clone(&node),
        identity.clone(),
        place,
        lease,
    ))
    .await;
    let mut driver = match opened {
        Ok(driver) => driver,
        Err(error) => return pause(&node, &identity, &error).await,
    };
    if let Err(error) = driver.run().await {
        // The device is wanted again as soon as the driver is dropped.
        pause(&node, &identity, &error).await;
    }
}

async fn acquire(node: &Node, identity: &Identity) -> Option<HeldLease> {
    let partition = Partition::of(identity);
    loop {
        let wait = match node.leases.acquire(partition).await {
            Ok(lease) => return Some(lease),
            Err(StoreError::Held { for_at_least, .. }) => for_at_least.max(PAUSE),
            Err(error) => {
                tracing::debug!(device = %identity, %error, "no session lease");
                PAUSE
            }
        };
        select! {
            () = tokio::time::sleep(wait) => {}
            () = node.stop.cancelled() => return None,
        }
    }
}

async fn pause(node: &Node, identity: &Identity, error: &StoreError) {
    tracing::warn!(device = %identity, %error, "session given up");
    select! {
        () = tokio::time::sleep(PAUSE) => {}
        () = node.stop.cancelled() => {}
    }
}

struct Driver {
    node: Arc<Node>,
    identity: Identity,
    place: Arc<Place>,
    record: DeviceRecord,
    /// Cancelled when the node stops, or another node has taken the device.
    ended: Ended,
    desk: Desk,
    lanes: Lanes,
    needs: Box<dyn NeedsWatch>,
    credential: SessionCredential,
    token_ends: TokenEnds,
    session: Session,
    link: Link,
    alarm: Alarm,

    in_flight: InFlight,
    suspicion: Suspicion,
    held: Held<Receipt>,
    /// Settled messages whose PUBACK is not written yet.
    unwritten: Vec<ArrivalId>,
    calls: Calls,
    desired: DesiredProperties,

    current_needs: NeedsNow,
    wanted: Subscriptions,
    outlook: Outlook,
    report: Report,
    phase: Phase,
    /// When the session's task began.
    began: Instant,
    /// When the outbox last had something.
    last_work: Instant,
    /// When the twin was last read for a device.
    last_read: Option<Instant>,
    /// Until then the outbox is left alone: it has something, but for lanes that are full.
    paused_until: Option<Instant>,
    /// When the twin may be read again for those who follow the desired properties.
    read_at: Instant,
    /// When to look at needs and outbox though nothing has woken the driver.
    look_at: Instant,
}

/// Whether the driver has to end. It keeps its place in the list of those who wait for that.
struct Ended {
    token: CancellationToken,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Ended {
    fn of(token: CancellationToken) -> Self {
        Self {
            cancelled: Box::pin(token.clone().cancelled_owned()),
            token,
        }
    }

    fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.cancelled.as_mut().poll(cx)
    }
}

/// When tokens end.
struct TokenEnds {
    /// The one for the connection that is being made, or was made last.
    shown: Instant,
    /// The one that the hub has accepted for the connection in use.
    in_use: Instant,
}

/// Whether it makes sense to wait for a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// There is one, or it is being made, or the last attempt did not fail.
    Good,
    /// The last attempt failed.
    Unavailable,
    /// The hub refused the credential, or there is none.
    Refused,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The session is wanted.
    Open,
    /// Messages were held for too long: the connection ends, so that the hub takes them back.
    GivingBack,
    /// The session ends, for nobody needs it, or another device needs its place more.
    Closing,
    /// The session ends, for the node stops.
    Stopping,
    /// It has ended.
    Closed,
}

/// What the driver waits for.
enum Happened {
    Stop,
    PlaceAskedFor,
    Link(LinkEvent),
    Needs,
    FreshToken,
    Outbox(LaneSet),
    Settlement(Option<Receipt>),
    Time,
}

impl Driver {
    async fn open(
        node: Arc<Node>,
        identity: Identity,
        place: Arc<Place>,
        lease: HeldLease,
    ) -> Result<Box<Self>, StoreError> {
        let record = node.store.registry.device(&identity).await?;
        let record = record.unwrap_or_else(|| node.unlisted_device(identity.clone()));
        let ended = Ended::of(lease.ended().clone());
        let desk = Desk::new(node.store.clone(), identity.clone(), lease);
        let mut needs = desk.attend().await?;
        let lanes = desk.open_lanes().await?;
        let now = now();
        let first_connection = node.first_connection(now);
        // An earlier session may have ended without a word: its node has died, or was too slow to renew its lease.
        desk.withdraw(ConnectionEpoch(first_connection.0 - 1))
            .await?;
        desk.show_desired(Cell::Cleared, None).await?;
        node.restore_token(&identity).await?;
        let held = Held::on(ConnectionEpoch(first_connection.0), record.custody);
        let config = Arc::clone(&node.session_config);
        let rng = fastrand::Rng::new();
        Ok(Box::new(Self {
            session: Session::new(identity.clone(), config, first_connection, rng),
            current_needs: needs.current(),
            report: Report::new(Arc::clone(&node)),
            credential: node.credentials.for_session(&identity, now),
            token_ends: TokenEnds {
                shown: now,
                in_use: now,
            },
            node,
            identity,
            place,
            record,
            ended,
            desk,
            lanes,
            needs,
            link: Link::default(),
            alarm: Alarm::new(),
            in_flight: InFlight::default(),
            suspicion: Suspicion::default(),
            held,
            unwritten: Vec::new(),
            calls: Calls::default(),
            desired: DesiredProperties::default(),
            wanted: Subscriptions::default(),
            outlook: Outlook::Good,
            phase: Phase::Open,
            began: now,
            last_work: now,
            last_read: None,
            paused_until: None,
            read_at: now,
            look_at: now,
        }))
    }

    /// Drives the session to its end. What is done at each step is boxed: a session that waits, as most do, is not to
    /// be as large as the busiest step.
    async fn run(&mut self) -> Result<(), StoreError> {
        self.subscribe(now());
        self.session.open(now());
        Box::pin(self.drain()).await?;
        while self.phase != Phase::Closed {
            self.alarm.set(self.deadline(now()));
            let happened = poll_fn(|cx| self.poll_happened(cx)).await;
            Box::pin(self.handle(happened)).await?;
        }
        Box::pin(self.end()).await
    }

    /// Waits until something happens. The session gets what the hub sent.
    ///
    /// What there is most of is asked first, so that the rest is not asked each time. None of the first three can keep the
    /// others from their turn for long: the session's windows bound the outbox, and what comes from the hub unasked is
    /// little. Only a lost lease must not wait, whatever the hub sends.
    fn poll_happened(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        let is_stopping = self.phase == Phase::Stopping;
        if !is_stopping && self.ended.is_cancelled() {
            return Poll::Ready(Happened::Stop);
        }
        if self.may_take()
            && let Poll::Ready(lanes) = self.lanes.poll_ready(cx)
        {
            return Poll::Ready(Happened::Outbox(lanes));
        }
        if self.alarm.poll_rings(cx).is_ready() {
            return Poll::Ready(Happened::Time);
        }
        let session = &mut self.session;
        let input = |bytes: &[u8]| session.handle_input(bytes, now());
        if let Poll::Ready(event) = self.link.poll(cx, input) {
            return Poll::Ready(Happened::Link(event));
        }
        if let Poll::Ready(receipt) = self.held.poll_settlement(cx) {
            return Poll::Ready(Happened::Settlement(receipt));
        }
        if self.needs.poll_changed(cx).is_ready() {
            return Poll::Ready(Happened::Needs);
        }
        if !is_stopping && self.ended.poll_cancelled(cx).is_ready() {
            return Poll::Ready(Happened::Stop);
        }
        if self.place.poll_asked_for(cx).is_ready() {
            return Poll::Ready(Happened::PlaceAskedFor);
        }
        self.credential
            .poll_freshened(cx)
            .map(|()| Happened::FreshToken)
    }

    async fn handle(&mut self, happened: Happened) -> Result<(), StoreError> {
        match happened {
            Happened::Stop if !self.node.stop.is_cancelled() => return Err(StoreError::Stale),
            Happened::Stop => self.stop(now()),
            Happened::PlaceAskedFor => self.make_room(now()),
            Happened::Link(event) => self.on_link(event).await?,
            Happened::Needs => {
                self.current_needs = self.needs.current();
                if self.current_needs.session == Need::Now {
                    self.session.hurry(now());
                }
            }
            Happened::FreshToken => {
                let now = now();
                self.session.handle_fresh_credentials(now);
                // A renewal that was postponed has become due.
                self.session.handle_timeout(now);
            }
            Happened::Outbox(lanes) => {
                if self.session.epoch().is_none() {
                    // If an attempt begins because of it, the work waits for that.
                    self.session.hurry(now());
                    self.drain().await?;
                }
                self.take_work(lanes).await?;
            }
            Happened::Settlement(receipt) => self.on_settlement(receipt),
            Happened::Time => self.on_time().await?,
        }
        let now = now();
        if self.has_lingered(now) && self.may_take() {
            // What has come in and was not looked at yet keeps the session.
            self.take_work(LaneSet::ALL).await?;
        }
        self.on_changed_wishes(now);
        self.place.set_idle_since(self.idle_since());
        self.drain().await
    }

    async fn end(&mut self) -> Result<(), StoreError> {
        if self.node.stop.is_cancelled() {
            self.refuse_waiting().await?;
        }
        self.report_status().await
    }

    /// Carries out what the session asks for and passes on what it reports.
    async fn drain(&mut self) -> Result<(), StoreError> {
        self.pass_on().await?;
        while let Some(id) = self.held.next_to_conclude() {
            self.desk.conclude(id, Conclusion::Gateway).await?;
        }
        loop {
            let arrivals = self.held.to_offer();
            let tickets = if arrivals.is_empty() {
                Vec::new()
            } else {
                self.desk.append(&arrivals).await?
            };
            let offered = tickets.len();
            for ((id, _), ticket) in arrivals.iter().zip(tickets) {
                if let Some(receipt) = self.held.offered(*id, ticket) {
                    self.acknowledge(receipt);
                }
            }
            self.pass_on().await?;
            // Without any there is nothing to offer, or no room.
            if offered == 0 {
                break;
            }
        }
        self.report_status().await
    }

    async fn pass_on(&mut self) -> Result<(), StoreError> {
        loop {
            while let Some(bytes) = self.session.poll_transmit() {
                self.link.send(bytes);
            }
            let Some(event) = self.session.poll_event() else {
                return Ok(());
            };
            self.on_event(event).await?;
        }
    }

    async fn on_event(&mut self, event: Event) -> Result<(), StoreError> {
        match event {
            Event::Connect => return self.on_connect().await,
            Event::Renew => self.on_renew(),
            Event::Switch => {
                self.link.switch().await;
                self.session.handle_disconnected(LossReason::Renewed, now());
            }
            Event::Close => {
                self.link.close().await;
                self.session.handle_disconnected(LossReason::Closed, now());
            }
            Event::Closed => self.phase = Phase::Closed,

            Event::Connected {
                epoch,
                session_present,
            } => self.on_connected(epoch, session_present),
            Event::ConnectFailed { reason } => {
                self.node.meters.failed.increment(1);
                self.credential.failed();
                return self
                    .on_no_connection(Outlook::Unavailable, chain(&reason))
                    .await;
            }
            Event::Refused { reason } => return self.on_refused(reason).await,
            Event::Disconnected { epoch, reason } => {
                return self.on_disconnected(ConnectionEpoch(epoch.0), reason).await;
            }
            // The status says it as soon as the inbox has everything.
            Event::Settled { .. } | Event::MethodsOffered { .. } => {}

            Event::Delivered(id) => return self.on_done(id, Done::Acknowledged).await,
            Event::Gone(id) => return self.on_gone(id).await,
            Event::TwinRead { id, result } => return self.on_twin_read(id, result).await,
            Event::ReportedPatched { id, result } => {
                return self.on_reported_patched(id, result).await;
            }

            Event::Received { receipt, message } => {
                self.node.meters.messages_received.increment(1);
                self.warn_of_feedback(&message);
                self.held.arrived(receipt, *message, now(), wall_now());
            }
            Event::Unreadable { receipt, error, .. } => self.on_unreadable(receipt, &error),
            Event::Acknowledged(receipt) => {
                if let Some(id) = self.held.acknowledged(receipt) {
                    self.unwritten.push(id);
                    self.link.await_write();
                }
            }
            Event::MethodRequested { id, request } => return self.on_method(id, request).await,
            Event::DesiredChanged(change) => {
                let cell = self.desired.on_change(change);
                return self.desk.show_desired(cell, self.connection()).await;
            }
            Event::DesiredStale => {
                let cell = self.desired.on_stale();
                return self.desk.show_desired(cell, self.connection()).await;
            }
        }
        Ok(())
    }
}

impl Outlook {
    /// What becomes of those who cannot wait long.
    const fn failure(self) -> Option<Failure> {
        match self {
            Self::Good => None,
            Self::Unavailable => Some(Failure::HubUnavailable),
            Self::Refused => Some(Failure::CredentialRefused),
        }
    }
}

/// Wait before a session is tried again that the store did not let be.
const PAUSE: Duration = Duration::from_secs(1);

/// How often needs and outbox are looked at without a wake-up, which the store's contract allows to be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// The goal is 16 KiB for an idle session, of which TLS takes 12.
    #[test]
    fn an_idle_session_is_small() {
        fn size_of_future<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(drive) + size_of::<Driver>();
        assert!(size <= 2560, "{size} bytes");
    }
}
