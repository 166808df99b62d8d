//! What the contract does not promise, and this engine does: the registry file, and going away.

use std::{fs, path::Path, sync::Arc};

use futures_util::FutureExt as _;
use iothub::{DeviceId, MethodName, MethodRequest, Telemetry};

use super::*;
use crate::{
    Arrival, ArrivalId, ConnectionEpoch, DeadLetter, Failure, Inbox as _, Lane, LaneSet,
    Leases as _, LockToken, MethodRequestId, Needs, NodeId, Outbox as _, OutboxReader,
    PutTokenError, Scope, Scopes, Settlement, Signals as _, StoreError, Submission, SubmissionId,
    SubmitError, Survival, TokenHash, TokenId, TokenOrigin, TokenRecord, Work,
    conformance::ManualClock,
};

#[tokio::test]
async fn tokens_survive_a_restart_and_revoked_ones_stay_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.jsonl");
    let (kept, revoked) = (bought("kept"), token("revoked"));

    let store = open(with_file(&path)).unwrap();
    store.registry.put_token(kept.clone()).await.unwrap();
    store.registry.put_token(revoked.clone()).await.unwrap();
    let revoke = store.registry.revoke_token(&revoked.identity, &revoked.id);
    assert!(revoke.await.unwrap());
    drop(store);

    let store = open(with_file(&path)).unwrap();
    let found = store.registry.token(&kept.hash).await.unwrap();
    assert_eq!(found, Some(kept.clone()));
    assert_eq!(store.registry.token(&revoked.hash).await.unwrap(), None);
    assert_eq!(store.registry.tokens(&kept.identity).await.unwrap(), [kept]);
}

#[tokio::test]
async fn the_registry_file_has_this_form_and_no_token_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.jsonl");
    let store = open(with_file(&path)).unwrap();
    store.registry.put_token(token("secret")).await.unwrap();
    store.registry.put_token(bought("secret2")).await.unwrap();

    // Written by hand. The hash: printf secret | openssl dgst -sha256 -binary | base64
    let golden = concat!(
        r#"{"format":"tombolo-tokens","version":1}"#,
        "\n",
        r#"{"id":"t-secret","hub":"hub.example","device":"dev1","#,
        r#""hash":"K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=","created_at":"1970-01-01T00:01:40Z"}"#,
        "\n",
        r#"{"id":"t-secret2","hub":"hub.example","device":"dev1","#,
        r#""hash":"NSJNDTRl106FX41poTbnnHROo1pnXTOTNgoyfL9jWaI=","created_at":"1970-01-01T00:01:40Z","#,
        r#""scopes":["telemetry","twin"],"origin":{"token":"K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols="}}"#,
        "\n",
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), golden);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "nothing is left beside it");
}

#[tokio::test]
async fn ended_tokens_leave_the_registry_file_and_one_too_many_does_not_enter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.jsonl");
    let clock = ManualClock::new();
    let config = Config {
        tokens: 2,
        ..with_file(&path)
    };
    let store = open_with_clock(config, Arc::new(clock.clone())).unwrap();
    let ending = TokenRecord {
        expires_at: Some(clock.timestamp().saturating_add(Duration::from_secs(1))),
        ..token("ending")
    };
    store.registry.put_token(ending).await.unwrap();
    store.registry.put_token(token("one")).await.unwrap();
    let full = fs::read_to_string(&path).unwrap();
    let too_many = store.registry.put_token(token("two")).await;
    assert_eq!(too_many, Err(PutTokenError::TooMany { limit: 2 }));
    assert_eq!(fs::read_to_string(&path).unwrap(), full);

    clock.advance(Duration::from_secs(1));
    store.registry.put_token(token("two")).await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("t-ending") && text.contains("t-one") && text.contains("t-two"));
}

#[test]
fn a_damaged_registry_file_refuses_the_start_by_name_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.jsonl");
    let header = "{\"format\":\"tombolo-tokens\",\"version\":1}\n";
    for (text, bad_line) in [
        (String::new(), 1),
        ("\0\0\0".to_owned(), 1),
        (format!("{header}{{\"id\":\"x\"}}\n"), 2),
        (format!("{header}{{\"id\":\"x\",\"hub\":\"h"), 2),
        (format!("{header}\n"), 2),
    ] {
        fs::write(&path, &text).unwrap();
        let Err(OpenError::Damaged {
            line, path: named, ..
        }) = open(with_file(&path))
        else {
            panic!("{text:?} is no registry file")
        };
        assert_eq!((line, named.as_path()), (bad_line, path.as_path()));
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "it is left alone");
    }

    fs::write(&path, "{\"format\":\"tombolo-tokens\",\"version\":2}\n").unwrap();
    let error = open(with_file(&path)).err().expect("version 2 is unknown");
    assert!(matches!(error, OpenError::Version { version: 2, .. }));
    assert!(error.to_string().contains("tokens.jsonl"));
}

#[test]
fn a_registry_file_that_cannot_be_made_is_found_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent").join("tokens.jsonl");
    assert!(matches!(
        open(with_file(&path)),
        Err(OpenError::Make { .. })
    ));
}

#[tokio::test]
async fn a_failed_write_leaves_the_tokens_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let store = open(with_file(&inner.join("tokens.jsonl"))).unwrap();
    fs::remove_dir_all(&inner).unwrap();

    let record = token("late");
    let put = store.registry.put_token(record.clone()).await;
    assert_eq!(put, Err(StoreError::Unavailable.into()));
    assert_eq!(store.registry.token(&record.hash).await.unwrap(), None);
}

#[tokio::test]
async fn makes_no_promise_that_it_cannot_keep() {
    let (memory, _) = memory(Config::default());
    let mut submission = telemetry(&memory, 1);
    submission.survival = Survival::Durable;
    let submitted = memory.submit(submission).await;
    assert_eq!(
        submitted.err(),
        Some(SubmitError::Store(StoreError::Volatile))
    );
    let persisted = memory.persist(&identity("dev1"), SubmissionId(1)).await;
    assert_eq!(persisted, Err(StoreError::Volatile.into()));
}

/// The contract lets a wait end for nothing; this engine's does not, so a full telemetry window costs no spinning.
#[tokio::test]
async fn a_lane_whose_reader_is_full_does_not_end_its_wait() {
    let (memory, _) = memory(Config::default());
    let device = identity("dev1");
    let mut reader = open_lanes(&memory, &device).await;
    for id in 1..=3 {
        memory.submit(telemetry(&memory, id)).await.unwrap();
    }
    let taken = reader.take(Lane::Telemetry, 2).await.unwrap();
    assert_eq!(reader.ready().now_or_never(), None);
    memory.submit(telemetry(&memory, 4)).await.unwrap();
    assert_eq!(reader.ready().now_or_never(), None);
    let outcome = Err(Failure::HubUnavailable);
    reader.settle(taken[0].id, outcome).await.unwrap();
    assert_eq!(
        reader.ready().now_or_never(),
        Some(LaneSet::from_iter([Lane::Telemetry]))
    );
    reader.take(Lane::Telemetry, 9).await.unwrap();
    assert_eq!(reader.ready().now_or_never(), None);
}

/// The contract lets a wake-up be missing; this engine's are not.
#[tokio::test]
async fn a_waiting_reader_that_is_out_is_woken() {
    let (memory, _) = memory(Config::default());
    let device = identity("dev1");
    let mut older = open_lanes(&memory, &device).await;
    let mut ready = Box::pin(older.ready());
    assert_eq!((&mut ready).now_or_never(), None);
    let _newer = open_lanes(&memory, &device).await;
    assert_eq!(ready.now_or_never(), Some(LaneSet::ALL));
}

#[tokio::test]
async fn looking_at_unknown_devices_makes_no_cells() {
    let (memory, _) = memory(Config::default());
    let probed = identity("probed");
    let token = LockToken::from_text("0f8fad5b-d9cb-469f-a165-70867728950e");
    memory.read(&probed).await.unwrap();
    memory.receive(&probed, Duration::ZERO).await.unwrap();
    memory.status(&probed).await.unwrap();
    let settled = memory.settle(&probed, &token, Settlement::Complete).await;
    assert!(settled.is_err());
    assert_eq!(cells(&memory), 0);
}

#[tokio::test]
async fn a_cell_goes_when_nobody_holds_it_and_it_holds_nothing() {
    let (memory, clock) = memory(Config::default());
    let device = identity("dev1");
    let watch = memory.watch(&device).await.unwrap();
    let demand = memory.demand(&device, Needs::default()).await.unwrap();
    memory.0.tidy_all(memory.0.now());
    assert_eq!(cells(&memory), 1);

    drop((watch, demand));
    let ticket = memory.submit(telemetry(&memory, 1)).await.unwrap();
    assert_eq!(memory.next_wanted(&NodeId::new("a")).await, Ok(device));
    clock.advance(Duration::from_secs(6));
    memory.0.tidy_all(memory.0.now());
    assert_eq!(ticket.await.unwrap(), Err(Failure::NoSession));
    assert_eq!(cells(&memory), 1, "the outcome is remembered for a while");
    assert_eq!(memory.0.outbox_bytes.load(Ordering::Relaxed), 0);

    clock.advance(MEMORY_OF_OUTCOMES);
    memory.0.tidy_all(memory.0.now());
    assert_eq!(cells(&memory), 0);
}

#[tokio::test]
async fn a_full_outbox_gives_up_what_is_overdue_at_other_devices() {
    let size = telemetry_work().size();
    let (memory, clock) = memory(Config {
        outbox_bytes_in_all: size,
        ..Config::default()
    });
    let forgotten = memory.submit(telemetry(&memory, 1)).await.unwrap();
    let mut other = telemetry(&memory, 2);
    other.identity = identity("dev2");
    let refused = memory.submit(other.clone()).await;
    assert_eq!(refused.err(), Some(SubmitError::Full));

    clock.advance(Duration::from_secs(6));
    other.survival = telemetry(&memory, 2).survival;
    memory.submit(other).await.unwrap();
    assert_eq!(forgotten.await.unwrap(), Err(Failure::NoSession));
}

#[tokio::test]
async fn a_sequence_never_goes_back_even_when_its_cell_went() {
    let (memory, clock) = memory(Config::default());
    let device = identity("dev1");
    let node = NodeId::new("a");
    let lease = memory.acquire(&node, Partition::of(&device)).await.unwrap();
    let mut newest = 0;
    for number in 0..3 {
        let id = ArrivalId {
            connection: ConnectionEpoch(1),
            number,
        };
        let arrival = Arrival::Message {
            message: Arc::default(),
            expires_at: None,
            is_tied: false,
        };
        memory.append(&lease, &device, id, arrival).await.unwrap();
        let delivery = memory
            .receive(&device, Duration::from_secs(1))
            .await
            .unwrap();
        let entry = delivery.expect("it was appended").entry;
        assert!(entry.sequence > newest);
        newest = entry.sequence;
        let settled = memory.settle(&device, &entry.token, Settlement::Complete);
        settled.await.unwrap();

        clock.advance(MEMORY_OF_OUTCOMES);
        memory.0.tidy_all(memory.0.now());
        assert_eq!(cells(&memory), 0);
    }
}

#[tokio::test]
async fn a_dead_letter_keeps_its_cell_for_a_day() {
    let (memory, clock) = memory(Config::default());
    let device = identity("dev1");
    let node = NodeId::new("a");
    let lease = memory.acquire(&node, Partition::of(&device)).await.unwrap();
    let id = ArrivalId {
        connection: ConnectionEpoch(1),
        number: 1,
    };
    let arrival = Arrival::Message {
        message: Arc::default(),
        expires_at: Some(clock.timestamp()),
        is_tied: false,
    };
    memory.append(&lease, &device, id, arrival).await.unwrap();
    memory.0.tidy_all(memory.0.now());
    clock.advance(DeadLetter::KEPT - Duration::from_secs(1));
    memory.0.tidy_all(memory.0.now());
    assert_eq!(cells(&memory), 1);
    clock.advance(Duration::from_secs(1));
    memory.0.tidy_all(memory.0.now());
    assert_eq!(cells(&memory), 0);
}

#[tokio::test]
async fn a_request_that_comes_twice_is_one_method() {
    let (memory, clock) = memory(Config::default());
    let device = identity("dev1");
    let node = NodeId::new("a");
    let lease = memory.acquire(&node, Partition::of(&device)).await.unwrap();
    let connection = ConnectionEpoch(1);
    let request = MethodRequestId {
        connection,
        rid: iothub::topic::RequestId::new("1").unwrap(),
    };
    let arrival = || Arrival::Method {
        id: request.clone(),
        request: MethodRequest {
            name: "m".parse::<MethodName>().unwrap(),
            payload: Default::default(),
        },
        deadline: clock.instant() + Duration::from_secs(30),
        deadline_at: clock.timestamp(),
    };
    let id = |number| ArrivalId { connection, number };
    memory
        .append(&lease, &device, id(1), arrival())
        .await
        .unwrap();
    memory
        .append(&lease, &device, id(2), arrival())
        .await
        .unwrap();
    assert_eq!(memory.read(&device).await.unwrap().entries.len(), 1);
    memory.claim_method(&device, &request).await.unwrap();
    memory
        .append(&lease, &device, id(3), arrival())
        .await
        .unwrap();
    assert_eq!(memory.read(&device).await.unwrap().entries.len(), 0);
}

#[test]
fn an_idle_device_takes_well_under_a_kibibyte() {
    // The cell, its place in the map, and the counters of its `Arc`.
    let bytes = size_of::<Cell>() + size_of::<(Identity, Arc<Cell>)>() * 2 + 16;
    assert!(bytes <= 800, "{bytes}");
}

#[test]
fn the_configuration_knows_its_keys() {
    let config: Config = serde_json::from_str(r#"{"inbox_messages": 7}"#).unwrap();
    assert_eq!(config.inbox_messages, 7);
    assert_eq!(config.outbox_entries, Config::default().outbox_entries);
    assert!(serde_json::from_str::<Config>(r#"{"inbox_mesages": 7}"#).is_err());
    assert!(serde_json::from_str::<Config>(r#"{"max_delivery_count": 0}"#).is_err());
}

fn memory(config: Config) -> (Memory, ManualClock) {
    let clock = ManualClock::new();
    let engine = Engine::open(config, Arc::new(clock.clone())).unwrap();
    (Memory(Arc::new(engine)), clock)
}

async fn open_lanes(memory: &Memory, device: &Identity) -> Box<dyn OutboxReader> {
    let node = NodeId::new("a");
    let lease = memory.acquire(&node, Partition::of(device)).await.unwrap();
    memory.open(&lease, device).await.unwrap()
}

fn cells(memory: &Memory) -> usize {
    (0..Partition::COUNT)
        .filter_map(Partition::from_number)
        .map(|partition| memory.0.cells.in_partition(partition).len())
        .sum()
}

fn with_file(path: &Path) -> Config {
    Config {
        registry_file: Some(path.to_owned()),
        ..Config::default()
    }
}

fn identity(device: &str) -> Identity {
    let device: DeviceId = device.parse().unwrap();
    Identity::device("hub.example".parse().unwrap(), device)
}

fn token(text: &str) -> TokenRecord {
    TokenRecord {
        id: TokenId(format!("t-{text}")),
        identity: identity("dev1"),
        hash: TokenHash::of(text),
        created_at: Timestamp::from_unix_seconds(100),
        expires_at: None,
        scopes: Scopes::ALL,
        origin: TokenOrigin::Operator,
    }
}

/// A token that was bought with another one.
fn bought(text: &str) -> TokenRecord {
    TokenRecord {
        scopes: Scopes::from_iter([Scope::Telemetry, Scope::Twin]),
        origin: TokenOrigin::Token(TokenHash::of("secret")),
        ..token(text)
    }
}

fn telemetry(memory: &Memory, id: u128) -> Submission {
    Submission {
        id: SubmissionId(id),
        identity: identity("dev1"),
        work: Arc::new(telemetry_work()),
        survival: Survival::Ephemeral {
            deadline: memory.0.clock.instant() + Duration::from_secs(5),
        },
        fingerprint: None,
    }
}

fn telemetry_work() -> Work {
    let work = Work::Telemetry(Telemetry::default());
    assert_eq!(work.lane(), Lane::Telemetry);
    work
}
