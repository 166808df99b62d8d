//! Who is waiting for what the hub sends.
//!
//! A request that reads says what it needs for as long as it lives, looks, and looks again whenever something may have
//! changed, until it has what it wants or its time is over. "Nothing waiting" is said of a settled session only, and
//! where methods are wanted, of one that offers them: until then an empty answer is
//! [partial](Completeness::Partial), and a session that cannot be had is an error.

mod long_poll;

use std::{sync::Arc, time::Duration};

use iothub::{
    Identity,
    twin::{Section, TwinVersion},
};
use store::{
    DeliveryLease, Demand, Desired, Failure, InboxEntry, InboxView, MethodEntry, Needs,
    SessionState, Status, Store, StoreError,
};
use tokio_util::sync::CancellationToken;

use self::long_poll::LongPoll;
use crate::devices::Error;

/// Shows the inbox to requests.
pub(crate) struct Delivery {
    store: Store,
    stopping: CancellationToken,
    /// How long a session has to become settled before a read answers without it.
    hub_wait: Duration,
}

/// Whether what is shown is all there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Completeness {
    /// It is.
    Complete,
    /// More may be waiting in the hub.
    Partial,
}

/// What a read found, and whether that is all.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) found: T,
    pub(crate) completeness: Completeness,
}

/// What a reader of the inbox wants to see.
pub(crate) struct Wanted<'a> {
    /// Cloud-to-device messages.
    pub(crate) messages: bool,
    /// Direct methods. Only who wants them counts as somebody who can answer them.
    pub(crate) methods: bool,
    /// Desired properties of versions that this test does not know. They are followed only if there is such a test,
    /// because following them costs a twin read.
    pub(crate) desired: Option<&'a (dyn Fn(TwinVersion) -> bool + Sync)>,
}

/// The desired properties, as a device asks for them.
#[derive(Debug)]
pub(crate) enum DesiredFound {
    /// A version that the device does not have.
    Changed(Arc<Section>),
    /// The device has the newest version.
    Unchanged(TwinVersion),
}

impl Delivery {
    pub(crate) fn new(store: Store, stopping: CancellationToken, hub_wait: Duration) -> Self {
        Self {
            store,
            stopping,
            hub_wait,
        }
    }

    /// The next message, under a delivery lease. `wait`: how long to wait for one if it is known that none is there.
    pub(crate) async fn receive(
        &self,
        identity: &Identity,
        lock: Duration,
        wait: Option<Duration>,
    ) -> Result<Found<Option<DeliveryLease>>, Error> {
        let needs = Needs::default();
        let mut poll = self.poll(identity, needs, wait).await?;
        loop {
            let status = self.store.signals.status(identity).await?;
            let completeness = completeness(&status, needs);
            if let Some(lease) = self.store.inbox.receive(identity, lock).await? {
                return Ok(Found {
                    found: Some(lease),
                    completeness,
                });
            }
            if !poll.again(&status, completeness).await {
                return Found::nothing(None, &status, completeness);
            }
        }
    }

    /// The direct methods that wait. `wait`: how long to wait for one.
    pub(crate) async fn methods(
        &self,
        identity: &Identity,
        wait: Option<Duration>,
    ) -> Result<Found<Vec<MethodEntry>>, Error> {
        let needs = Needs {
            methods: true,
            ..Needs::default()
        };
        let mut poll = self.poll(identity, needs, wait).await?;
        loop {
            let status = self.store.signals.status(identity).await?;
            let completeness = completeness(&status, needs);
            let methods = methods_of(self.store.inbox.read(identity).await?);
            if !methods.is_empty() {
                return Ok(Found {
                    found: methods,
                    completeness,
                });
            }
            if !poll.again(&status, completeness).await {
                return Found::nothing(methods, &status, completeness);
            }
        }
    }

    /// Everything that waits and is wanted.
    pub(crate) async fn inbox(
        &self,
        identity: &Identity,
        wanted: Wanted<'_>,
        wait: Option<Duration>,
    ) -> Result<Found<InboxView>, Error> {
        let mut poll = self.poll(identity, wanted.needs(), wait).await?;
        loop {
            let (status, found) = self.look(identity, &wanted).await?;
            if !found.found.entries.is_empty() || found.found.desired.is_some() {
                return Ok(found);
            }
            if !poll.again(&status, found.completeness).await {
                return Found::nothing(found.found, &status, found.completeness);
            }
        }
    }

    /// Says what a request needs, as long as the guard lives.
    pub(crate) async fn demand(
        &self,
        identity: &Identity,
        wanted: &Wanted<'_>,
    ) -> Result<Demand, StoreError> {
        self.store.signals.demand(identity, wanted.needs()).await
    }

    /// Everything that waits and is wanted, as soon as that is known, or what is known after this time.
    pub(crate) async fn known(
        &self,
        identity: &Identity,
        wanted: &Wanted<'_>,
        within: Duration,
    ) -> Result<Found<InboxView>, Error> {
        let mut poll = self.poll(identity, wanted.needs(), Some(within)).await?;
        loop {
            let (status, found) = self.look(identity, wanted).await?;
            let is_known = found.completeness == Completeness::Complete;
            if is_known || !poll.again(&status, Completeness::Partial).await {
                return Ok(found);
            }
        }
    }

    async fn look(
        &self,
        identity: &Identity,
        wanted: &Wanted<'_>,
    ) -> Result<(Status, Found<InboxView>), StoreError> {
        let status = self.store.signals.status(identity).await?;
        let mut view = self.store.inbox.read(identity).await?;
        let desired = view.desired.as_ref();
        let is_known =
            wanted.desired.is_none() || desired.is_some_and(|desired| is_fresh(desired, &status));
        let completeness = if is_known {
            completeness(&status, wanted.needs())
        } else {
            Completeness::Partial
        };
        view.desired = view.desired.filter(|desired| {
            let has = wanted.desired;
            has.is_some_and(|has| is_known && !has(desired.section.version))
        });
        view.entries.retain(|entry| match entry {
            InboxEntry::Message(_) => wanted.messages,
            InboxEntry::Method(_) => wanted.methods,
        });
        let found = Found {
            found: view,
            completeness,
        };
        Ok((status, found))
    }

    /// The desired properties. If `has` knows their version, waits for another one.
    pub(crate) async fn desired(
        &self,
        identity: &Identity,
        has: &(dyn Fn(TwinVersion) -> bool + Sync),
        wait: Option<Duration>,
    ) -> Result<DesiredFound, Error> {
        let needs = Needs {
            desired: true,
            ..Needs::default()
        };
        let mut poll = self.poll(identity, needs, wait).await?;
        let mut has_been_known = false;
        loop {
            let status = self.store.signals.status(identity).await?;
            let view = self.store.inbox.read(identity).await?;
            let known = match view.desired.filter(|desired| is_fresh(desired, &status)) {
                Some(desired) if !has(desired.section.version) => {
                    return Ok(DesiredFound::Changed(desired.section));
                }
                Some(desired) => Some(desired.section.version),
                None => None,
            };
            has_been_known |= known.is_some();
            let again = if known.is_some() {
                poll.again_while_waiting().await
            } else if has_been_known {
                // The session was lost during the wait, and may be had again before it is over.
                poll.again(&status, Completeness::Partial).await
            } else {
                poll.again_until_known().await
            };
            if !again {
                return match known {
                    Some(version) => Ok(DesiredFound::Unchanged(version)),
                    None => Err(self.why_unknown(&status)),
                };
            }
        }
    }

    async fn poll(
        &self,
        identity: &Identity,
        needs: Needs,
        wait: Option<Duration>,
    ) -> Result<LongPoll<'_>, StoreError> {
        let demand = self.store.signals.demand(identity, needs).await?;
        let watch = self.store.signals.watch(identity).await?;
        Ok(LongPoll::new(
            demand,
            watch,
            &self.stopping,
            self.hub_wait,
            wait,
        ))
    }

    fn why_unknown(&self, status: &Status) -> Error {
        match status.state {
            SessionState::Refused => Failure::CredentialRefused.into(),
            SessionState::Unreachable => Failure::HubUnavailable.into(),
            SessionState::Closed
            | SessionState::Connecting
            | SessionState::Connected
            | SessionState::Settled
                if self.stopping.is_cancelled() =>
            {
                Error::Stopping
            }
            // The hub was not even asked.
            SessionState::Closed => Failure::NoSession.into(),
            SessionState::Connecting | SessionState::Connected | SessionState::Settled => {
                Failure::HubTimeout.into()
            }
        }
    }
}

impl Wanted<'_> {
    fn needs(&self) -> Needs {
        Needs {
            methods: self.methods,
            desired: self.desired.is_some(),
        }
    }
}

impl<T> Found<T> {
    /// Nothing was found, which is a fact only if the session could be had.
    fn nothing(found: T, status: &Status, completeness: Completeness) -> Result<Self, Error> {
        match status.state {
            SessionState::Refused => Err(Failure::CredentialRefused.into()),
            SessionState::Unreachable => Err(Failure::HubUnavailable.into()),
            SessionState::Closed
            | SessionState::Connecting
            | SessionState::Connected
            | SessionState::Settled => Ok(Self {
                found,
                completeness,
            }),
        }
    }
}

/// Whether the inbox shows all that the hub has for a request with these needs.
fn completeness(status: &Status, needs: Needs) -> Completeness {
    let is_offered = status.offers_methods || !needs.methods;
    if status.state == SessionState::Settled && is_offered {
        Completeness::Complete
    } else {
        Completeness::Partial
    }
}

/// Whether the desired properties have been followed without a gap until this moment.
fn is_fresh(desired: &Desired, status: &Status) -> bool {
    Some(desired.connection) == status.connection
}

fn methods_of(view: InboxView) -> Vec<MethodEntry> {
    let entries = view.entries.into_iter();
    entries
        .filter_map(|entry| match entry {
            InboxEntry::Method(method) => Some(method),
            InboxEntry::Message(_) => None,
        })
        .collect()
}
