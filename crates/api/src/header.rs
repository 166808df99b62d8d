//! Names of headers, in lower case as HTTP/2 has them.

/// Idempotency: the same key, the same effect.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Waiting and answering early: [`Prefer`](crate::Prefer).
pub const PREFER: &str = "prefer";
/// Which preferences were followed (RFC 7240).
pub const PREFERENCE_APPLIED: &str = "preference-applied";
/// The preference of [`Prefer::respond_async`](crate::Prefer::respond_async).
pub const RESPOND_ASYNC: &str = "respond-async";
/// Read like `Authorization`, which Apple's URL loading system reserves for itself.
pub const TOMBOLO_AUTHORIZATION: &str = "tombolo-authorization";
/// What a 2xx promises: [`Delivery`](crate::Delivery).
pub const TOMBOLO_DELIVERY: &str = "tombolo-delivery";
/// `partial` on an answer that cannot know yet whether more is waiting.
pub const TOMBOLO_INBOX: &str = "tombolo-inbox";
/// The value of [`TOMBOLO_INBOX`].
pub const PARTIAL: &str = "partial";

/// Name of IoT Hub's error, on every answer of 400 and more.
pub const IOTHUB_ERRORCODE: &str = "iothub-errorcode";
/// Names the request in the log, as IoT Hub does.
pub const REQUEST_ID: &str = "x-ms-request-id";

/// What stands before the name of an application property.
pub const APP_PREFIX: &str = "iothub-app-";
/// System property message id.
pub const MESSAGE_ID: &str = "iothub-messageid";
/// System property correlation id.
pub const CORRELATION_ID: &str = "iothub-correlationid";
/// System property user id.
pub const USER_ID: &str = "iothub-userid";
/// System property to.
pub const TO: &str = "iothub-to";
/// System property absolute expiry.
pub const EXPIRY: &str = "iothub-expiry";
/// Feedback that the sender of a cloud-to-device message asked for.
pub const ACK: &str = "iothub-ack";
/// System property content type, on a request. `Content-Type` says nothing of a single message.
pub const CONTENT_TYPE: &str = "iothub-contenttype";
/// System property content encoding, on a request.
pub const CONTENT_ENCODING: &str = "iothub-contentencoding";
/// System property creation time.
pub const CREATION_TIME: &str = "iothub-creationtimeutc";
/// System property message schema.
pub const MESSAGE_SCHEMA: &str = "iothub-messageschema";
/// System property interface id.
pub const INTERFACE_ID: &str = "iothub-interface-id";
/// System property subject: the component of a Plug and Play device.
pub const SUBJECT: &str = "dt-subject";
/// System property content type, on an answer with a cloud-to-device message.
pub const ANSWER_CONTENT_TYPE: &str = "contenttype";
/// System property content encoding, on an answer with a cloud-to-device message.
pub const ANSWER_CONTENT_ENCODING: &str = "contentencoding";
/// Running number of a cloud-to-device message.
pub const SEQUENCE_NUMBER: &str = "iothub-sequencenumber";
/// How often a cloud-to-device message was abandoned before.
pub const DELIVERY_COUNT: &str = "iothub-deliverycount";
/// When a cloud-to-device message came.
pub const ENQUEUED_TIME: &str = "iothub-enqueuedtime";
/// How long the lock on a cloud-to-device message should last, in seconds (Java SDK; .NET: [`query`](crate::query)).
pub const LOCK_TIMEOUT: &str = "iothub-messagelocktimeout";
