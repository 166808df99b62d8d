//! How fast connections to one hub are opened, and who comes first.
//!
//! A hub admits so many new connections in a second and refuses the rest, so a gateway that has lost ten thousand sessions
//! at once must come back slowly. Whoever wants to connect takes a [`Turn`] at the hub's [`Turnstile`]. Turns are given
//! at four fifths of the hub's rate; after a quiet time one fifth more may go at once, so that never more than the hub's
//! rate is used in any second. A device whose client waits goes before all those that nobody waits for.
//!
//! Credentials that nobody has proved come from anywhere, and most may be wrong. All of them together have a tenth of the
//! hub's rate, so they cannot take the turns of devices that are known.

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
use tokio::{select, sync::Notify};

use crate::node::now;

/// The entrance to one hub.
pub(crate) struct Turnstile {
    gate: Mutex<Gate>,
    is_wanted: Notify,
}

/// Who goes first, and how fast.
struct Gate {
    urgent: VecDeque<Arc<Waiter>>,
    unproved: VecDeque<Arc<Waiter>>,
    idle: VecDeque<Arc<Waiter>>,
    /// For all.
    bucket: Bucket,
    /// For the unproved, beside the one for all.
    bucket_of_unproved: Bucket,
}

/// Who wants to connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rank {
    /// A device whose client waits.
    Urgent,
    /// Somebody whose credential was never accepted.
    Unproved,
    /// A device that nobody waits for.
    Idle,
}

/// A place in the queue, given up when dropped.
pub(crate) struct Turn {
    turnstile: Arc<Turnstile>,
    waiter: Arc<Waiter>,
}

struct Waiter {
    state: AtomicU8,
    may_hurry: AtomicBool,
    admitted: Notify,
}

/// What the turnstile does next.
enum Next {
    Admitted,
    Later(Instant),
    Nobody,
}

impl Turnstile {
    /// The entrance to a hub that admits `limit` connections in a second.
    pub(crate) fn new(limit: NonZeroU32, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            gate: Mutex::new(Gate {
                urgent: VecDeque::new(),
                unproved: VecDeque::new(),
                idle: VecDeque::new(),
                bucket: Bucket::for_all(limit, now),
                bucket_of_unproved: Bucket::for_unproved(limit, now),
            }),
            is_wanted: Notify::new(),
        })
    }

    /// Takes a place in the queue.
    pub(crate) fn queue(self: &Arc<Self>, rank: Rank) -> Turn {
        let waiter = Arc::new(Waiter {
            state: AtomicU8::new(WAITING),
            may_hurry: AtomicBool::new(rank == Rank::Idle),
            admitted: Notify::new(),
        });
        self.push(Arc::clone(&waiter), rank);
        Turn {
            turnstile: Arc::clone(self),
            waiter,
        }
    }

    /// Gives turns, for ever.
    pub(crate) async fn run(&self) {
        loop {
            let wanted = self.is_wanted.notified();
            match self.give_turns(now()) {
                Some(at) => select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = wanted => {}
                },
                None => wanted.await,
            }
        }
    }

    /// Gives all turns that can be given now; says when there is another one for somebody who waits.
    fn give_turns(&self, now: Instant) -> Option<Instant> {
        let mut gate = self.gate.lock();
        loop {
            match gate.next(now) {
                Next::Admitted => {}
                Next::Later(at) => return Some(at),
                Next::Nobody => return None,
            }
        }
    }

    fn push(&self, waiter: Arc<Waiter>, rank: Rank) {
        self.gate.lock().queue(rank).push_back(waiter);
        self.is_wanted.notify_one();
    }
}

impl Turn {
    /// Lets it go before those that nobody waits for. An unproved credential stays what it is.
    pub(crate) fn hurry(&self) {
        if self.waiter.may_hurry.swap(false, Ordering::AcqRel) {
            // The old place stays: whoever is admitted is not admitted again.
            self.turnstile.push(Arc::clone(&self.waiter), Rank::Urgent);
        }
    }

    /// Waits until it is this one's turn.
    pub(crate) async fn admitted(&self) {
        // Mostly nobody else waits: then a device goes at once, without a round through the task that gives turns.
        self.turnstile.give_turns(now());
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
    fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }

    /// From waiting to `state`; false if it was not waiting.
    fn leave(&self, state: u8) -> bool {
        self.state
            .compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Gate {
    /// Admits the first that may go.
    fn next(&mut self, now: Instant) -> Next {
        loop {
            let Some((rank, at)) = self.first(now) else {
                return Next::Nobody;
            };
            if now < at {
                return Next::Later(at);
            }
            let Some(waiter) = self.queue(rank).pop_front() else {
                return Next::Nobody;
            };
            // Fails if it was given up at this very moment.
            if waiter.leave(ADMITTED) {
                self.bucket.take(now);
                if rank == Rank::Unproved {
                    self.bucket_of_unproved.take(now);
                }
                waiter.admitted.notify_one();
                return Next::Admitted;
            }
        }
    }

    /// Who is next, and when.
    fn first(&mut self, now: Instant) -> Option<(Rank, Instant)> {
        let [urgent, unproved, idle] =
            [Rank::Urgent, Rank::Unproved, Rank::Idle].map(|rank| self.has(rank));
        let at = self.bucket.earliest();
        let at_for_unproved = at.max(self.bucket_of_unproved.earliest());
        if urgent {
            Some((Rank::Urgent, at))
        } else if unproved && (!idle || at_for_unproved <= now.max(at)) {
            Some((Rank::Unproved, at_for_unproved))
        } else {
            idle.then_some((Rank::Idle, at))
        }
    }

    /// Whether anybody of this rank waits.
    fn has(&mut self, rank: Rank) -> bool {
        let queue = self.queue(rank);
        while queue.front().is_some_and(|first| !first.is_waiting()) {
            queue.pop_front();
        }
        !queue.is_empty()
    }

    const fn queue(&mut self, rank: Rank) -> &mut VecDeque<Arc<Waiter>> {
        match rank {
            Rank::Urgent => &mut self.urgent,
            Rank::Unproved => &mut self.unproved,
            Rank::Idle => &mut self.idle,
        }
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
    fn for_all(limit: NonZeroU32, now: Instant) -> Self {
        let interval = Duration::from_secs(1).mul_f64(1.0 / (f64::from(limit.get()) * RATE));
        let burst = (limit.get() / 5).max(1);
        Self {
            interval,
            tolerance: interval * (burst - 1),
            due: now,
        }
    }

    fn for_unproved(limit: NonZeroU32, now: Instant) -> Self {
        Self {
            interval: Duration::from_secs(1).mul_f64(1.0 / (f64::from(limit.get()) * SHARE)),
            tolerance: Duration::ZERO,
            due: now,
        }
    }

    /// When one can be taken.
    fn earliest(&self) -> Instant {
        self.due - self.tolerance
    }

    /// Takes one; not before the earliest moment.
    fn take(&mut self, now: Instant) {
        self.due = self.due.max(now) + self.interval;
    }
}

/// Share of the hub's rate that is used steadily. Other gateways and tools connect to the same hub.
const RATE: f64 = 0.8;

/// Share of the hub's rate that unproved credentials have.
const SHARE: f64 = 0.1;

const WAITING: u8 = 0;
const ADMITTED: u8 = 1;
const GIVEN_UP: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `count` would be admitted if all wanted to go at once.
    fn admissions(limit: u32, rank: Rank, count: usize) -> Vec<Duration> {
        let start = Instant::now();
        let turnstile = Turnstile::new(NonZeroU32::new(limit).unwrap(), start);
        let _turns: Vec<_> = (0..count).map(|_| turnstile.queue(rank)).collect();
        let mut now = start;
        let mut admissions = Vec::new();
        loop {
            match turnstile.gate.lock().next(now) {
                Next::Admitted => admissions.push(now - start),
                Next::Later(at) => now = at,
                Next::Nobody => return admissions,
            }
        }
    }

    #[test]
    fn no_second_sees_more_than_the_limit() {
        for limit in [1, 2, 4, 5, 10, 100, 6000] {
            let admissions = admissions(limit, Rank::Idle, 4 * limit as usize + 10);
            for window in admissions.windows(limit as usize + 1) {
                let took = window[limit as usize] - window[0];
                assert!(took >= Duration::from_millis(999), "{limit}: {took:?}");
            }
        }
    }

    #[test]
    fn ten_thousand_are_back_in_time() {
        let last = *admissions(100, Rank::Idle, 10_000).last().unwrap();
        assert!((120..=160).contains(&last.as_secs()), "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_with_a_waiting_client_goes_first() {
        let turnstile = Turnstile::new(NonZeroU32::new(1).unwrap(), now());
        let mut tasks = tokio::task::JoinSet::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let turns = [
            ("a", Rank::Idle),
            ("b", Rank::Idle),
            ("c", Rank::Urgent),
            ("d", Rank::Idle),
        ];
        let turns = turns.map(|(name, rank)| (name, turnstile.queue(rank)));
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

    #[test]
    fn strangers_have_a_tenth_whatever_they_do() {
        let admissions = admissions(100, Rank::Unproved, 100);
        for window in admissions.windows(11) {
            assert!(window[10] - window[0] >= Duration::from_millis(999));
        }
        assert!(admissions[99] < Duration::from_secs(11), "and no less");
    }

    #[test]
    fn strangers_delay_nobody_and_are_not_kept_out() {
        let start = Instant::now();
        let turnstile = Turnstile::new(NonZeroU32::new(100).unwrap(), start);
        let strangers: Vec<_> = (0..50).map(|_| turnstile.queue(Rank::Unproved)).collect();
        strangers.iter().for_each(Turn::hurry);
        let _devices: Vec<_> = (0..200).map(|_| turnstile.queue(Rank::Idle)).collect();
        let mut now = start;
        while now < start + Duration::from_secs(2) {
            match turnstile.gate.lock().next(now) {
                Next::Admitted => {}
                Next::Later(at) => now = at,
                Next::Nobody => break,
            }
        }
        let left = strangers.iter().filter(|turn| turn.waiter.is_waiting());
        let left = left.count();
        assert!((29..=31).contains(&left), "{left} of 50 after two seconds");
        assert!(
            turnstile.gate.lock().idle.len() <= 200 - (160 - 21),
            "the rest went to devices"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_gave_up_costs_no_turn() {
        let turnstile = Turnstile::new(NonZeroU32::new(1).unwrap(), now());
        (0..1000).for_each(|_| drop(turnstile.queue(Rank::Urgent)));
        let turn = turnstile.queue(Rank::Idle);
        let admitted =
            async { tokio::time::timeout(Duration::from_secs(2), turn.admitted()).await };
        tokio::select! {
            () = turnstile.run() => unreachable!("it runs for ever"),
            result = admitted => assert!(result.is_ok()),
        }
    }
}
