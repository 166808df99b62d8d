//! How fast connections to one hub are opened, and who comes first.
//!
//! A hub admits so many new connections in a second and refuses the rest, so a gateway that has lost ten thousand sessions
//! at once must come back slowly. Whoever wants to connect takes a [`Turn`] at the hub's [`Turnstile`]. Turns are given
//! at four fifths of the hub's rate; after a quiet time one fifth more may go at once, so that never more than the hub's
//! rate is used in any second. A device whose client waits goes before all those that nobody waits for.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::node::now;

/// The entrance to one hub.
pub(crate) struct Turnstile {
    queues: Mutex<Queues>,
    bucket: Mutex<Bucket>,
    is_wanted: Notify,
}

#[derive(Default)]
struct Queues {
    urgent: VecDeque<Arc<Waiter>>,
    others: VecDeque<Arc<Waiter>>,
}

/// A place in the queue, given up when dropped.
pub(crate) struct Turn {
    turnstile: Arc<Turnstile>,
    waiter: Arc<Waiter>,
}

struct Waiter {
    state: AtomicU8,
    is_urgent: AtomicBool,
    admitted: Notify,
}

impl Turnstile {
    /// The entrance to a hub that admits `limit` connections in a second.
    pub(crate) fn new(limit: NonZeroU32, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            queues: Mutex::default(),
            bucket: Mutex::new(Bucket::new(limit, now)),
            is_wanted: Notify::new(),
        })
    }

    /// Takes a place in the queue.
    pub(crate) fn queue(self: &Arc<Self>, is_urgent: bool) -> Turn {
        let waiter = Arc::new(Waiter {
            state: AtomicU8::new(WAITING),
            is_urgent: AtomicBool::new(is_urgent),
            admitted: Notify::new(),
        });
        self.push(Arc::clone(&waiter), is_urgent);
        Turn {
            turnstile: Arc::clone(self),
            waiter,
        }
    }

    /// Gives turns, for ever.
    pub(crate) async fn run(&self) {
        loop {
            let wanted = self.is_wanted.notified();
            if self.queues.lock().is_empty() {
                wanted.await;
                continue;
            }
            let admitted = self.bucket.lock().take(now());
            match admitted {
                Err(later) => tokio::time::sleep_until(later.into()).await,
                Ok(()) => {
                    let admitted = self.queues.lock().admit_first();
                    if !admitted {
                        self.bucket.lock().give_back();
                    }
                }
            }
        }
    }

    fn push(&self, waiter: Arc<Waiter>, is_urgent: bool) {
        let mut queues = self.queues.lock();
        if is_urgent {
            queues.urgent.push_back(waiter);
        } else {
            queues.others.push_back(waiter);
        }
        drop(queues);
        self.is_wanted.notify_one();
    }
}

impl Turn {
    /// Lets it go before those that nobody waits for.
    pub(crate) fn hurry(&self) {
        if !self.waiter.is_urgent.swap(true, Ordering::AcqRel) {
            // The old place stays: whoever is admitted is not admitted again.
            self.turnstile.push(Arc::clone(&self.waiter), true);
        }
    }

    /// Waits until it is this one's turn.
    pub(crate) async fn admitted(&self) {
        while self.waiter.state.load(Ordering::Acquire) != ADMITTED {
            self.waiter.admitted.notified().await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Fails if it was admitted: then nothing is given up.
        let _ = self.waiter.leave(GIVEN_UP);
    }
}

impl Waiter {
    /// From waiting to `state`; false if it was not waiting.
    fn leave(&self, state: u8) -> bool {
        self.state
            .compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Queues {
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.others.is_empty()
    }

    /// Admits the first that still waits; false if there is none.
    fn admit_first(&mut self) -> bool {
        while let Some(waiter) = self.urgent.pop_front().or_else(|| self.others.pop_front()) {
            if waiter.leave(ADMITTED) {
                waiter.admitted.notify_one();
                return true;
            }
        }
        false
    }
}

/// A leaky bucket: one arrival every `interval`, or earlier by `tolerance` at most.
struct Bucket {
    interval: Duration,
    tolerance: Duration,
    /// When the next arrival would be on time.
    due: Instant,
}

impl Bucket {
    fn new(limit: NonZeroU32, now: Instant) -> Self {
        let interval = Duration::from_secs(1).mul_f64(1.0 / (f64::from(limit.get()) * RATE));
        let burst = (limit.get() / 5).max(1);
        Self {
            interval,
            tolerance: interval * (burst - 1),
            due: now,
        }
    }

    /// Takes one, or says when it can be taken.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let earliest = self.due - self.tolerance;
        if now < earliest {
            return Err(earliest);
        }
        self.due = self.due.max(now) + self.interval;
        Ok(())
    }

    fn give_back(&mut self) {
        self.due -= self.interval;
    }
}

/// Share of the hub's rate that is used steadily. Other gateways and tools connect to the same hub.
const RATE: f64 = 0.8;

const WAITING: u8 = 0;
const ADMITTED: u8 = 1;
const GIVEN_UP: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `count` would be admitted if all wanted to go at once.
    fn admissions(limit: u32, count: usize) -> Vec<Duration> {
        let start = Instant::now();
        let mut bucket = Bucket::new(NonZeroU32::new(limit).unwrap(), start);
        let mut now = start;
        let mut admissions = Vec::new();
        while admissions.len() < count {
            match bucket.take(now) {
                Ok(()) => admissions.push(now - start),
                Err(later) => now = later,
            }
        }
        admissions
    }

    #[test]
    fn no_second_sees_more_than_the_limit() {
        for limit in [1, 2, 4, 5, 10, 100, 6000] {
            let admissions = admissions(limit, 4 * limit as usize + 10);
            for window in admissions.windows(limit as usize + 1) {
                let took = window[limit as usize] - window[0];
                assert!(took >= Duration::from_millis(999), "{limit}: {took:?}");
            }
        }
    }

    #[test]
    fn ten_thousand_are_back_in_time() {
        let last = *admissions(100, 10_000).last().unwrap();
        assert!((120..=160).contains(&last.as_secs()), "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_with_a_waiting_client_goes_first() {
        let turnstile = Turnstile::new(NonZeroU32::new(1).unwrap(), now());
        let mut tasks = tokio::task::JoinSet::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let turns = [("a", false), ("b", false), ("c", true), ("d", false)]
            .map(|(name, is_urgent)| (name, turnstile.queue(is_urgent)));
        turns[3].1.hurry();
        for (name, turn) in turns {
            let order = Arc::clone(&order);
            tasks.spawn(async move {
                turn.admitted().await;
                order.lock().push(name);
            });
        }
        let everybody = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = turnstile.run() => unreachable!("it runs for ever"),
            () = everybody => {}
        }
        assert_eq!(*order.lock(), ["c", "d", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gave_up_costs_no_turn() {
        let turnstile = Turnstile::new(NonZeroU32::new(1).unwrap(), now());
        (0..1000).for_each(|_| drop(turnstile.queue(true)));
        let turn = turnstile.queue(false);
        let admitted =
            async { tokio::time::timeout(Duration::from_secs(2), turn.admitted()).await };
        tokio::select! {
            () = turnstile.run() => unreachable!("it runs for ever"),
            result = admitted => assert!(result.is_ok()),
        }
    }
}
