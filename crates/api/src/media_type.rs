//! Media types of bodies.

/// JSON.
pub const JSON: &str = "application/json";
/// A [`Problem`](crate::Problem).
pub const PROBLEM: &str = "application/problem+json";
/// IoT Hub's own batch of telemetry: [`HubBatch`](crate::telemetry::HubBatch), all or none.
pub const HUB_BATCH: &str = "application/vnd.microsoft.iothub.json";
/// A batch with a result per item: a JSON array of [`Item`](crate::telemetry::Item).
pub const BATCH: &str = "application/vnd.tombolo.batch+json";
/// A batch with a result per item: one [`Item`](crate::telemetry::Item) a line.
pub const BATCH_LINES: &str = "application/vnd.tombolo.batch+ndjson";
/// A merge patch (RFC 7396). A patch of reported properties may also come as [`JSON`].
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// One JSON document a line.
pub const LINES: &str = "application/x-ndjson";
/// Bytes.
pub const BYTES: &str = "application/octet-stream";
