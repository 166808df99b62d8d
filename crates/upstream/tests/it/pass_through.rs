//! Devices whose keys the gateway does not hold: the hub judges.

use std::time::Duration;

use iothub::{
    Identity, Timestamp,
    sas::{self, Key},
};
use store::{Demand, Done, Failure, ReceiptState, SessionState, Verdict};
use tokio::time::advance;
use upstream::config::{DeviceConfig, KeySource, VaultConfig};

use crate::{
    hub::{Connection, NAME, Packet},
    rig::{KEY, Rig, dev1, in_seconds, soon, stop_clock, telemetry, token},
};

const DEV1: &str = "hub.example/devices/dev1";

/// A hub whose devices are all passed through.
async fn rig() -> Rig {
    Rig::with(|config| {
        config.devices.clear();
        config.hubs[0].pass_through = true;
    })
    .await
}

/// A session that was opened with this token, as long as the demand lives.
async fn up_with(rig: &Rig, token: &str) -> (Connection, Demand) {
    let demand = rig.demand(false, false).await;
    let (verdict, connection) = tokio::join!(rig.judge(token), async {
        let (mut connection, connect) = rig.hub.connect().await;
        assert_eq!(connect.password, token);
        connection.connack(false, 0).await;
        connection
    });
    assert!(matches!(verdict, Verdict::Accepted { .. }), "{verdict:?}");
    (connection, demand)
}

/// Answers the one probe that the judging of a token is to bring about.
async fn judge_by_probe(rig: &Rig, token: &str, status: u16, code: Option<&str>) -> Verdict {
    let (verdict, ()) = tokio::join!(rig.judge(token), async {
        let request = rig.hub.request().await;
        assert_eq!(request.authorization, token);
        let start = "DELETE /devices/dev1/messages/deviceBound/";
        assert!(request.line.starts_with(start), "{}", request.line);
        request.answer(status, code).await;
    });
    verdict
}

fn is_accepted(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Accepted { .. })
}

#[tokio::test]
async fn the_first_token_opens_the_session_and_its_device_becomes_known() {
    let rig = rig().await;
    assert_eq!(rig.store.registry.device(&dev1()).await, Ok(None));
    let token = token(DEV1, 600);
    let (mut connection, _demand) = up_with(&rig, &token).await;
    let record = rig.store.registry.device(&dev1()).await.unwrap();
    assert!(!record.expect("it is known").is_pinned);

    // The same token again, and work: nobody else is asked.
    let again = connection.serve_until(rig.judge(&token)).await;
    assert!(is_accepted(again));
    let ticket = rig.send("x").await;
    let (_, payload, packet_id) = connection.next_publish().await;
    assert_eq!(payload, b"x");
    connection.puback(packet_id.unwrap()).await;
    assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
    assert!(!rig.hub.has_visitor().await);
}

#[tokio::test]
async fn what_the_hub_refuses_is_refused_and_leaves_no_session() {
    let rig = rig().await;
    let wrong = token(DEV1, 600);
    let (verdict, ()) = tokio::join!(rig.judge(&wrong), async {
        let (mut connection, _) = rig.hub.connect().await;
        connection.connack(false, 5).await;
        connection.until_end().await;
    });
    assert_eq!(verdict, Verdict::Refused);
    rig.until(SessionState::Closed).await;
    // It is remembered.
    assert_eq!(rig.judge(&wrong).await, Verdict::Refused);
    assert!(!rig.hub.has_visitor().await);
    assert_eq!(rig.store.registry.device(&dev1()).await, Ok(None));
    // The right one need not wait for a back-off.
    let _right = up_with(&rig, &token(DEV1, 601)).await;
}

#[tokio::test]
async fn nothing_leaves_that_is_no_token_for_exactly_this_identity() {
    let rig = rig().await;
    let policy = Key::from_base64(KEY).unwrap();
    let policy = policy.sign(DEV1, Some("device"), in_seconds(600));
    let good = token(DEV1, 600);
    for (why, token) in [
        ("over", token(DEV1, -1)),
        ("over at this second", token(DEV1, 0)),
        ("another device", token("hub.example/devices/dev2", 600)),
        ("a prefix", token("hub.example/devices", 600)),
        ("the hub", token("hub.example", 600)),
        (
            "one of its modules",
            token("hub.example/devices/dev1/modules/m", 600),
        ),
        ("another hub", token("other.example/devices/dev1", 600)),
        ("the gateway", token("localhost/devices/dev1", 600)),
        ("a policy", policy),
        ("a short signature", good.replace("sig=", "sig=AAAA&was=")),
        ("a line break", format!("{good}\r\nx: y")),
        ("very long", format!("{good}&x={}", "x".repeat(2048))),
        ("nothing", String::new()),
    ] {
        let verdict = rig.judge(&token).await;
        assert_eq!(verdict, Verdict::Refused, "{why}");
    }
    let elsewhere = Identity::device("other.example".parse().unwrap(), "dev1".parse().unwrap());
    let for_elsewhere = token("other.example/devices/dev1", 600);
    let verdict = rig.judge_for(&elsewhere, &for_elsewhere).await;
    assert_eq!(verdict, Verdict::UnknownDevice);
    assert!(!rig.hub.has_visitor().await);
}

#[tokio::test]
async fn another_token_is_judged_beside_the_session() {
    let rig = rig().await;
    let (mut connection, _demand) = up_with(&rig, &token(DEV1, 600)).await;
    let undisturbed = async {
        for (seconds, status, code, expected) in [
            (601, 401, Some("IotHubUnauthorizedAccess"), Verdict::Refused),
            (602, 404, Some("DeviceNotFound"), Verdict::Refused),
            (603, 403, Some("DeviceDisabled"), Verdict::Refused),
            (604, 503, Some("ServiceUnavailable"), Verdict::Undecided),
            (605, 404, None, Verdict::Undecided),
        ] {
            let verdict = judge_by_probe(&rig, &token(DEV1, seconds), status, code).await;
            assert_eq!(verdict, expected, "{status}");
        }
        let good = token(DEV1, 700);
        let verdict = judge_by_probe(&rig, &good, 412, Some("DeviceMessageLockLost")).await;
        assert!(is_accepted(verdict));
        assert!(is_accepted(rig.judge(&good).await), "remembered");
        assert!(!rig.hub.has_visitor().await);
    };
    connection.serve_until(undisturbed).await;
}

#[tokio::test]
async fn all_who_ask_about_one_token_wait_for_one_answer() {
    let rig = rig().await;
    let (mut connection, _demand) = up_with(&rig, &token(DEV1, 600)).await;
    let other = token(DEV1, 700);
    let asking = async {
        let (a, b, c, ()) = tokio::join!(
            rig.judge(&other),
            rig.judge(&other),
            rig.judge(&other),
            async {
                let request = rig.hub.request().await;
                assert!(!rig.hub.has_visitor().await, "one question");
                request.answer(204, None).await;
            }
        );
        assert!([a, b, c].into_iter().all(is_accepted));
        assert!(!rig.hub.has_visitor().await);
    };
    connection.serve_until(asking).await;
}

#[tokio::test]
async fn who_does_not_wait_for_the_answer_does_not_spoil_it() {
    let rig = rig().await;
    let (mut connection, _demand) = up_with(&rig, &token(DEV1, 600)).await;
    let other = token(DEV1, 700);
    let asking = async {
        let request = tokio::select! {
            _ = rig.judge(&other) => unreachable!("the hub has not answered"),
            request = rig.hub.request() => request,
        };
        let (verdict, ()) = tokio::join!(rig.judge(&other), request.answer(204, None));
        assert!(is_accepted(verdict));
    };
    connection.serve_until(asking).await;
}

#[tokio::test]
async fn a_hub_that_is_away_decides_nothing_and_opens_nothing() {
    let rig = Rig::with(|config| {
        config.devices = vec![DeviceConfig::passed_through("dev1".parse().unwrap())];
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        config.hubs[0].address = Some(address.parse().unwrap());
    })
    .await;
    let token = token(DEV1, 600);
    assert_eq!(rig.judge(&token).await, Verdict::Undecided);
    rig.until(SessionState::Closed).await;
    assert_eq!(rig.judge(&token).await, Verdict::Undecided);
}

#[tokio::test]
async fn a_token_that_the_hub_no_longer_takes_is_no_longer_trusted() {
    let rig = rig().await;
    let token = token(DEV1, 600);
    let (connection, _demand) = up_with(&rig, &token).await;
    drop(connection);
    let (mut connection, connect) = rig.hub.connect().await;
    assert_eq!(connect.password, token);
    // Trusted while nothing else is known.
    assert!(is_accepted(rig.judge(&token).await));
    let ticket = rig.send("x").await;
    connection.connack(false, 5).await;
    assert_eq!(soon(ticket).await, Ok(Err(Failure::CredentialRefused)));
    assert_eq!(rig.judge(&token).await, Verdict::Refused);
}

#[tokio::test]
async fn a_module_is_passed_through_by_its_own_token() {
    let rig = rig().await;
    let module = Identity::module(
        NAME.parse().unwrap(),
        "dev1".parse().unwrap(),
        "m".parse().unwrap(),
    );
    let resource = "hub.example/devices/dev1/modules/m";
    let devices_own = token(DEV1, 600);
    assert_eq!(rig.judge_for(&module, &devices_own).await, Verdict::Refused);
    let needs = store::Needs::default();
    let _demand = rig.store.signals.demand(&module, needs).await.unwrap();
    let own = token(resource, 600);
    let (verdict, mut connection) = tokio::join!(rig.judge_for(&module, &own), async {
        let (mut connection, connect) = rig.hub.connect().await;
        assert_eq!(connect.client_id, "dev1/m");
        connection.connack(false, 0).await;
        connection
    });
    assert!(is_accepted(verdict));

    // Another one is judged beside the session, by a call that modules have.
    let undisturbed = async {
        // A hub that finds fault with the batch whoever sends it has not said anything of the token.
        let careless = [
            (400, Some("ArgumentInvalid")),
            (400, Some("ArgumentInvalid")),
        ];
        let other = token(resource, 700);
        let verdict = judge_module(&rig, &module, &other, &careless).await;
        assert_eq!(verdict, Verdict::Undecided);
        let (status, code) = (401, Some("IotHubUnauthorizedAccess"));
        let wrong = token(resource, 701);
        let verdict = judge_module(&rig, &module, &wrong, &[(status, code)]).await;
        assert_eq!(verdict, Verdict::Refused);
        let careful = [(400, Some("ArgumentInvalid")), (status, code)];
        let verdict = judge_module(&rig, &module, &other, &careful).await;
        assert!(is_accepted(verdict));
        // From here on it is known that this hub looks at the token first.
        let next = token(resource, 702);
        let verdict = judge_module(&rig, &module, &next, &careful[..1]).await;
        assert!(is_accepted(verdict));
        let wrong = token(resource, 703);
        let verdict = judge_module(&rig, &module, &wrong, &[(status, code)]).await;
        assert_eq!(verdict, Verdict::Refused);
        assert!(!rig.hub.has_visitor().await);
    };
    connection.serve_until(undisturbed).await;
}

/// Answers the questions that the judging of a module's token is to bring about: the first is asked with the token, the
/// second with one that nobody has made.
async fn judge_module(
    rig: &Rig,
    module: &Identity,
    token: &str,
    answers: &[(u16, Option<&str>)],
) -> Verdict {
    let (verdict, ()) = tokio::join!(rig.judge_for(module, token), async {
        for (place, (status, code)) in answers.iter().enumerate() {
            let request = rig.hub.request().await;
            let start = "POST /devices/dev1/modules/m/messages/events?";
            assert!(request.line.starts_with(start), "{}", request.line);
            assert_eq!(request.body, b"[]");
            assert_eq!(request.authorization == token, place == 0);
            let forged = sas::Token::parse(&request.authorization).unwrap();
            let key = Key::from_base64(KEY).unwrap();
            assert_eq!(forged.is_signed_by(&key), place == 0);
            request.answer(*status, *code).await;
        }
    });
    verdict
}

#[tokio::test]
async fn the_session_moves_to_a_newer_token_when_its_own_is_about_to_end() {
    let _clock = stop_clock();
    let rig = Rig::with(|config| {
        config.devices.clear();
        config.hubs[0].pass_through = true;
        config.keep_alive = Duration::from_secs(19 * 60);
    })
    .await;
    let (mut old, _demand) = up_with(&rig, &token(DEV1, 600)).await;
    calm_down(&rig, &mut old).await;
    advance(Duration::from_secs(1)).await;
    let newer = token(DEV1, 3600);
    let judged = old
        .serve_until(judge_by_probe(&rig, &newer, 412, None))
        .await;
    assert!(is_accepted(judged));
    calm_down(&rig, &mut old).await;
    advance(Duration::from_secs(4 * 60)).await;
    // Not yet: the old connection serves.
    calm_down(&rig, &mut old).await;

    advance(Duration::from_secs(2 * 60)).await;
    let (packets, (mut fresh, connect)) = tokio::join!(old.until_end(), rig.hub.connect());
    assert_eq!(packets.last(), Some(&Packet::Disconnect));
    assert_eq!(connect.password, newer);
    fresh.connack(true, 0).await;
    calm_down(&rig, &mut fresh).await;
}

#[tokio::test]
async fn a_newer_token_that_comes_late_is_moved_to_at_once() {
    let _clock = stop_clock();
    let rig = Rig::with(|config| {
        config.devices.clear();
        config.hubs[0].pass_through = true;
        config.keep_alive = Duration::from_secs(19 * 60);
    })
    .await;
    let (mut old, _demand) = up_with(&rig, &token(DEV1, 600)).await;
    calm_down(&rig, &mut old).await;
    // From five minutes on it looks for one to move to, more and more rarely.
    for _ in 0..7 {
        advance(Duration::from_secs(60)).await;
        calm_down(&rig, &mut old).await;
    }

    let newer = token(DEV1, 3600);
    let judged = old
        .serve_until(judge_by_probe(&rig, &newer, 412, None))
        .await;
    assert!(is_accepted(judged));
    let (_, (_fresh, connect)) = tokio::join!(old.until_end(), rig.hub.connect());
    assert_eq!(connect.password, newer);
}

/// See the same function in `time.rs`.
async fn calm_down(rig: &Rig, connection: &mut Connection) {
    for _ in 0..2 {
        let ticket = rig.submit(telemetry("x"), crate::rig::LONG).await;
        let (_, _, packet_id) = connection.next_publish().await;
        connection.puback(packet_id.unwrap()).await;
        assert!(soon(ticket).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn strangers_are_asked_about_slowly_and_do_not_keep_known_devices_waiting() {
    let rig = Rig::with(|config| {
        config.hubs[0].pass_through = true;
        config.hubs[0].connects_per_second = 1000.try_into().unwrap();
    })
    .await;
    let strangers: Vec<_> = (0..30)
        .map(|n| {
            let id = format!("stranger-{n}").parse().unwrap();
            Identity::device(NAME.parse().unwrap(), id)
        })
        .collect();
    let judging = async {
        let mut judged = tokio::task::JoinSet::new();
        for identity in strangers {
            let judge = rig.store.judge.clone();
            let token = token(&sas::resource(&identity), 600).into();
            judged.spawn(async move { judge.judge(&identity, &token).await });
        }
        while let Some(verdict) = judged.join_next().await {
            assert_eq!(verdict.unwrap(), Ok(Verdict::Refused));
        }
    };
    let hub = async {
        let mut served_after = None;
        for strangers in 0..31 {
            let (mut connection, connect) = rig.hub.connect().await;
            if connect.client_id == "dev1" {
                served_after = Some(strangers);
            }
            connection.connack(false, 5).await;
        }
        served_after.expect("dev1 came as well")
    };
    let begun = std::time::Instant::now();
    let known = async {
        tokio::task::yield_now().await;
        rig.send("x").await.await
    };
    let ((), served_after, outcome) = tokio::join!(judging, hub, known);
    assert_eq!(outcome, Ok(Err(Failure::CredentialRefused)));
    assert!(served_after <= 3, "after {served_after} strangers");
    assert!(
        begun.elapsed() >= Duration::from_millis(280),
        "a hundred in a second"
    );
}

/// The same hub, a store with a disk, and a vault.
async fn with_vault() -> Rig {
    leaks::mark_key("vault key", VAULT_KEY);
    Rig::durable_with(|config| {
        config.devices.clear();
        config.hubs[0].pass_through = true;
        config.vault = Some(VaultConfig {
            key: KeySource::Text(VAULT_KEY.into()),
            older_keys: Vec::new(),
        });
    })
    .await
}

async fn kept(rig: &Rig) -> Option<Timestamp> {
    rig.store.judge.keep(&dev1()).await.unwrap()
}

#[tokio::test]
async fn what_is_stored_is_delivered_after_a_restart_with_the_token_that_is_kept() {
    let mut rig = with_vault().await;
    assert_eq!(kept(&rig).await, None, "nobody has shown one");
    let token = token(DEV1, 600);
    let (connection, demand) = up_with(&rig, &token).await;
    assert_eq!(kept(&rig).await, Some(end_of(&token)));
    drop((connection, demand));
    let (receipt, _ticket) = rig.store(telemetry("x")).await;
    rig.restart().await;

    assert_eq!(
        kept(&rig).await,
        Some(end_of(&token)),
        "nobody shows it again"
    );
    let (mut connection, connect) = rig.hub.connect().await;
    assert_eq!(connect.password, token);
    connection.connack(false, 0).await;
    let (_, payload, packet_id) = connection.next_publish().await;
    assert_eq!(payload, b"x");
    connection.puback(packet_id.unwrap()).await;
    let acknowledged = async || {
        let state = rig.receipt(receipt).await;
        matches!(state, ReceiptState::Acknowledged { .. })
    };
    connection.serve_until(until(acknowledged)).await;
}

#[tokio::test]
async fn a_kept_token_that_the_hub_refuses_keeps_nothing() {
    let mut rig = with_vault().await;
    let old = token(DEV1, 600);
    let (connection, demand) = up_with(&rig, &old).await;
    assert!(kept(&rig).await.is_some());
    drop((connection, demand));
    let (receipt, _ticket) = rig.store(telemetry("x")).await;
    rig.restart().await;

    let (mut connection, connect) = rig.hub.connect().await;
    assert_eq!(connect.password, old);
    connection.connack(false, 5).await;
    rig.until(SessionState::Refused).await;
    assert_eq!(kept(&rig).await, None);
    let credential = rig.store.registry.credential(&dev1()).await;
    assert_eq!(credential, Ok(None), "it is forgotten for good");
    assert_eq!(
        rig.receipt(receipt).await,
        ReceiptState::WaitingForCredential
    );

    // Another one, though it ends sooner, takes its place.
    let other = token(DEV1, 500);
    let (mut connection, _demand) = up_with(&rig, &other).await;
    assert_eq!(kept(&rig).await, Some(end_of(&other)));
    let (_, payload, _) = connection.next_publish().await;
    assert_eq!(payload, b"x");
}

/// Whoever makes up a token opens no session with the one that is kept.
#[tokio::test]
async fn a_strangers_token_is_judged_beside_what_is_kept() {
    let mut rig = with_vault().await;
    let good = token(DEV1, 600);
    let (connection, demand) = up_with(&rig, &good).await;
    assert!(kept(&rig).await.is_some());
    drop((connection, demand));
    rig.restart().await;

    let strange = token(DEV1, 700);
    let verdict = judge_by_probe(&rig, &strange, 401, Some("IotHubUnauthorizedAccess")).await;
    assert_eq!(verdict, Verdict::Refused);
    assert!(!rig.hub.has_visitor().await);
    assert_eq!(kept(&rig).await, Some(end_of(&good)));
}

#[tokio::test]
async fn the_token_that_ends_last_is_kept() {
    let rig = with_vault().await;
    let [first, last, between] = [600, 900, 800].map(|seconds| token(DEV1, seconds));
    let (mut connection, _demand) = up_with(&rig, &first).await;
    let kept_with = async |token| {
        let verdict = judge_by_probe(&rig, token, 412, Some("DeviceMessageLockLost")).await;
        assert!(is_accepted(verdict));
        kept(&rig).await
    };
    let undisturbed = async {
        assert_eq!(kept(&rig).await, Some(end_of(&first)));
        assert_eq!(kept_with(&last).await, Some(end_of(&last)));
        assert_eq!(kept_with(&between).await, Some(end_of(&last)));
    };
    connection.serve_until(undisturbed).await;
}

#[tokio::test]
async fn without_a_vault_and_with_a_key_no_token_is_kept() {
    let rig = Rig::durable_with(|config| {
        config.devices.clear();
        config.hubs[0].pass_through = true;
    })
    .await;
    let _up = up_with(&rig, &token(DEV1, 600)).await;
    assert_eq!(kept(&rig).await, None);
    assert_eq!(rig.store.registry.credential(&dev1()).await, Ok(None));

    let delegated = Rig::durable_with(|config| {
        config.vault = Some(VaultConfig {
            key: KeySource::Text(VAULT_KEY.into()),
            older_keys: Vec::new(),
        });
    })
    .await;
    assert_eq!(kept(&delegated).await, None);
}

fn end_of(token: &str) -> Timestamp {
    sas::Token::parse(token).unwrap().expires_at()
}

/// Waits until something is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    while !is_so().await {
        tokio::task::yield_now().await;
    }
}

const VAULT_KEY: &str = "dmF1bHQta2V5LXZhdWx0LWtleS12YXVsdC1rZXktMzI=";
