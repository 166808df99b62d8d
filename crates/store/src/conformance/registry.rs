//! Rules of the registry.

use std::time::Duration;

use iothub::{Identity, Timestamp};

use super::{
    Engine,
    rig::{PATIENCE, all_pages, identity, sure},
};
use crate::{
    Answer, Clock as _, Custody, DeviceRecord, Fingerprint, KeyError, KeyId, KeyState,
    MethodPolicy, Partition, PutTokenError, Receipt, Scope, Scopes, SealedCredential, StoreError,
    TokenHash, TokenId, TokenOrigin, TokenRecord,
};

/// A device is known as it was put last, and one that was never put is not known.
pub async fn a_device_is_what_was_put_last(engine: Engine) {
    assert_eq!(device(&engine, "dev1").await, None);
    let mut record = device_record("dev1");
    put_device(&engine, &record).await;
    assert_eq!(device(&engine, "dev1").await.as_ref(), Some(&record));
    record.custody = Custody::Gateway;
    record.method_policy = MethodPolicy::Answer(404);
    put_device(&engine, &record).await;
    assert_eq!(device(&engine, "dev1").await, Some(record));
    assert_eq!(device(&engine, "Dev1").await, None, "ids are exact");
}

/// A sealed credential stands until another takes its place or it ends, for its identity alone.
pub async fn a_credential_is_the_newest_until_it_ends(engine: Engine) {
    let (dev1, dev2) = (identity("dev1"), identity("dev2"));
    assert_eq!(credential(&engine, &dev1).await, None);
    let now = engine.clock.timestamp();
    let sealed = |text: &'static str, lives: Duration| {
        SealedCredential::new(text.into(), now.saturating_add(lives)).expect("it is short")
    };
    let first = sealed("first", PATIENCE * 2);
    put_credential(&engine, &dev1, &first).await.expect("room");
    put_credential(&engine, &dev1, &first).await.expect("room");
    assert_eq!(credential(&engine, &dev1).await, Some(first.clone()));
    assert_eq!(credential(&engine, &dev2).await, None);
    let second = sealed("second", PATIENCE);
    put_credential(&engine, &dev1, &second).await.expect("room");
    assert_eq!(credential(&engine, &dev1).await, Some(second.clone()));
    forget_credential(&engine, &dev1, &first).await;
    assert_eq!(
        credential(&engine, &dev1).await,
        Some(second.clone()),
        "another one was forgotten"
    );
    forget_credential(&engine, &dev1, &second).await;
    forget_credential(&engine, &dev1, &second).await;
    assert_eq!(credential(&engine, &dev1).await, None);
    put_credential(&engine, &dev1, &second).await.expect("room");
    assert_eq!(credential(&engine, &dev1).await, Some(second));
    engine.clock.advance(PATIENCE);
    assert_eq!(credential(&engine, &dev1).await, None, "it has ended");
}

/// There is room for so many, one of an identity that has one is never too many, and those that have ended make room.
pub async fn credentials_are_bounded(engine: Engine) {
    let limit = engine.bounds.sealed_credentials;
    let now = engine.clock.timestamp();
    let end = now.saturating_add(PATIENCE);
    let sealed = |end| SealedCredential::new("x".into(), end).expect("it is short");
    for number in 0..limit {
        let of = identity(&format!("dev{number}"));
        let put = put_credential(&engine, &of, &sealed(end)).await;
        assert_eq!(put, Ok(()), "{number} of {limit}");
    }
    let one_more = identity("one-more");
    let put = put_credential(&engine, &one_more, &sealed(end)).await;
    assert_eq!(put, Err(StoreError::StorageFull));
    assert_eq!(credential(&engine, &one_more).await, None);
    let later = end.saturating_add(PATIENCE);
    let dev0 = identity("dev0");
    let put = put_credential(&engine, &dev0, &sealed(later)).await;
    assert_eq!(put, Ok(()));
    engine.clock.advance(PATIENCE);
    let put = put_credential(&engine, &one_more, &sealed(later)).await;
    assert_eq!(put, Ok(()), "the others have ended");
    assert_eq!(credential(&engine, &dev0).await, Some(sealed(later)));
}

/// Each device is listed once, in its partition.
pub async fn devices_are_listed_by_partition(engine: Engine) {
    let names: Vec<_> = (0..20).map(|number| format!("dev{number}")).collect();
    for name in &names {
        put_device(&engine, &device_record(name)).await;
    }
    let registry = &engine.store.registry;
    for name in &names {
        let partition = Partition::of(&identity(name));
        let listed = all_pages(async |after| registry.devices(partition, after.as_deref()).await);
        let listed = listed.await;
        let found = listed
            .iter()
            .filter(|record| record.identity == identity(name));
        assert_eq!(found.count(), 1);
        let is_here = |record: &DeviceRecord| Partition::of(&record.identity) == partition;
        assert!(listed.iter().all(is_here));
    }
}

/// A token is found by its hash until it is revoked.
pub async fn a_token_is_found_by_its_hash_until_revoked(engine: Engine) {
    let record = token_record("dev1", "t1");
    assert_eq!(token(&engine, &record).await, None);
    put_token(&engine, &record).await;
    put_token(&engine, &record).await;
    assert_eq!(token(&engine, &record).await.as_ref(), Some(&record));
    assert_eq!(tokens(&engine, "dev1").await, std::slice::from_ref(&record));

    let registry = &engine.store.registry;
    sure(|| registry.revoke_token(&record.identity, &record.id))
        .await
        .expect("the engine is there");
    assert_eq!(token(&engine, &record).await, None);
    assert_eq!(tokens(&engine, "dev1").await, []);
    let again = sure(|| registry.revoke_token(&record.identity, &record.id)).await;
    assert_eq!(again, Ok(false));
}

/// A token is revoked by the identity that it speaks for, and by no other.
pub async fn revoking_needs_the_right_identity(engine: Engine) {
    let record = token_record("dev1", "t1");
    put_token(&engine, &record).await;
    let registry = &engine.store.registry;
    for (device, id) in [("dev2", "t1"), ("dev1", "t2")] {
        let (device, id) = (identity(device), TokenId(id.to_owned()));
        let revoked = sure(|| registry.revoke_token(&device, &id)).await;
        assert_eq!(revoked, Ok(false));
    }
    assert_eq!(token(&engine, &record).await, Some(record));
}

/// The tokens of an identity are listed, the newest last, without those of others; a token of the same id takes the
/// place of the older one.
pub async fn tokens_are_listed_the_newest_last(engine: Engine) {
    let ids = ["t3", "t1", "t2"];
    for id in ids {
        put_token(&engine, &token_record("dev1", id)).await;
    }
    put_token(&engine, &token_record("dev2", "t9")).await;
    let listed = tokens(&engine, "dev1").await;
    let listed: Vec<_> = listed.iter().map(|record| record.id.0.as_str()).collect();
    assert_eq!(listed, ids);

    let older = token_record("dev1", "t3");
    let newer = TokenRecord {
        hash: TokenHash::of("another"),
        ..older.clone()
    };
    put_token(&engine, &newer).await;
    assert_eq!(token(&engine, &older).await, None);
    assert_eq!(tokens(&engine, "dev1").await.last(), Some(&newer));
    assert_eq!(tokens(&engine, "dev1").await.len(), 3);
}

/// One more token than the bound is refused, whatever became of earlier ones: what is put again, takes the place of
/// another, was revoked or has ended takes no place. Other identities have bounds of their own.
pub async fn the_tokens_of_an_identity_are_bounded(engine: Engine) {
    let limit = engine.bounds.tokens;
    let records: Vec<_> = (0..=limit)
        .map(|number| token_record("dev1", &format!("t{number}")))
        .collect();
    let (one_more, records) = records.split_last().expect("there is one more");
    let refused = Err(PutTokenError::TooMany { limit });
    for record in records {
        assert_eq!(try_put_token(&engine, record).await, Ok(()));
    }
    assert_eq!(try_put_token(&engine, one_more).await, refused);
    assert_eq!(token(&engine, one_more).await, None);
    assert_eq!(tokens(&engine, "dev1").await, records);
    put_token(&engine, &token_record("dev2", "t1")).await;

    put_token(&engine, &records[0]).await;
    let ends = engine.clock.timestamp().saturating_add(PATIENCE);
    let ending = TokenRecord {
        hash: TokenHash::of("another"),
        expires_at: Some(ends),
        ..records[0].clone()
    };
    put_token(&engine, &ending).await;
    assert_eq!(try_put_token(&engine, one_more).await, refused);
    engine.clock.advance(PATIENCE - Duration::from_millis(1));
    assert_eq!(try_put_token(&engine, one_more).await, refused);
    engine.clock.advance(Duration::from_millis(1));
    put_token(&engine, one_more).await;
    assert_eq!(try_put_token(&engine, &records[0]).await, refused);

    let registry = &engine.store.registry;
    sure(|| registry.revoke_token(&one_more.identity, &one_more.id))
        .await
        .expect("the engine is there");
    put_token(&engine, &records[0]).await;
    assert_eq!(try_put_token(&engine, one_more).await, refused);
}

/// A token that has ended is forgotten with the next change of any token.
pub async fn an_ended_token_is_forgotten_with_the_next_change(engine: Engine) {
    let ends = engine.clock.timestamp().saturating_add(PATIENCE);
    let ending = TokenRecord {
        expires_at: Some(ends),
        ..token_record("dev1", "t1")
    };
    put_token(&engine, &ending).await;
    engine.clock.advance(PATIENCE - Duration::from_millis(1));
    put_token(&engine, &token_record("dev2", "t2")).await;
    assert_eq!(token(&engine, &ending).await.as_ref(), Some(&ending));
    engine.clock.advance(Duration::from_millis(1));
    put_token(&engine, &token_record("dev2", "t3")).await;
    assert_eq!(token(&engine, &ending).await, None);
    assert_eq!(tokens(&engine, "dev1").await, []);
}

/// A key begins once, and whoever uses it again is told how far the first request is.
pub async fn a_key_is_answered_with_the_first_answer(engine: Engine) {
    let fingerprint = Fingerprint::of(&[b"request"]);
    let begin = async || begin_key(&engine, 1, fingerprint).await;
    assert!(matches!(
        begin().await,
        Ok(KeyState::Begun | KeyState::Open(None))
    ));
    assert_eq!(begin().await, Ok(KeyState::Open(None)));
    let other = begin_key(&engine, 1, Fingerprint::of(&[b"other"])).await;
    assert_eq!(other, Err(KeyError::Reused));

    let first = Answer::new(&[1; Answer::MAX_BYTES]).expect("it is short enough");
    answer_key(&engine, 1, &first).await;
    answer_key(&engine, 1, &Answer::new(b"later").expect("it is short")).await;
    assert_eq!(begin().await, Ok(KeyState::Answered(first.clone())));
    forget_key(&engine, 1).await;
    assert_eq!(begin().await, Ok(KeyState::Answered(first)));
    let (registry, dev2) = (&engine.store.registry, identity("dev2"));
    let elsewhere = registry.begin_key(&dev2, KeyId(1), fingerprint).await;
    assert!(!matches!(elsewhere, Ok(KeyState::Answered(_))));
}

/// What is noted of a key is told to whoever uses it again, the newest note, until there is an answer; and it is forgotten
/// with the key.
pub async fn what_is_noted_of_a_key_is_told_until_it_is_answered(engine: Engine) {
    let fingerprint = Fingerprint::of(&[b"request"]);
    let told = async |id| begin_key(&engine, id, fingerprint).await;
    let note = |text: &[u8]| Answer::new(text).expect("it is short enough");
    note_key(&engine, 1, &note(b"never begun")).await;
    told(1).await.expect("there is room");
    assert_eq!(told(1).await, Ok(KeyState::Open(None)));
    for text in [&b"half"[..], &[7; Answer::MAX_BYTES]] {
        note_key(&engine, 1, &note(text)).await;
        assert_eq!(told(1).await, Ok(KeyState::Open(Some(note(text)))));
    }
    let other = begin_key(&engine, 1, Fingerprint::of(&[b"other"])).await;
    assert_eq!(other, Err(KeyError::Reused));
    answer_key(&engine, 1, &note(b"all")).await;
    note_key(&engine, 1, &note(b"too late")).await;
    assert_eq!(told(1).await, Ok(KeyState::Answered(note(b"all"))));

    told(2).await.expect("there is room");
    note_key(&engine, 2, &note(b"half")).await;
    forget_key(&engine, 2).await;
    told(2).await.expect("there is room");
    assert_eq!(told(2).await, Ok(KeyState::Open(None)));
}

/// A key is kept for its time, however the wall clock is moved meanwhile.
pub async fn a_key_is_kept_whatever_the_wall_clock_does(engine: Engine) {
    let fingerprint = Fingerprint::of(&[b"one"]);
    let answer = Answer::new(b"done").expect("it is short");
    let known = Ok(KeyState::Answered(answer.clone()));
    begin_key(&engine, 1, fingerprint)
        .await
        .expect("there is room");
    answer_key(&engine, 1, &answer).await;
    const DAY: i64 = 24 * 3600;
    for (other, jump) in [(2, 9 * DAY), (3, -5 * 3600), (4, -20 * DAY), (5, 400 * DAY)] {
        engine.clock.move_wall_clock(jump);
        // What makes an engine forget what is over.
        begin_key(&engine, other, fingerprint)
            .await
            .expect("there is room");
        forget_key(&engine, other).await;
        assert_eq!(begin_key(&engine, 1, fingerprint).await, known);
    }
    engine
        .clock
        .advance(Receipt::KEPT - Duration::from_millis(1));
    assert_eq!(begin_key(&engine, 1, fingerprint).await, known);
    engine.clock.advance(Duration::from_millis(1));
    begin_key(&engine, 2, fingerprint)
        .await
        .expect("there is room");
    let other = begin_key(&engine, 1, Fingerprint::of(&[b"other"])).await;
    assert!(matches!(other, Ok(KeyState::Begun | KeyState::Open(None))));
}

/// A key without an answer can be forgotten, and begins again.
pub async fn a_forgotten_key_begins_again(engine: Engine) {
    let one = Fingerprint::of(&[b"one"]);
    begin_key(&engine, 1, one).await.expect("there is room");
    forget_key(&engine, 1).await;
    forget_key(&engine, 1).await;
    let another = Fingerprint::of(&[b"another"]);
    let begun = begin_key(&engine, 1, another).await;
    assert!(matches!(begun, Ok(KeyState::Begun | KeyState::Open(None))));
    answer_key(&engine, 2, &Answer::new(b"x").expect("it is short")).await;
    let never_begun = begin_key(&engine, 2, one).await;
    assert!(matches!(
        never_begun,
        Ok(KeyState::Begun | KeyState::Open(None))
    ));
}

/// A key is remembered for days, and then forgotten.
pub async fn a_key_ends(engine: Engine) {
    let fingerprint = Fingerprint::of(&[b"one"]);
    let answer = Answer::new(b"done").expect("it is short");
    begin_key(&engine, 1, fingerprint)
        .await
        .expect("there is room");
    answer_key(&engine, 1, &answer).await;
    engine
        .clock
        .advance(Receipt::KEPT - Duration::from_millis(1));
    let known = begin_key(&engine, 1, fingerprint).await;
    assert_eq!(known, Ok(KeyState::Answered(answer)));
    engine.clock.advance(Duration::from_millis(1));
    begin_key(&engine, 2, fingerprint)
        .await
        .expect("there is room");
    let other = begin_key(&engine, 1, Fingerprint::of(&[b"other"])).await;
    assert!(matches!(other, Ok(KeyState::Begun | KeyState::Open(None))));
}

async fn begin_key(
    engine: &Engine,
    id: u128,
    fingerprint: Fingerprint,
) -> Result<KeyState, KeyError> {
    let (registry, dev1) = (&engine.store.registry, identity("dev1"));
    sure(|| registry.begin_key(&dev1, KeyId(id), fingerprint)).await
}

async fn answer_key(engine: &Engine, id: u128, answer: &Answer) {
    let (registry, dev1) = (&engine.store.registry, identity("dev1"));
    sure(|| registry.answer_key(&dev1, KeyId(id), answer.clone()))
        .await
        .expect("the engine is there");
}

async fn note_key(engine: &Engine, id: u128, note: &Answer) {
    let (registry, dev1) = (&engine.store.registry, identity("dev1"));
    sure(|| registry.note_key(&dev1, KeyId(id), note.clone()))
        .await
        .expect("the engine is there");
}

async fn forget_key(engine: &Engine, id: u128) {
    let (registry, dev1) = (&engine.store.registry, identity("dev1"));
    sure(|| registry.forget_key(&dev1, KeyId(id)))
        .await
        .expect("the engine is there");
}

fn device_record(device: &str) -> DeviceRecord {
    DeviceRecord {
        identity: identity(device),
        custody: Custody::default(),
        method_policy: MethodPolicy::default(),
        is_pinned: false,
        is_passed_through: false,
    }
}

fn token_record(device: &str, id: &str) -> TokenRecord {
    TokenRecord {
        id: TokenId(id.to_owned()),
        identity: identity(device),
        hash: TokenHash::of(&format!("secret of {id} of {device}")),
        created_at: Timestamp::from_unix_seconds(100),
        expires_at: Some(Timestamp::from_unix_seconds(4_000_000_000)),
        scopes: Scopes::from_iter([Scope::Telemetry, Scope::Twin]),
        origin: TokenOrigin::Token(TokenHash::of("what it was bought with")),
    }
}

async fn device(engine: &Engine, device: &str) -> Option<DeviceRecord> {
    let registry = &engine.store.registry;
    let device = identity(device);
    sure(|| registry.device(&device))
        .await
        .expect("the engine is there")
}

async fn put_device(engine: &Engine, record: &DeviceRecord) {
    let registry = &engine.store.registry;
    sure(|| registry.put_device(record.clone()))
        .await
        .expect("the engine is there");
}

async fn credential(engine: &Engine, of: &Identity) -> Option<SealedCredential> {
    let registry = &engine.store.registry;
    sure(|| registry.credential(of))
        .await
        .expect("the engine is there")
}

async fn forget_credential(engine: &Engine, of: &Identity, credential: &SealedCredential) {
    let registry = &engine.store.registry;
    sure(|| registry.forget_credential(of, credential))
        .await
        .expect("the engine is there");
}

async fn put_credential(
    engine: &Engine,
    of: &Identity,
    credential: &SealedCredential,
) -> Result<(), StoreError> {
    let registry = &engine.store.registry;
    sure(|| registry.put_credential(of, credential.clone())).await
}

async fn token(engine: &Engine, record: &TokenRecord) -> Option<TokenRecord> {
    let registry = &engine.store.registry;
    sure(|| registry.token(&record.hash))
        .await
        .expect("the engine is there")
}

async fn tokens(engine: &Engine, device: &str) -> Vec<TokenRecord> {
    let registry = &engine.store.registry;
    let device = identity(device);
    sure(|| registry.tokens(&device))
        .await
        .expect("the engine is there")
}

async fn put_token(engine: &Engine, record: &TokenRecord) {
    let put = try_put_token(engine, record).await;
    put.expect("there is room");
}

async fn try_put_token(engine: &Engine, record: &TokenRecord) -> Result<(), PutTokenError> {
    let registry = &engine.store.registry;
    sure(|| registry.put_token(record.clone())).await
}
