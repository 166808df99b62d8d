//! Rules of the inbox.

use std::{sync::Arc, time::Duration};

use iothub::{
    CloudMessage, Timestamp,
    twin::{Section, TwinVersion},
};
use tokio::task::JoinSet;

use super::{
    Engine,
    rig::{
        LOCK, Owned, PATIENCE, arrival, assert_waits, method_id, named, outcome, soon, sure, tied,
        untied,
    },
};
use crate::{
    AppendError, Arrival, Clock as _, Conclusion, ConnectionEpoch, DeadLetter, DeliveryLease,
    Desired, InboxEntry, LockToken, ReplayError, SettleError, Settlement, Stock, Ticket,
};

/// Messages and methods are shown in the order in which they came, as often as somebody looks.
pub async fn reading_shows_everything_in_order_and_consumes_nothing(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.append(arrival(1, 1), &tied()).await;
    device.append(arrival(1, 2), &device.method(1, "7")).await;
    device.append(arrival(1, 3), &untied()).await;
    for _ in 0..3 {
        let entries = device.view().await.entries;
        let [first, second, third] = entries.as_slice() else {
            panic!("three have come, not {entries:?}")
        };
        let (InboxEntry::Message(first), InboxEntry::Message(third)) = (first, third) else {
            panic!("the first and the third are messages, not {entries:?}")
        };
        assert!(first.sequence < third.sequence);
        assert_eq!((first.delivery_count, third.delivery_count), (0, 0));
        assert!(matches!(second, InboxEntry::Method(method) if method.id == method_id(1, "7")));
    }
    let other = engine.owned("dev2").await;
    assert_eq!(other.view().await.entries.len(), 0);
}

/// Appending the same id again adds nothing, whatever state the entry is in, and gives its settlement.
pub async fn appending_again_is_the_same_entry(engine: Engine) {
    let device = engine.owned("dev1").await;
    for (id, arrival) in [(arrival(1, 1), tied()), (arrival(1, 2), untied())] {
        let first = device.append(id, &arrival).await;
        let offered = device.append(id, &arrival).await;
        let shown = device.messages().await;
        assert_eq!(shown.len(), 1);
        let token = &shown[0].token;
        let settling = device.settle(token, Settlement::Complete).await;
        let settled = device.append(id, &arrival).await;
        device.conclude(id, Conclusion::Hub).await;
        outcome(settling.expect("it was offered")).await;
        let concluded = device.append(id, &arrival).await;
        assert_eq!(device.messages().await.len(), 0);
        for ticket in [first, offered, settled, concluded] {
            assert_eq!(outcome(ticket).await, Settlement::Complete);
        }
    }
}

/// Several arrivals in one call are put in in their order, the first ones if there is not room for all; again is the same.
pub async fn arrivals_that_come_together_keep_their_order(engine: Engine) {
    let device = engine.owned("dev1").await;
    let bound = engine.bounds.inbox_messages;
    let message = |number: usize| {
        let name = number.to_string();
        (arrival(1, number as u64), named(&name, &name))
    };
    let arrivals: Vec<_> = (0..bound + 2).map(message).collect();
    assert_eq!(device.append_all(&arrivals[..3]).await, 3);
    assert_eq!(device.append_all(&arrivals).await, bound);
    assert_eq!(device.append_all(&arrivals[bound..]).await, 0);
    let shown = device.messages().await.into_iter();
    let shown: Vec<_> = shown.map(|shown| shown.message.payload.clone()).collect();
    let expected: Vec<_> = (0..bound).map(|number| number.to_string()).collect();
    assert_eq!(shown, expected);
}

/// A message that is not tied and comes again on another connection is the same, if its sender has named it and nothing else
/// in it differs, as long as it is not known that the hub was told: while it waits, and after it was settled.
pub async fn what_the_hub_delivers_again_is_the_same_entry(engine: Engine) {
    let device = engine.owned("dev1").await;
    let shown = async || device.messages().await.len();
    let name = || named("m-1", "x");
    device.append(arrival(1, 1), &name()).await;
    device.append(arrival(2, 1), &name()).await;
    assert_eq!(shown().await, 1);
    // Another text, the same connection, or no name: another message.
    device.append(arrival(2, 2), &named("m-1", "y")).await;
    for number in 3..5 {
        device.append(arrival(2, number), &named("m-2", "x")).await;
    }
    for connection in 1..3 {
        device.append(arrival(connection, 5), &untied()).await;
    }
    assert_eq!(shown().await, 6);

    // What is settled stays so, on whatever connection the hub asks.
    let token = device.messages().await[0].token.clone();
    let settled = device.settle(&token, Settlement::Complete).await;
    assert_eq!(conclusion(settled).await, Conclusion::Gateway);
    for _ in 0..2 {
        let again = device.append(arrival(3, 1), &name()).await;
        assert_eq!(outcome(again).await, Settlement::Complete);
    }
    assert_eq!(shown().await, 5);

    // Once the hub knows, what says the same is another message.
    for (connection, count) in [(3, 5), (4, 6), (5, 7)] {
        let id = arrival(connection, 1);
        device.append(id, &name()).await;
        device.conclude(id, Conclusion::Hub).await;
        assert_eq!(shown().await, count, "on connection {connection}");
    }
}

/// `upstream` hears of the settlement; the device hears what became of it at the hub.
pub async fn a_settlement_of_a_tied_message_waits_for_its_conclusion(engine: Engine) {
    let device = engine.owned("dev1").await;
    let conclusions = [Conclusion::Hub, Conclusion::Gateway, Conclusion::Lost];
    for (number, conclusion) in (1..).zip(conclusions) {
        let id = arrival(1, number);
        let (shown, appended) = device.append_shown(id, &tied()).await;
        let settling = device.settle(&shown.token, Settlement::Complete).await;
        let mut settling = settling.expect("it was offered");
        assert_eq!(device.messages().await.len(), 0);
        assert_eq!(outcome(appended).await, Settlement::Complete);
        assert_waits(&mut settling).await;
        device.conclude(id, conclusion).await;
        assert_eq!(outcome(settling).await, conclusion);
    }
}

/// What is not tied to a connection is settled here.
pub async fn a_settlement_of_an_untied_message_is_concluded_at_once(engine: Engine) {
    let device = engine.owned("dev1").await;
    let (shown, appended) = device.append_shown(arrival(1, 1), &untied()).await;
    let settled = device.settle(&shown.token, Settlement::Complete).await;
    assert_eq!(conclusion(settled).await, Conclusion::Gateway);
    assert_eq!(outcome(appended).await, Settlement::Complete);
    assert_eq!(device.messages().await.len(), 0);
}

/// Concluding twice is harmless; the first conclusion stands. So is concluding what is not settled, or never was.
pub async fn the_first_conclusion_stands(engine: Engine) {
    let device = engine.owned("dev1").await;
    let id = arrival(1, 1);
    let (shown, _) = device.append_shown(id, &tied()).await;
    device.conclude(id, Conclusion::Hub).await;
    device.conclude(arrival(7, 7), Conclusion::Hub).await;
    assert_eq!(device.messages().await.len(), 1);
    let settling = device.settle(&shown.token, Settlement::Complete).await;
    device.conclude(id, Conclusion::Gateway).await;
    device.conclude(id, Conclusion::Hub).await;
    assert_eq!(conclusion(settling).await, Conclusion::Gateway);
    let again = device.settle(&shown.token, Settlement::Complete).await;
    assert_eq!(conclusion(again).await, Conclusion::Gateway);
}

/// The same settlement with the same token has one effect, before and after its conclusion; another one is lost.
pub async fn settling_again_is_the_same_settlement(engine: Engine) {
    let device = engine.owned("dev1").await;
    let id = arrival(1, 1);
    let (shown, _) = device.append_shown(id, &tied()).await;
    let first = device.settle(&shown.token, Settlement::Reject).await;
    let pending = device.settle(&shown.token, Settlement::Reject).await;
    let other = device.settle(&shown.token, Settlement::Complete).await;
    assert_eq!(other.err(), Some(SettleError::Lost));
    device.conclude(id, Conclusion::Hub).await;
    let concluded = device.settle(&shown.token, Settlement::Reject).await;
    let other = device.settle(&shown.token, Settlement::Abandon).await;
    assert_eq!(other.err(), Some(SettleError::Lost));
    for settled in [first, pending, concluded] {
        assert_eq!(conclusion(settled).await, Conclusion::Hub);
    }
    assert_eq!(device.dead_letters().await.len(), 1);
}

/// Of two different settlements at the same time one wins.
pub async fn of_two_settlements_one_is_lost(engine: Engine) {
    let device = Arc::new(engine.owned("dev1").await);
    for number in 0..20 {
        let id = arrival(1, number);
        let (shown, appended) = device.append_shown(id, &tied()).await;
        let mut tasks = JoinSet::new();
        for settlement in [Settlement::Complete, Settlement::Reject] {
            let (device, token) = (Arc::clone(&device), shown.token.clone());
            tasks.spawn(async move { (settlement, device.settle(&token, settlement).await) });
        }
        let results = soon(tasks.join_all()).await;
        let (won, lost): (Vec<_>, Vec<_>) = results
            .into_iter()
            .partition(|(_, settled)| settled.is_ok());
        assert_eq!((won.len(), lost.len()), (1, 1));
        assert_eq!(outcome(appended).await, won[0].0);
        device.conclude(id, Conclusion::Hub).await;
    }
}

/// A token that the inbox never gave, or gave for another device, names nothing.
pub async fn a_token_that_was_never_given_is_unknown(engine: Engine) {
    let (device, other) = (engine.owned("dev1").await, engine.owned("dev2").await);
    let (shown, _) = device.append_shown(arrival(1, 1), &tied()).await;
    let (never, nonsense) = ("0f8fad5b-d9cb-469f-a165-70867728950e", "no guid");
    for (device, token) in [
        (&device, LockToken::from_text(never)),
        (&device, LockToken::from_text(nonsense)),
        (&other, shown.token.clone()),
    ] {
        let settled = device.settle(&token, Settlement::Complete).await;
        assert_eq!(settled.err(), Some(SettleError::Unknown), "{token:?}");
    }
    assert_eq!(device.messages().await.len(), 1);
    let upper = LockToken::from_text(&shown.token.as_str().to_ascii_uppercase());
    let settled = device.settle(&upper, Settlement::Complete).await;
    assert!(settled.is_ok(), "a GUID is the same in upper case");
}

/// A message that its device rejects is kept for the operator.
pub async fn a_rejected_message_is_a_dead_letter(engine: Engine) {
    let device = engine.owned("dev1").await;
    for (number, arrives) in [(1, tied()), (2, untied())] {
        let (shown, appended) = device.append_shown(arrival(1, number), &arrives).await;
        let settled = device.settle(&shown.token, Settlement::Reject).await;
        assert!(settled.is_ok());
        assert_eq!(outcome(appended).await, Settlement::Reject);
        let letter = device.dead_letters().await.pop().expect("it was rejected");
        assert_eq!(letter.reason, "Rejected");
        assert_eq!(letter.sequence, shown.sequence);
        assert_eq!(letter.arrived_at, shown.arrived_at);
        assert_eq!(letter.at, engine.clock.timestamp());
    }
}

/// An abandoned message is offered again where it was, and counts; an abandon under a delivery lease counts once.
pub async fn an_abandoned_message_is_offered_again_in_its_place(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.append(arrival(1, 1), &tied()).await;
    device.append(arrival(1, 2), &tied()).await;
    let delivery = receive(&device).await.expect("two are offered");
    for _ in 0..2 {
        let abandoned = device.settle(&delivery.token, Settlement::Abandon).await;
        assert_eq!(conclusion(abandoned).await, Conclusion::Gateway);
    }
    let shown = device.messages().await;
    let counts: Vec<_> = shown.iter().map(|entry| entry.delivery_count).collect();
    assert_eq!(counts, [1, 0]);
    assert_eq!(shown[0].token, delivery.entry.token);
    let completed = device.settle(&delivery.token, Settlement::Complete).await;
    assert_eq!(completed.err(), Some(SettleError::Lost));

    let again = receive(&device).await.expect("it is offered again");
    assert_eq!(again.entry.sequence, delivery.entry.sequence);
    let abandoned = device.settle(&again.entry.token, Settlement::Abandon).await;
    assert!(abandoned.is_ok());
    let settled = device.settle(&again.token, Settlement::Complete).await;
    assert_eq!(settled.err(), Some(SettleError::Lost), "the lease ended");
    assert!(device.messages().await[0].delivery_count >= 2);
}

/// The abandon that reaches the bound makes a dead letter.
pub async fn a_message_abandoned_too_often_is_a_dead_letter(engine: Engine) {
    let device = engine.owned("dev1").await;
    let (shown, mut appended) = device.append_shown(arrival(1, 1), &tied()).await;
    for count in 0..engine.bounds.max_delivery_count {
        assert_waits(&mut appended).await;
        let delivery = receive(&device).await.expect("it is offered");
        assert_eq!(delivery.entry.delivery_count, count);
        let abandoned = device.settle(&delivery.token, Settlement::Abandon).await;
        assert_eq!(conclusion(abandoned).await, Conclusion::Gateway);
    }
    assert_eq!(outcome(appended).await, Settlement::Reject);
    assert_eq!(device.messages().await.len(), 0);
    let letters = device.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "DeliveryCountExceeded");
    assert_eq!(letters[0].delivery_count, engine.bounds.max_delivery_count);
    let settled = device.settle(&shown.token, Settlement::Complete).await;
    assert_eq!(settled.err(), Some(SettleError::Lost));
}

/// From its expiry on nobody is shown a message; one that nobody else has becomes a dead letter.
pub async fn an_expired_message_is_shown_to_nobody(engine: Engine) {
    let device = engine.owned("dev1").await;
    let expires_at = engine.clock.timestamp().saturating_add(PATIENCE);
    let expiring = expiring(expires_at, false);
    let (shown, appended) = device.append_shown(arrival(1, 1), &expiring).await;
    assert_eq!(shown.expires_at, Some(expires_at));
    let delivery = receive(&device).await.expect("it is offered");
    engine.clock.advance(PATIENCE - Duration::from_millis(1));
    assert_eq!(device.messages().await.len(), 1);

    engine.clock.advance(Duration::from_millis(1));
    assert_eq!(device.messages().await.len(), 0);
    assert!(receive(&device).await.is_none());
    for token in [&shown.token, &delivery.token] {
        let settled = device.settle(token, Settlement::Complete).await;
        assert_eq!(settled.err(), Some(SettleError::Lost));
    }
    assert_eq!(outcome(appended).await, Settlement::Reject);
    let letters = device.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "Expired");
}

/// A wall clock that is set ends no message, and keeps none for longer.
pub async fn a_wall_clock_that_is_set_ends_no_message(engine: Engine) {
    let device = engine.owned("dev1").await;
    for (number, seconds) in (1..).zip([3600, -3600, 10 * 86_400, -10 * 86_400]) {
        let expires_at = engine.clock.timestamp().saturating_add(PATIENCE);
        let (_, appended) = device
            .append_shown(arrival(1, number), &expiring(expires_at, false))
            .await;
        engine.clock.move_wall_clock(seconds);
        assert_eq!(device.messages().await.len(), 1, "{seconds}");
        engine.clock.advance(PATIENCE);
        assert_eq!(device.messages().await.len(), 0, "{seconds}");
        assert_eq!(outcome(appended).await, Settlement::Reject);
    }
}

/// A tied message that is expired is shown to nobody and is no dead letter: the hub has it, until it is withdrawn.
pub async fn an_expired_tied_message_goes_with_its_connection(engine: Engine) {
    let device = engine.owned("dev1").await;
    let expires_at = engine.clock.timestamp().saturating_add(PATIENCE);
    let expiring = expiring(expires_at, true);
    let (shown, mut appended) = device.append_shown(arrival(1, 1), &expiring).await;
    engine.clock.advance(PATIENCE);
    assert_eq!(device.messages().await.len(), 0);
    assert!(receive(&device).await.is_none());
    let settled = device.settle(&shown.token, Settlement::Complete).await;
    assert_eq!(settled.err(), Some(SettleError::Lost));
    assert_waits(&mut appended).await;
    device.withdraw(1).await;
    assert!(soon(appended).await.is_err());
    assert_eq!(device.dead_letters().await.len(), 0);
}

/// A message that one caller of `receive` has is hidden from other such calls, and from nobody else.
pub async fn a_delivery_lease_hides_from_receive_alone(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.append(arrival(1, 1), &device.method(1, "7")).await;
    device.append(arrival(1, 2), &tied()).await;
    device.append(arrival(1, 3), &tied()).await;
    let first = receive(&device).await.expect("two are offered");
    let second = receive(&device).await.expect("one is offered");
    assert!(receive(&device).await.is_none());
    assert!(first.entry.sequence < second.entry.sequence);
    assert_ne!(first.token, first.entry.token);

    let shown = device.messages().await;
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0].token, first.entry.token);
    assert_eq!(shown[0].delivery_count, 0, "receiving counts nothing");
    let settled = device.settle(&second.token, Settlement::Complete).await;
    assert!(settled.is_ok());
    assert_eq!(device.messages().await.len(), 1);
}

/// When a delivery lease's time is over its token is lost, and the message can be received again.
pub async fn a_delivery_lease_ends_with_its_time(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.append(arrival(1, 1), &tied()).await;
    let first = receive(&device).await.expect("it is offered");
    engine.clock.advance(LOCK - Duration::from_millis(1));
    assert!(receive(&device).await.is_none());
    engine.clock.advance(Duration::from_millis(1));
    for settlement in [Settlement::Complete, Settlement::Abandon] {
        let settled = device.settle(&first.token, settlement).await;
        assert_eq!(settled.err(), Some(SettleError::Lost));
    }
    let again = receive(&device).await.expect("it is offered again");
    assert_ne!(again.token, first.token);
    assert_eq!(again.entry.delivery_count, 0);
    let settled = device.settle(&first.token, Settlement::Complete).await;
    assert_eq!(settled.err(), Some(SettleError::Lost));
    let settled = device.settle(&again.token, Settlement::Complete).await;
    assert!(settled.is_ok());
}

/// The entry's own token settles a message under a delivery lease, which is lost with it; and the other way round.
pub async fn a_delivery_lease_ends_with_its_entry(engine: Engine) {
    let device = engine.owned("dev1").await;
    for (number, arrives) in [(1, tied()), (2, untied()), (3, tied()), (4, untied())] {
        device.append(arrival(1, number), &arrives).await;
        let delivery = receive(&device).await.expect("it is offered");
        let mut tokens = [&delivery.token, &delivery.entry.token];
        if number > 2 {
            tokens.reverse();
        }
        let settled = device.settle(tokens[0], Settlement::Complete).await;
        assert!(settled.is_ok());
        let settled = device.settle(tokens[1], Settlement::Complete).await;
        assert_eq!(settled.err(), Some(SettleError::Lost));
    }
}

/// The end of a connection takes what is tied to it or to an earlier one, and nothing else.
pub async fn withdrawing_takes_what_is_tied_to_the_connection(engine: Engine) {
    let device = engine.owned("dev1").await;
    let (settled, _) = device.append_shown(arrival(1, 1), &tied()).await;
    let settling = device.settle(&settled.token, Settlement::Complete).await;
    let (earlier, ticket) = device.append_shown(arrival(1, 2), &tied()).await;
    let leased = receive(&device).await.expect("it is offered");
    device.append(arrival(2, 1), &tied()).await;
    let (stays, _) = device.append_shown(arrival(2, 2), &untied()).await;
    let (later, _) = device.append_shown(arrival(3, 1), &tied()).await;
    set_desired(&device, Some(desired(2, 4))).await;

    device.withdraw(2).await;
    let shown = device.messages().await;
    let left: Vec<_> = shown.iter().map(|entry| &entry.token).collect();
    assert_eq!(left, [&stays.token, &later.token]);
    assert_eq!(conclusion(settling).await, Conclusion::Lost);
    assert!(soon(ticket).await.is_err());
    for token in [&settled.token, &earlier.token, &leased.token] {
        let lost = device.settle(token, Settlement::Complete).await;
        assert_eq!(lost.err(), Some(SettleError::Lost));
    }
    assert!(device.view().await.desired.is_none());
    set_desired(&device, Some(desired(3, 5))).await;
    device.withdraw(2).await;
    assert!(device.view().await.desired.is_some());
    assert_eq!(device.messages().await.len(), 2);
}

/// What arrives late for a connection that has ended does not come back to life.
pub async fn what_arrives_for_a_withdrawn_connection_is_gone(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.append(arrival(2, 1), &tied()).await;
    device.withdraw(2).await;
    for (id, arrives) in [
        (arrival(2, 1), tied()),
        (arrival(2, 2), tied()),
        (arrival(1, 9), device.method(1, "9")),
    ] {
        assert!(soon(device.append(id, &arrives).await).await.is_err());
    }
    assert_eq!(device.view().await.entries.len(), 0);
    device.append(arrival(2, 3), &untied()).await;
    device.append(arrival(3, 1), &tied()).await;
    assert_eq!(device.messages().await.len(), 2);
}

/// One more message than the bound is refused; methods do not count.
pub async fn messages_are_bounded(engine: Engine) {
    let device = engine.owned("dev1").await;
    let bound = engine.bounds.inbox_messages as u64;
    device.append(arrival(1, 999), &device.method(1, "1")).await;
    for number in 0..bound {
        device.append(arrival(1, number), &untied()).await;
    }
    let one_more = device.try_append(arrival(1, bound), &untied()).await;
    assert_eq!(one_more.err(), Some(AppendError::Full));
    device.append(arrival(1, 0), &untied()).await; // known, so no more
    assert_eq!(device.messages().await.len() as u64, bound);
    let token = &device.messages().await[0].token;
    assert!(device.settle(token, Settlement::Complete).await.is_ok());
    device.append(arrival(1, bound), &untied()).await;
    let one_more = device.try_append(arrival(1, bound + 1), &untied()).await;
    assert_eq!(one_more.err(), Some(AppendError::Full));
}

/// One more method than the bound is refused; messages do not count.
pub async fn methods_are_bounded(engine: Engine) {
    let device = engine.owned("dev1").await;
    let bound = engine.bounds.inbox_methods as u64;
    device.append(arrival(1, 999), &untied()).await;
    let method = |number: u64| device.method(1, &number.to_string());
    for number in 0..bound {
        device.append(arrival(1, number), &method(number)).await;
    }
    let one_more = device.try_append(arrival(1, bound), &method(bound)).await;
    assert_eq!(one_more.err(), Some(AppendError::Full));
    assert_eq!(device.methods().await.len() as u64, bound);
    claim(&device, 1, "0").await.expect("it waits");
    device.append(arrival(1, bound), &method(bound)).await;
}

/// As long as nobody said what became of a tied message at the hub, it counts.
pub async fn a_settled_message_keeps_its_place_until_concluded(engine: Engine) {
    let device = engine.owned("dev1").await;
    let bound = engine.bounds.inbox_messages as u64;
    for number in 0..bound {
        device.append(arrival(1, number), &tied()).await;
    }
    let token = &device.messages().await[0].token;
    assert!(device.settle(token, Settlement::Complete).await.is_ok());
    let one_more = device.try_append(arrival(1, bound), &tied()).await;
    assert_eq!(one_more.err(), Some(AppendError::Full));
    device.conclude(arrival(1, 0), Conclusion::Hub).await;
    device.append(arrival(1, bound), &tied()).await;
}

/// However many answer a method at the same time, one of them may.
pub async fn a_method_is_claimed_once(engine: Engine) {
    let device = Arc::new(engine.owned("dev1").await);
    let appended = device.append(arrival(1, 1), &device.method(1, "7")).await;
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let device = Arc::clone(&device);
        tasks.spawn(async move { claim(&device, 1, "7").await });
    }
    let results = soon(tasks.join_all()).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(
        lost.iter()
            .all(|claimed| *claimed == Err(SettleError::Lost))
    );
    assert_eq!(outcome(appended).await, Settlement::Complete);
    assert_eq!(device.methods().await.len(), 0);
}

/// A method past its deadline is not shown, and cannot be answered.
pub async fn a_method_past_its_deadline_is_lost(engine: Engine) {
    let device = engine.owned("dev1").await;
    let appended = device.append(arrival(1, 1), &device.method(1, "7")).await;
    engine.clock.advance(PATIENCE - Duration::from_millis(1));
    assert_eq!(device.methods().await.len(), 1);
    engine.clock.advance(Duration::from_millis(1));
    assert_eq!(device.methods().await.len(), 0);
    assert_eq!(claim(&device, 1, "7").await, Err(SettleError::Lost));
    assert!(soon(appended).await.is_err());
}

/// A method goes with the connection that it came on; one with the same number on the next connection is another.
pub async fn a_method_goes_with_its_connection(engine: Engine) {
    let device = engine.owned("dev1").await;
    device.append(arrival(1, 1), &device.method(1, "7")).await;
    device.withdraw(1).await;
    assert_eq!(device.methods().await.len(), 0);
    device.append(arrival(2, 1), &device.method(2, "7")).await;
    assert_eq!(claim(&device, 1, "7").await, Err(SettleError::Lost));
    assert_eq!(claim(&device, 2, "7").await, Ok(()));
}

/// A method that does not wait is lost, whatever the engine remembers of it.
pub async fn a_method_that_does_not_wait_is_lost(engine: Engine) {
    let device = engine.owned("dev1").await;
    assert_eq!(claim(&device, 1, "7").await, Err(SettleError::Lost));
    device.append(arrival(1, 1), &device.method(1, "7")).await;
    assert_eq!(claim(&device, 1, "8").await, Err(SettleError::Lost));
    assert_eq!(claim(&device, 2, "7").await, Err(SettleError::Lost));
    assert_eq!(claim(&device, 1, "7").await, Ok(()));
    engine.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(claim(&device, 1, "7").await, Err(SettleError::Lost));
}

/// The desired properties are one cell: the newest document, or none.
pub async fn the_newest_desired_properties_are_shown(engine: Engine) {
    let device = engine.owned("dev1").await;
    assert!(device.view().await.desired.is_none());
    for version in [3, 4] {
        set_desired(&device, Some(desired(1, version))).await;
        let shown = device.view().await.desired.expect("it is known");
        assert_eq!(shown.section.version, TwinVersion(version));
        assert_eq!(shown.connection, ConnectionEpoch(1));
    }
    set_desired(&device, None).await;
    assert!(device.view().await.desired.is_none());
}

/// Of a device's dead letters the newest are kept.
pub async fn the_newest_dead_letters_are_kept(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut rejected = Vec::new();
    for number in 0..engine.bounds.dead_letters as u64 + 3 {
        let (shown, _) = device.append_shown(arrival(1, number), &untied()).await;
        let settled = device.settle(&shown.token, Settlement::Reject).await;
        assert!(settled.is_ok());
        rejected.push(shown.sequence);
    }
    let letters = device.dead_letters().await;
    let kept: Vec<_> = letters.iter().map(|letter| letter.sequence).collect();
    assert_eq!(kept, rejected[3..]);
}

/// A dead letter is kept for a day, without what it said.
pub async fn a_dead_letter_is_kept_for_a_day(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut message = CloudMessage {
        payload: "secret".into(),
        ..CloudMessage::default()
    };
    message.system.message_id = Some("m-1".to_owned());
    let arrives = Arrival::Message {
        message: Arc::new(message),
        expires_at: None,
        is_tied: false,
    };
    let (shown, _) = device.append_shown(arrival(1, 1), &arrives).await;
    let settled = device.settle(&shown.token, Settlement::Reject).await;
    assert!(settled.is_ok());
    engine
        .clock
        .advance(DeadLetter::KEPT - Duration::from_millis(1));
    let letter = device.dead_letters().await.pop().expect("it is kept");
    assert_eq!(letter.message_id.as_deref(), Some("m-1"));
    assert_eq!(letter.bytes, 6);
    engine.clock.advance(Duration::from_millis(1));
    assert_eq!(device.dead_letters().await, []);
}

/// A dead letter is offered again, once and as a new message, by an engine that has kept what it said.
pub async fn a_dead_letter_is_replayed_once_or_was_not_kept(engine: Engine) {
    let device = engine.owned("dev1").await;
    let message = Arc::new(CloudMessage {
        payload: "again".into(),
        ..CloudMessage::default()
    });
    let arrives = Arrival::Message {
        message: Arc::clone(&message),
        expires_at: None,
        is_tied: false,
    };
    let (shown, _) = device.append_shown(arrival(1, 1), &arrives).await;
    let inbox = &engine.store.inbox;
    let replay = async |sequence| inbox.replay(&device.identity, sequence).await;
    assert_eq!(replay(shown.sequence).await, Err(ReplayError::Unknown));
    device
        .settle(&shown.token, Settlement::Reject)
        .await
        .expect("it is offered");

    let said = sure(|| inbox.dead_letter(&device.identity, shown.sequence)).await;
    let (letter, said) = said.expect("the engine is there").expect("it was rejected");
    assert_eq!(device.dead_letters().await, [letter]);
    let Some(said) = said else {
        assert_eq!(replay(shown.sequence).await, Err(ReplayError::NotKept));
        assert_eq!(device.dead_letters().await.len(), 1);
        return;
    };
    assert_eq!(said, message);
    assert_eq!(replay(shown.sequence).await, Ok(()));
    assert_eq!(replay(shown.sequence).await, Err(ReplayError::Unknown));
    assert_eq!(device.dead_letters().await, []);
    let again = device.messages().await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].message, message);
    assert_eq!(again[0].delivery_count, 0);
    assert!(again[0].sequence > shown.sequence && again[0].token != shown.token);
}

/// A dead letter that is discarded is gone.
pub async fn a_discarded_dead_letter_is_gone(engine: Engine) {
    let device = engine.owned("dev1").await;
    let mut letters = Vec::new();
    for number in 1..=2 {
        let (shown, _) = device.append_shown(arrival(1, number), &untied()).await;
        let settled = device.settle(&shown.token, Settlement::Reject).await;
        assert!(settled.is_ok());
        letters.push(shown.sequence);
    }
    let inbox = &engine.store.inbox;
    let discard = async |sequence| {
        let discarded = sure(|| inbox.discard(&device.identity, sequence)).await;
        discarded.expect("the engine is there")
    };
    discard(letters[0]).await;
    assert!(!discard(letters[0]).await);
    let left = device.dead_letters().await;
    let left: Vec<_> = left.iter().map(|letter| letter.sequence).collect();
    assert_eq!(left, letters[1..]);
    let said = sure(|| inbox.dead_letter(&device.identity, letters[0])).await;
    assert_eq!(said, Ok(None));
    assert_eq!(
        inbox.replay(&device.identity, letters[0]).await,
        Err(ReplayError::Unknown)
    );
}

/// The stock is what waits and what is a dead letter, of a device and of all devices of a partition.
pub async fn the_stock_of_the_inbox_is_what_there_is(engine: Engine) {
    let device = engine.owned("dev1").await;
    let (inbox, of) = (&engine.store.inbox, &device.identity);
    let stock = async || sure(|| inbox.stock_of(of)).await;
    assert_eq!(stock().await, Ok(Stock::default()));
    let came = engine.clock.timestamp();
    let (rejected, _) = device.append_shown(arrival(1, 1), &untied()).await;
    let settled = device.settle(&rejected.token, Settlement::Reject).await;
    assert!(settled.is_ok());
    let (shown, _) = device.append_shown(arrival(1, 2), &untied()).await;
    engine.clock.advance(Duration::from_secs(1));
    device.append_shown(arrival(1, 3), &untied()).await;
    let expected = Stock {
        waiting: 2,
        bytes: 2 * shown.message.size() as u64,
        oldest: Some(came),
        dead_letters: 1,
    };
    assert_eq!(stock().await, Ok(expected));
    let in_partition = sure(|| inbox.stock(device.lease.partition)).await;
    assert_eq!(in_partition, Ok(expected));
}

async fn receive(device: &Owned) -> Option<DeliveryLease> {
    let inbox = &device.engine.store.inbox;
    let received = inbox.receive(&device.identity, LOCK).await;
    received.expect("the engine is there")
}

async fn claim(device: &Owned, connection: u64, rid: &str) -> Result<(), SettleError> {
    let inbox = &device.engine.store.inbox;
    let request = method_id(connection, rid);
    inbox.claim_method(&device.identity, &request).await
}

async fn set_desired(device: &Owned, desired: Option<Desired>) {
    let inbox = &device.engine.store.inbox;
    sure(|| inbox.set_desired(&device.lease, &device.identity, desired.clone()))
        .await
        .expect("the lease stands");
}

async fn conclusion(settled: Result<Ticket<Conclusion>, SettleError>) -> Conclusion {
    outcome(settled.expect("the token stands")).await
}

fn desired(connection: u64, version: u64) -> Desired {
    Desired {
        section: Arc::new(Section {
            version: TwinVersion(version),
            ..Section::new()
        }),
        connection: ConnectionEpoch(connection),
    }
}

fn expiring(expires_at: Timestamp, is_tied: bool) -> Arrival {
    Arrival::Message {
        message: Arc::new(CloudMessage::default()),
        expires_at: Some(expires_at),
        is_tied,
    }
}
