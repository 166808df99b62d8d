//! The API's own numbers. What IoT Hub limits stands in [`iothub::limits`].

use std::{ops::RangeInclusive, time::Duration};

/// Longest body of a request that carries one message, twin patch or method answer. IoT Hub counts a message's
/// properties as well, so the longest message has a shorter body.
pub const BODY_BYTES: usize = iothub::limits::TELEMETRY_BYTES;
/// How long a write waits for the hub if it does not say.
pub const WRITE_WAIT: Duration = Duration::from_secs(5);
/// How long a poll waits that prefers to wait and does not say how long.
pub const POLL_WAIT: Duration = Duration::from_secs(25);
/// Longest wait of any request but a sync: clients give up after 60 s of silence.
pub const POLL_WAIT_MOST: Duration = Duration::from_secs(50);
/// How long a sync takes at most if it does not say.
pub const SYNC_WAIT: Duration = Duration::from_secs(8);
/// How long a sync takes at most.
pub const SYNC_WAIT_MOST: Duration = Duration::from_secs(25);
/// Bytes of a sync's answer if the request does not say.
pub const SYNC_BYTES: u32 = 16 * 1024;
/// The least that a request may say there.
pub const SYNC_BYTES_LEAST: u32 = 1024;
/// Bytes of a sync's answer that holds nothing but the results of what went up, as many as there can be: they are always all
/// there, if need be without the texts of errors. A token of a settlement has 36 characters, as the gateway gives them.
pub const SYNC_RESULTS_BYTES: usize = 120_000;
/// Answers to direct methods in one sync: four times as many as may wait.
pub const SYNC_ANSWERS: usize = 64;
/// Characters of a sync's own name for itself.
pub const SYNC_NAME_LENGTH: usize = 128;
/// Seconds to the next sync: an app in the background runs four times an hour at most (Apple, "Keeping your watchOS content
/// up to date").
pub const SYNC_USUAL_S: u32 = 900;
/// Seconds to the next sync, if it is not known what waits.
pub const SYNC_SOON_S: u32 = 60;
/// Messages of one batch with a result per item.
pub const BATCH_MESSAGES: usize = 500;
/// Bytes of one batch with a result per item.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// Settlements of one request.
pub const SETTLEMENTS: usize = 500;
/// Characters of an idempotency key.
pub const IDEMPOTENCY_KEY_LENGTH: RangeInclusive<usize> = 16..=128;
/// How long a gateway token lives if the request does not say.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long a gateway token lives at least, if what it is bought with lives as long.
pub const TOKEN_LIFETIME_LEAST: Duration = Duration::from_secs(60);
/// How long a gateway token lives at most.
pub const TOKEN_LIFETIME_MOST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Seconds that a lock on a message may last. IoT Hub's own queues lock for one minute; its feedback queue allows 5 to 300.
pub const LOCK_SECONDS: RangeInclusive<u64> = 1..=300;
