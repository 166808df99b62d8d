//! What two threads do with one entry at one moment.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use tombolo_store::{
    Clock as _, Done, Lane, Outcome, SubmissionId, Survival, Ticket, conformance::Disk,
};

use super::rig::{Rig, identity, submission};

/// Whoever has waited for the hub in vain has the entry stored, and looks then whether it was settled in the last moment: a
/// ticket that is not resolved by then would make it promise a receipt that does not exist.
///
/// The first ticket that is resolved lets the other thread look, and waits a while for it before the next one is.
#[tokio::test]
async fn what_is_found_settled_when_it_is_to_be_stored_has_its_outcome() {
    let dev1 = identity("dev1");
    let rig = Rig::open(&Disk::default());
    let mut ephemeral = submission("dev1", 1, "at the last moment");
    ephemeral.fingerprint = None;
    ephemeral.survival = Survival::Ephemeral {
        deadline: rig.clock.instant() + Duration::from_secs(5),
    };
    let mut tickets = Vec::new();
    for _ in 0..3 {
        let submitted = rig.store.outbox.submit(ephemeral.clone()).await;
        tickets.push(submitted.unwrap());
    }
    let mut reader = rig.reader("dev1").await;
    let taken = reader.take(Lane::Telemetry, 1).await.unwrap();

    let (resolving, is_resolving) = channel();
    let (looked, has_looked) = channel();
    let pause = Waker::from(Arc::new(Pause {
        is_over: AtomicBool::new(false),
        resolving,
        has_looked: Mutex::new(has_looked),
    }));
    for ticket in &mut tickets {
        assert_eq!(outcome_of(ticket, &pause), None);
    }
    let outbox = Arc::clone(&rig.store.outbox);
    let runtime = tokio::runtime::Handle::current();
    let other = thread::spawn(move || {
        is_resolving.recv().expect("it is settled");
        let stored = runtime.block_on(outbox.persist(&dev1, SubmissionId(1)));
        let mut outcomes = tickets.iter_mut();
        let all = outcomes.all(|ticket| outcome_of(ticket, Waker::noop()).is_some());
        // Nobody waits for it if the lanes were locked all the while.
        let _ = looked.send(());
        (stored, all)
    });
    let settled = reader.settle(taken[0].id, Ok(Done::Acknowledged));
    settled.await.unwrap();
    assert_eq!(other.join().unwrap(), (Ok(()), true));
}

fn outcome_of(ticket: &mut Ticket<Outcome>, waker: &Waker) -> Option<Outcome> {
    let poll = Pin::new(ticket).poll(&mut Context::from_waker(waker));
    match poll {
        Poll::Ready(outcome) => Some(outcome.expect("the store is there")),
        Poll::Pending => None,
    }
}

/// Holds up whoever resolves the first ticket, while somebody else looks.
struct Pause {
    is_over: AtomicBool,
    resolving: Sender<()>,
    has_looked: Mutex<Receiver<()>>,
}

impl Wake for Pause {
    fn wake(self: Arc<Self>) {
        if self.is_over.swap(true, Ordering::SeqCst) {
            return;
        }
        self.resolving.send(()).expect("the other thread waits");
        // Whoever must not look before all are resolved does not, however long this is.
        let _ = self
            .has_looked
            .lock()
            .expect("nobody else has it")
            .recv_timeout(LONG_ENOUGH_TO_LOOK);
    }
}

const LONG_ENOUGH_TO_LOOK: Duration = Duration::from_millis(500);
