//! Telemetry, one by one and in batches.

use std::{
    collections::VecDeque,
    time::{Instant, SystemTime},
};

use futures_util::future::join_all;
use iothub::{Identity, Telemetry};
use store::{SubmissionId, SubmitError, Work};

use super::{
    Devices, Error, acknowledged,
    check::check_telemetry,
    entry::UnderWay,
    kept::draft,
    terms::{PartNames, Reached, Terms, stamp_creation, text_of},
};

impl Devices {
    /// Sends one telemetry message; returns when the hub has acknowledged it, or it is stored.
    pub(crate) async fn send_telemetry(
        &self,
        identity: &Identity,
        mut telemetry: Telemetry,
        terms: &Terms,
    ) -> Result<Reached<()>, Error> {
        let names = self.names(terms);
        let message_id = || match &terms.key {
            Some(key) => key.message_id(),
            None => text_of(names.first),
        };
        self.stamp(&mut telemetry, terms, message_id);
        check_telemetry(identity, &telemetry)?;
        self.write(identity, names, Work::Telemetry(telemetry), terms)
            .await?
            .try_map(acknowledged)
    }

    /// Checks a message as it will be sent, in this place of a batch.
    pub(crate) fn check_in_batch(
        &self,
        identity: &Identity,
        telemetry: &Telemetry,
        terms: &Terms,
        place: usize,
        names: &PartNames,
    ) -> Result<(), Error> {
        let mut telemetry = telemetry.clone();
        self.stamp(&mut telemetry, terms, || names.message_id(place));
        check_telemetry(identity, &telemetry)
    }

    /// Sends many telemetry messages in their order; returns when it is known of each what became of it, in the same
    /// order. The number before a message is its place among all that the request has. A message that cannot be sent does
    /// not stop those behind it; one for which there is no room does, for they would overtake it when it is sent again. After
    /// the last call none is sent.
    pub(crate) async fn send_telemetries(
        &self,
        identity: &Identity,
        messages: Vec<(usize, Telemetry)>,
        terms: &Terms,
        names: PartNames,
    ) -> Vec<Result<Reached<()>, Error>> {
        let mut batch = Batch {
            devices: self,
            can_store: self.can_store(terms),
            until: terms.until(),
            results: messages.iter().map(|_| None).collect(),
            under_way: VecDeque::with_capacity(WINDOW),
        };
        if terms.is_async && batch.can_store {
            batch.until = Instant::now();
        }
        let mut stopped: Option<SubmitError> = None;
        for (at, (place, mut telemetry)) in messages.into_iter().enumerate() {
            self.stamp(&mut telemetry, terms, || names.message_id(place));
            if let Err(error) = check_telemetry(identity, &telemetry) {
                batch.results[at] = Some(Err(error));
                continue;
            }
            batch.make_way().await;
            if self.last_call.is_cancelled() {
                batch.results[at] = Some(Err(Error::Stopping));
                continue;
            }
            let names = self.names_of_part(terms, &names, place);
            let submission = draft(identity, names, Work::Telemetry(telemetry), batch.until);
            while stopped.is_none() {
                match self.submit(submission.clone()).await {
                    Ok(entry) => {
                        batch.under_way.push_back((at, entry, names.again));
                        break;
                    }
                    // The own messages take the room: the oldest of them leaves it when it is settled.
                    Err(SubmitError::DeviceFull { .. }) if batch.settle_oldest().await => {}
                    Err(error) => stopped = Some(error),
                }
            }
            if let Some(error) = &stopped {
                batch.results[at] = Some(Err(error.clone().into()));
            }
        }
        batch.finish().await
    }

    /// Gives a message what it needs if it may be sent more than once, or late: an id, and the time of its acceptance.
    fn stamp(&self, telemetry: &mut Telemetry, terms: &Terms, id: impl FnOnce() -> String) {
        let can_store = self.can_store(terms);
        if can_store || terms.key.is_some() {
            telemetry.system.message_id.get_or_insert_with(id);
        }
        if can_store {
            stamp_creation(telemetry, SystemTime::now().into());
        }
    }
}

/// The messages of one batch on their way.
struct Batch<'a> {
    devices: &'a Devices,
    can_store: bool,
    /// Until when the hub is waited for.
    until: Instant,
    /// What became of each message, as far as that is known.
    results: Vec<Option<Result<Reached<()>, Error>>>,
    /// With the place of the result, and the name under which the message is stored.
    under_way: VecDeque<(usize, UnderWay, Option<SubmissionId>)>,
}

impl Batch<'_> {
    /// Waits until another message may be under way.
    async fn make_way(&mut self) {
        // What will be stored anyway needs no window.
        let is_late = self.can_store && Instant::now() >= self.until;
        if self.under_way.len() >= WINDOW && !is_late {
            self.settle_oldest().await;
        }
    }

    /// Waits until it is known what became of the oldest message that is under way; false if there is none.
    async fn settle_oldest(&mut self) -> bool {
        let Some((at, entry, again)) = self.under_way.pop_front() else {
            return false;
        };
        let result = self.settled(entry, again).await;
        let is_stored = matches!(result, Ok(Reached::Stored(_)));
        self.results[at] = Some(result);
        if is_stored {
            // It may stand behind those that follow, which are to be stored in their order before any more come.
            self.until = Instant::now();
            while let Some((at, entry, again)) = self.under_way.pop_front() {
                self.results[at] = Some(self.settled(entry, again).await);
            }
        }
        true
    }

    /// Waits for all that are under way; whatever is stored is stored together.
    async fn finish(mut self) -> Vec<Result<Reached<()>, Error>> {
        let under_way = std::mem::take(&mut self.under_way);
        let settled = under_way.into_iter().map(|(at, entry, again)| {
            let settled = self.settled(entry, again);
            async move { (at, settled.await) }
        });
        for (at, result) in join_all(settled).await {
            self.results[at] = Some(result);
        }
        let results = self.results.into_iter();
        results
            .map(|result| result.unwrap_or(Err(Error::Mismatch)))
            .collect()
    }

    async fn settled(
        &self,
        entry: UnderWay,
        again: Option<SubmissionId>,
    ) -> Result<Reached<()>, Error> {
        let reached = self.devices.reached(entry, again, self.until).await?;
        reached.try_map(acknowledged)
    }
}

/// Messages of one batch that are under way at once: more than a session sends at once, and few enough to leave room in
/// the outbox for what else the device has to say.
const WINDOW: usize = 128;
