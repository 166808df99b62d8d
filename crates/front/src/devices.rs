//! The verbs of a device: domain values in, domain values out.
//!
//! A verb that writes submits one entry and waits for its ticket. Whoever asked may go away meanwhile: the entry is on
//! its way, and its outcome stands.

mod check;
mod entry;
mod kept;
mod telemetry;
mod terms;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use iothub::{
    Identity, MethodResponse, limits,
    twin::{ReportedPatch, Twin, TwinVersion},
};
use store::{
    Conclusion, Demand, Done, Failure, LockToken, MethodRequestId, Needs, SettleError, Settlement,
    Store, StoreError, SubmitError, Ticket, TicketLost, Work,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::entry::{ATTEMPTS, SubmissionIds};
pub(crate) use self::terms::{PartNames, Reached, Terms, WriteKey, id_of, text_of};

/// The verbs.
pub(crate) struct Devices {
    store: Store,
    ids: SubmissionIds,
    tasks: TaskTracker,
    last_call: CancellationToken,
}

/// Where a settlement stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    /// The hub has been told.
    Hub,
    /// It is done here; the hub is told after the messages before it, or has been told before.
    Gateway,
}

/// Why a verb came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The message is larger than the hub takes.
    #[error("the message has {size} bytes as IoT Hub counts them, the most is {limit}")]
    TooLarge {
        /// Bytes as the hub counts them.
        size: usize,
        /// The most.
        limit: usize,
    },
    /// The properties do not fit into an MQTT topic.
    #[error("the properties have {size} bytes in an MQTT topic, the most is {limit}")]
    PropertiesTooLarge {
        /// Bytes of the topic.
        size: usize,
        /// The most.
        limit: usize,
    },
    /// The message id is longer than the hub takes.
    #[error("a message id has at most {limit} characters, this one has {0}", limit = limits::MESSAGE_ID_LENGTH)]
    MessageIdTooLong(usize),
    /// An application property has a name that IoT Hub keeps for its own: in the topic it would become a system property,
    /// which the device may not set in this way.
    #[error("an application property's name cannot start with \"$.\"")]
    ReservedName,
    /// It could not be put into the outbox.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The hub has not done it.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// What upstream did is something else than what was asked.
    #[error("the outcome does not fit the request")]
    Mismatch,
    /// The answer to a direct method was not sent, and as the method is claimed no other can be.
    #[error("the answer was not sent, and the direct method can be answered no more: {0}")]
    AnswerLost(Box<Self>),
    /// The answer to a direct method may have been sent. As the method is claimed it cannot be sent again.
    #[error(transparent)]
    AnswerUncertain(Box<Self>),
    /// The message cannot be settled.
    #[error(transparent)]
    Settle(SettleError),
    /// The direct method cannot be answered.
    #[error(transparent)]
    Method(SettleError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What became of the request is not known.
    #[error(transparent)]
    Lost(#[from] TicketLost),
    /// The gateway stops, and the hub has not answered.
    #[error("the gateway stopped before the hub had answered")]
    Unfinished,
    /// A defect ended it in the middle.
    #[error("the gateway failed")]
    Panicked,
    /// The gateway stops, before anything was done.
    #[error("the gateway is stopping")]
    Stopping,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl Error {
    /// Whether it is certain that nothing has left for the hub, and nothing will.
    fn means_not_sent(&self) -> bool {
        match self {
            Self::TooLarge { .. }
            | Self::PropertiesTooLarge { .. }
            | Self::MessageIdTooLong(_)
            | Self::ReservedName
            | Self::Method(_)
            | Self::AnswerLost(_) => true,
            Self::AnswerUncertain(_) | Self::Unfinished | Self::Panicked => false,
            Self::Submit(error) => match error {
                SubmitError::DeviceFull { .. }
                | SubmitError::Full
                | SubmitError::KeyReused
                | SubmitError::TooManyKeys { .. } => true,
                SubmitError::Store(error) => *error != StoreError::UnknownOutcome,
            },
            Self::Failed(failure) => match **failure {
                Failure::CredentialRefused
                | Failure::HubUnavailable
                | Failure::MethodGone
                | Failure::NoSession
                | Failure::DoesNotFit
                | Failure::Stopping
                | Failure::Damaged => true,
                Failure::HubError { .. } | Failure::HubTimeout | Failure::HubClosedOnPublish => {
                    false
                }
            },
            Self::Mismatch | Self::Settle(_) | Self::Store(_) | Self::Lost(_) | Self::Stopping => {
                false
            }
        }
    }
}

impl Devices {
    /// After the last call no outcome is waited for.
    pub(crate) fn new(
        store: Store,
        tasks: TaskTracker,
        last_call: CancellationToken,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            store,
            ids: SubmissionIds::new()?,
            tasks,
            last_call,
        })
    }

    /// Reads the twin at the hub.
    pub(crate) async fn read_twin(
        &self,
        identity: &Identity,
        wait: Duration,
    ) -> Result<Arc<Twin>, Error> {
        match self.carry_out(identity, Work::TwinRead, wait).await? {
            Done::TwinRead(twin) => Ok(twin),
            Done::Acknowledged | Done::ReportedPatched { .. } => Err(Error::Mismatch),
        }
    }

    /// Merges a patch into the reported properties, or stores it; says their version if the hub does.
    pub(crate) async fn patch_reported(
        &self,
        identity: &Identity,
        patch: ReportedPatch,
        terms: &Terms,
    ) -> Result<Reached<Option<TwinVersion>>, Error> {
        let names = self.names(terms);
        self.write(identity, names, Work::ReportedPatch(patch), terms)
            .await?
            .try_map(patched)
    }

    /// The same with a patch that is a part of a request.
    pub(crate) async fn patch_reported_as_part(
        &self,
        identity: &Identity,
        patch: ReportedPatch,
        terms: &Terms,
        names: &PartNames,
    ) -> Result<Reached<Option<TwinVersion>>, Error> {
        let names = self.names_of_part(terms, names, 0);
        // The record is that of the request.
        let terms = Terms {
            key: None,
            ..*terms
        };
        self.write(identity, names, Work::ReportedPatch(patch), &terms)
            .await?
            .try_map(patched)
    }

    /// Answers a direct method; returns when the hub has acknowledged the answer.
    ///
    /// Once the method is claimed nobody else can answer it. So the answer is submitted even if the caller goes away.
    pub(crate) async fn answer_method(
        self: &Arc<Self>,
        identity: &Identity,
        request: MethodRequestId,
        response: MethodResponse,
        wait: Duration,
    ) -> Result<(), Error> {
        if response.payload.len() > limits::METHOD_PAYLOAD_BYTES {
            return Err(Error::TooLarge {
                size: response.payload.len(),
                limit: limits::METHOD_PAYLOAD_BYTES,
            });
        }
        let (devices, identity) = (self.clone(), identity.clone());
        let answered = self.tasks.spawn(async move {
            devices
                .store
                .inbox
                .claim_method(&identity, &request)
                .await
                .map_err(Error::Method)?;
            devices
                .carry_out(&identity, Work::MethodAnswer { request, response }, wait)
                .await
                .map_err(|error| {
                    let is_not_sent = error.means_not_sent();
                    let error = Box::new(error);
                    if is_not_sent {
                        Error::AnswerLost(error)
                    } else {
                        Error::AnswerUncertain(error)
                    }
                })
        });
        // Nobody aborts the task, so only a panic can have ended it.
        let answered = answered
            .await
            .map_err(|_| Error::AnswerUncertain(Box::new(Error::Panicked)))?;
        acknowledged(answered?)
    }

    /// Settles one message; returns when it is known what became of the settlement.
    pub(crate) async fn settle(
        &self,
        identity: &Identity,
        token: &LockToken,
        settlement: Settlement,
        wait: Duration,
    ) -> Result<Settled, Error> {
        let deadline = Instant::now() + wait;
        let ticket = self
            .begin_settlement(identity, token, settlement)
            .await
            .map_err(Error::Settle)?;
        let _demand = self.demand_for_settlement(identity).await;
        self.conclusion(ticket, deadline).await
    }

    /// Settles many messages, each for itself, within one wait. The results have the order of the settlements.
    pub(crate) async fn settle_all(
        &self,
        identity: &Identity,
        settlements: &[(LockToken, Settlement)],
        wait: Duration,
    ) -> Vec<Result<Settled, Error>> {
        let deadline = Instant::now() + wait;
        // All are settled before the first is waited for: the hub is told of a message only after the earlier ones.
        let mut tickets = Vec::with_capacity(settlements.len());
        for (token, settlement) in settlements {
            tickets.push(self.begin_settlement(identity, token, *settlement).await);
        }
        let _demand = if tickets.iter().any(Result::is_ok) {
            self.demand_for_settlement(identity).await
        } else {
            None
        };
        let mut results = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            results.push(match ticket {
                Ok(ticket) => self.conclusion(ticket, deadline).await,
                Err(error) => Err(Error::Settle(error)),
            });
        }
        results
    }

    /// The hub is told of a settlement on the connection that the message came on: it must not be closed for want of
    /// requests. A token that settles nothing is no reason to open one, so this comes after the settlement, which stands
    /// whether the demand can be raised or not.
    async fn demand_for_settlement(&self, identity: &Identity) -> Option<Demand> {
        let signals = &self.store.signals;
        signals.demand(identity, Needs::default()).await.ok()
    }

    /// Settles again if the answer was lost, which is the same settlement. Only an abandon may count each time.
    async fn begin_settlement(
        &self,
        identity: &Identity,
        token: &LockToken,
        settlement: Settlement,
    ) -> Result<Ticket<Conclusion>, SettleError> {
        for _ in 1..ATTEMPTS {
            match self.store.inbox.settle(identity, token, settlement).await {
                Err(SettleError::Store(StoreError::UnknownOutcome))
                    if settlement != Settlement::Abandon => {}
                result => return result,
            }
        }
        self.store.inbox.settle(identity, token, settlement).await
    }

    /// Waits until it is known what became of a settlement.
    async fn conclusion(
        &self,
        mut ticket: Ticket<Conclusion>,
        deadline: Instant,
    ) -> Result<Settled, Error> {
        match self.wait(&mut ticket, deadline).await? {
            Some(Conclusion::Hub) => Ok(Settled::Hub),
            Some(Conclusion::Gateway) => Ok(Settled::Gateway),
            Some(Conclusion::Lost) => Err(Error::Settle(SettleError::Lost)),
            None => Err(Failure::HubTimeout.into()),
        }
    }
}

/// Of a patch the hub may say which version it led to.
fn patched(done: Done) -> Result<Option<TwinVersion>, Error> {
    match done {
        Done::ReportedPatched { version } => Ok(version),
        Done::Acknowledged | Done::TwinRead(_) => Err(Error::Mismatch),
    }
}

/// Of a message or an answer the hub says no more than this.
fn acknowledged(done: Done) -> Result<(), Error> {
    match done {
        Done::Acknowledged => Ok(()),
        Done::TwinRead(_) | Done::ReportedPatched { .. } => Err(Error::Mismatch),
    }
}
