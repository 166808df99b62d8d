//! The mailbox of one device.

use std::{collections::VecDeque, sync::Arc, time::Duration, time::Instant};

use fastrand::Rng;
use iothub::{MethodRequest, Timestamp, topic::RequestId};
use tombolo_store::{
    AppendError, Arrival, ArrivalId, Clock as _, Conclusion, ConnectionEpoch, InboxEntry,
    LockToken, MethodRequestId, NodeId, Partition, SessionLease, SettleError, Settlement, Store,
    Ticket, conformance::ManualClock, memory,
};

use super::{device, peek, seeds, wall};

#[tokio::test]
async fn a_mailbox_does_what_the_model_does() {
    for seed in seeds() {
        eprintln!("seed {seed}");
        let mut run = Run::new(seed).await;
        for _ in 0..300 {
            run.step().await;
        }
    }
}

/// What the mailbox holds, in the order of arrival, and what it should say of tickets and tokens.
#[derive(Default)]
struct Model {
    offered: Vec<Offered>,
    /// Tied messages that are settled and not concluded, by the token that settled them.
    settled: Vec<(ArrivalId, LockToken, Settlement, Vec<Ticket<Conclusion>>)>,
    /// The last tokens that settle nothing more: how they did, if they did.
    spent: VecDeque<(LockToken, Option<(Settlement, Conclusion)>)>,
    /// The last methods that are over.
    over: VecDeque<MethodRequestId>,
    dead: usize,
}

struct Offered {
    id: ArrivalId,
    kind: Kind,
    ticket: Ticket<Settlement>,
}

enum Kind {
    Message {
        token: LockToken,
        lease: Option<(LockToken, Instant)>,
        delivery_count: u32,
        expires_at: Option<Timestamp>,
        is_tied: bool,
    },
    Method {
        id: MethodRequestId,
        deadline: Instant,
    },
}

impl Offered {
    fn is_tied(&self) -> bool {
        match self.kind {
            Kind::Message { is_tied, .. } => is_tied,
            Kind::Method { .. } => true,
        }
    }

    fn is_over(&self, clock: &ManualClock) -> bool {
        match &self.kind {
            Kind::Message { expires_at, .. } => expires_at.is_some_and(|at| at <= wall(clock)),
            Kind::Method { deadline, .. } => *deadline <= clock.instant(),
        }
    }

    fn tokens(&self) -> Vec<LockToken> {
        match &self.kind {
            Kind::Message { token, lease, .. } => {
                let lease = lease.iter().map(|(token, _)| token.clone());
                std::iter::once(token.clone()).chain(lease).collect()
            }
            Kind::Method { .. } => Vec::new(),
        }
    }
}

impl Model {
    fn count_messages(&self) -> usize {
        let messages = self
            .offered
            .iter()
            .filter(|offered| !offered.tokens().is_empty());
        messages.count() + self.settled.len()
    }

    fn count_methods(&self) -> usize {
        let methods = self
            .offered
            .iter()
            .filter(|offered| offered.tokens().is_empty());
        methods.count()
    }

    fn lose(&mut self, tokens: impl IntoIterator<Item = LockToken>) {
        self.spent
            .extend(tokens.into_iter().map(|token| (token, None)));
    }

    /// An entry leaves for good: its tokens are lost but for one, and its ticket says this.
    async fn leave(
        &mut self,
        mut offered: Offered,
        but: Option<&LockToken>,
        settlement: Option<Settlement>,
    ) {
        assert_eq!(peek(&mut offered.ticket).await, Some(settlement));
        let tokens = offered.tokens();
        self.lose(tokens.into_iter().filter(|token| Some(token) != but));
        if let Kind::Method { id, .. } = offered.kind {
            self.over.push_back(id);
        }
    }
}

struct Run {
    rng: Rng,
    clock: ManualClock,
    store: Store,
    lease: SessionLease,
    model: Model,
    connection: ConnectionEpoch,
    last_number: u64,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let clock = ManualClock::new();
        let config = memory::Config {
            inbox_messages: MESSAGES,
            inbox_methods: METHODS,
            max_delivery_count: DELIVERIES.try_into().expect("it is not zero"),
            dead_letters: usize::MAX,
            ..memory::Config::default()
        };
        let store = memory::open_with_clock(config, Arc::new(clock.clone()));
        let store = store.expect("there is no registry file");
        let node = NodeId::new("a");
        let lease = store.leases.acquire(&node, Partition::of(&device())).await;
        Self {
            rng: Rng::with_seed(seed),
            clock,
            lease: lease.expect("nobody holds it"),
            store,
            model: Model::default(),
            connection: ConnectionEpoch(1),
            last_number: 0,
        }
    }

    async fn step(&mut self) {
        match self.rng.u32(..100) {
            0..25 => self.append_message().await,
            25..35 => self.append_method().await,
            35..50 => self.receive().await,
            50..75 => self.settle().await,
            75..85 => self.conclude().await,
            85..90 => self.claim().await,
            90..97 => self
                .clock
                .advance(Duration::from_millis(self.rng.u64(..3000))),
            _ => self.withdraw().await,
        }
        self.check().await;
    }

    async fn append_message(&mut self) {
        let id = self.next_id();
        let lives = Duration::from_millis(self.rng.u64(..20_000));
        let expires_at = self
            .rng
            .bool()
            .then(|| wall(&self.clock).saturating_add(lives));
        let is_tied = self.rng.bool();
        let arrival = Arrival::Message {
            message: Arc::default(),
            expires_at,
            is_tied,
        };
        let appended = self
            .store
            .inbox
            .append(&self.lease, &device(), id, arrival)
            .await;
        if self.model.count_messages() >= MESSAGES {
            assert_eq!(appended.err(), Some(AppendError::Full));
            return;
        }
        let ticket = appended.expect("there is room");
        if expires_at.is_some_and(|at| at <= wall(&self.clock)) {
            // Nobody ever sees its token.
            self.model.dead += usize::from(!is_tied);
            if is_tied {
                self.withdraw().await;
            }
            return;
        }
        let view = self
            .store
            .inbox
            .read(&device())
            .await
            .expect("the engine is there");
        let Some(InboxEntry::Message(shown)) = view.entries.last() else {
            panic!("a message was appended")
        };
        self.model.offered.push(Offered {
            id,
            ticket,
            kind: Kind::Message {
                token: shown.token.clone(),
                lease: None,
                delivery_count: 0,
                expires_at,
                is_tied,
            },
        });
    }

    async fn append_method(&mut self) {
        let id = self.next_id();
        let method = MethodRequestId {
            connection: self.connection,
            rid: RequestId::new(&id.number.to_string()).expect("digits are a request id"),
        };
        let deadline = self.clock.instant() + Duration::from_millis(1 + self.rng.u64(..20_000));
        let arrival = Arrival::Method {
            id: method.clone(),
            request: MethodRequest {
                name: "reboot".parse().expect("a method name"),
                payload: Default::default(),
            },
            deadline,
            deadline_at: wall(&self.clock),
        };
        let appended = self
            .store
            .inbox
            .append(&self.lease, &device(), id, arrival)
            .await;
        if self.model.count_methods() >= METHODS {
            assert_eq!(appended.err(), Some(AppendError::Full));
            return;
        }
        self.model.offered.push(Offered {
            id,
            ticket: appended.expect("there is room"),
            kind: Kind::Method {
                id: method,
                deadline,
            },
        });
    }

    async fn receive(&mut self) {
        let now = self.clock.instant();
        let lock = Duration::from_millis(1 + self.rng.u64(..5000));
        let received = self.store.inbox.receive(&device(), lock).await;
        let received = received.expect("the engine is there");
        let clock = &self.clock;
        let free = self.model.offered.iter_mut().find_map(|offered| {
            let is_over = offered.is_over(clock);
            match &mut offered.kind {
                Kind::Message { token, lease, .. } => {
                    let is_free = lease.as_ref().is_none_or(|(_, until)| *until <= now);
                    (is_free && !is_over).then_some((token, lease))
                }
                Kind::Method { .. } => None,
            }
        });
        let Some((token, lease)) = free else {
            assert!(received.is_none());
            return;
        };
        let received = received.expect("one is free");
        assert_eq!(received.entry.token, *token);
        let ended = lease.replace((received.token, now + lock));
        self.model.lose(ended.map(|(token, _)| token));
    }

    async fn settle(&mut self) {
        let offered = self.model.offered.iter().flat_map(Offered::tokens);
        let settled = self
            .model
            .settled
            .iter()
            .map(|(_, token, ..)| token.clone());
        let spent = self.model.spent.iter().map(|(token, _)| token.clone());
        let mut tokens: Vec<_> = offered.chain(settled).chain(spent).collect();
        tokens.push(LockToken::from_text("0f8fad5b-d9cb-469f-a165-70867728950e"));
        let token = self.rng.choice(tokens).expect("there is one");
        let settlements = [
            Settlement::Complete,
            Settlement::Abandon,
            Settlement::Reject,
        ];
        let settlement = self.rng.choice(settlements).expect("there are three");

        let result = self.store.inbox.settle(&device(), &token, settlement).await;
        match self.expected(&token, settlement).await {
            Ok(Some(conclusion)) => {
                let mut ticket = result.expect("the model settles it");
                assert_eq!(peek(&mut ticket).await, Some(Some(conclusion)));
            }
            Ok(None) => {
                let mut ticket = result.expect("the model settles it");
                assert_eq!(peek(&mut ticket).await, None);
                let mut settled = self.model.settled.iter_mut();
                let settled = settled.find(|(_, other, ..)| *other == token);
                settled.expect("the model settled it").3.push(ticket);
            }
            Err(error) => assert_eq!(result.err(), Some(error)),
        }
    }

    /// Settles in the model. What is concluded at once, what waits for its conclusion, or why not.
    async fn expected(
        &mut self,
        token: &LockToken,
        settlement: Settlement,
    ) -> Result<Option<Conclusion>, SettleError> {
        let has = |offered: &Offered| offered.tokens().contains(token);
        let Some(at) = self.model.offered.iter().position(has) else {
            let mut settled = self.model.settled.iter();
            if let Some((_, _, same, _)) = settled.find(|(_, other, ..)| other == token) {
                return if *same == settlement {
                    Ok(None)
                } else {
                    Err(SettleError::Lost)
                };
            }
            let mut spent = self.model.spent.iter().rev();
            return match spent.find(|(other, _)| other == token) {
                Some((_, Some((same, conclusion)))) if *same == settlement => Ok(Some(*conclusion)),
                Some(_) => Err(SettleError::Lost),
                None => Err(SettleError::Unknown),
            };
        };
        let is_over = self.model.offered[at].is_over(&self.clock);
        let Kind::Message {
            token: own,
            lease,
            delivery_count,
            is_tied,
            ..
        } = &mut self.model.offered[at].kind
        else {
            panic!("methods have no tokens")
        };
        let now = self.clock.instant();
        let stands = own == token || lease.as_ref().is_some_and(|(_, until)| now < *until);
        if is_over || !stands {
            return Err(SettleError::Lost);
        }
        let is_tied = *is_tied;
        let spent = (token.clone(), Some((settlement, Conclusion::Gateway)));
        if settlement == Settlement::Abandon {
            *delivery_count += 1;
            if *delivery_count == DELIVERIES {
                let offered = self.model.offered.remove(at);
                self.model
                    .leave(offered, Some(token), Some(Settlement::Reject))
                    .await;
                self.model.dead += 1;
                self.model.spent.push_back(spent);
            } else if let Some((ended, _)) = lease.take() {
                let fate = (ended == *token).then_some((settlement, Conclusion::Gateway));
                self.model.spent.push_back((ended, fate));
            }
            return Ok(Some(Conclusion::Gateway));
        }
        self.model.dead += usize::from(settlement == Settlement::Reject);
        let offered = self.model.offered.remove(at);
        let id = offered.id;
        self.model
            .leave(offered, Some(token), Some(settlement))
            .await;
        if is_tied {
            let settled = (id, token.clone(), settlement, Vec::new());
            self.model.settled.push(settled);
            Ok(None)
        } else {
            self.model.spent.push_back(spent);
            Ok(Some(Conclusion::Gateway))
        }
    }

    async fn conclude(&mut self) {
        let conclusions = [Conclusion::Hub, Conclusion::Gateway, Conclusion::Lost];
        let conclusion = self.rng.choice(conclusions).expect("there are three");
        let count = self.model.settled.len();
        let at = self.rng.usize(..=count);
        let unsettled = ArrivalId {
            connection: self.connection,
            number: u64::MAX,
        };
        let id = self.model.settled.get(at).map_or(unsettled, |(id, ..)| *id);
        let inbox = &self.store.inbox;
        let concluded = inbox.conclude(&self.lease, &device(), id, conclusion).await;
        concluded.expect("the lease stands");
        if at < count {
            let (_, token, settlement, tickets) = self.model.settled.remove(at);
            for mut ticket in tickets {
                assert_eq!(peek(&mut ticket).await, Some(Some(conclusion)));
            }
            let fate = (conclusion != Conclusion::Lost).then_some((settlement, conclusion));
            self.model.spent.push_back((token, fate));
        }
    }

    async fn claim(&mut self) {
        let offered = self
            .model
            .offered
            .iter()
            .filter_map(|offered| match &offered.kind {
                Kind::Message { .. } => None,
                Kind::Method { id, .. } => Some(id.clone()),
            });
        let mut ids: Vec<_> = offered.chain(self.model.over.iter().cloned()).collect();
        ids.push(MethodRequestId {
            connection: self.connection,
            rid: RequestId::new("never").expect("a request id"),
        });
        let id = self.rng.choice(ids).expect("there is one");
        let claimed = self.store.inbox.claim_method(&device(), &id).await;
        let is_it = |offered: &Offered| matches!(&offered.kind, Kind::Method { id: other, .. } if *other == id);
        if let Some(at) = self.model.offered.iter().position(is_it) {
            // Its deadline may be over since the last step.
            let is_over = self.model.offered[at].is_over(&self.clock);
            assert_eq!(
                claimed,
                if is_over {
                    Err(SettleError::Lost)
                } else {
                    Ok(())
                }
            );
            let settlement = (!is_over).then_some(Settlement::Complete);
            let offered = self.model.offered.remove(at);
            self.model.leave(offered, None, settlement).await;
        } else {
            assert_eq!(claimed, Err(SettleError::Lost));
        }
    }

    /// The connection ends, and the next one begins.
    async fn withdraw(&mut self) {
        let inbox = &self.store.inbox;
        let withdrawn = inbox
            .withdraw(&self.lease, &device(), self.connection)
            .await;
        withdrawn.expect("the lease stands");
        self.connection.0 += 1;
        let gone: Vec<_> = self
            .model
            .offered
            .extract_if(.., |offered| offered.is_tied())
            .collect();
        for offered in gone {
            self.model.leave(offered, None, None).await;
        }
        for (_, token, _, tickets) in std::mem::take(&mut self.model.settled) {
            for mut ticket in tickets {
                assert_eq!(peek(&mut ticket).await, Some(Some(Conclusion::Lost)));
            }
            self.model.lose([token]);
        }
    }

    /// What is shown is what the model shows.
    async fn check(&mut self) {
        let view = self
            .store
            .inbox
            .read(&device())
            .await
            .expect("the engine is there");
        let clock = &self.clock;
        let is_given_up = |offered: &mut Offered| {
            let is_kept = matches!(offered.kind, Kind::Message { is_tied: true, .. });
            offered.is_over(clock) && !is_kept
        };
        let over: Vec<_> = self.model.offered.extract_if(.., is_given_up).collect();
        for offered in over {
            let is_message = !offered.tokens().is_empty();
            self.model.dead += usize::from(is_message);
            let settlement = is_message.then_some(Settlement::Reject);
            self.model.leave(offered, None, settlement).await;
        }
        let shown = self
            .model
            .offered
            .iter()
            .filter(|offered| !offered.is_over(clock));
        let shown: Vec<_> = shown.collect();
        assert_eq!(view.entries.len(), shown.len());
        for (entry, offered) in view.entries.iter().zip(shown) {
            match (entry, &offered.kind) {
                (
                    InboxEntry::Message(entry),
                    Kind::Message {
                        token,
                        delivery_count,
                        ..
                    },
                ) => {
                    assert_eq!(
                        (&entry.token, entry.delivery_count),
                        (token, *delivery_count)
                    );
                }
                (InboxEntry::Method(entry), Kind::Method { id, .. }) => assert_eq!(entry.id, *id),
                (entry, _) => panic!("{entry:?} is not what came"),
            }
        }
        for offered in &mut self.model.offered {
            assert_eq!(peek(&mut offered.ticket).await, None);
        }
        let letters = self
            .store
            .inbox
            .dead_letters(self.lease.partition, None)
            .await;
        let letters = letters.expect("the engine is there").items.len();
        assert_eq!(letters, self.model.dead.min(100), "a page has 100");
        while self.model.spent.len() > 40 {
            self.model.spent.pop_front();
        }
        while self.model.over.len() > 10 {
            self.model.over.pop_front();
        }
    }

    fn next_id(&mut self) -> ArrivalId {
        self.last_number += 1;
        ArrivalId {
            connection: self.connection,
            number: self.last_number,
        }
    }
}

const MESSAGES: usize = 8;
const METHODS: usize = 4;
const DELIVERIES: u32 = 3;
