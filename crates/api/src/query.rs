//! Names of query parameters.

/// IoT Hub's version of the API: accepted, not required.
pub const API_VERSION: &str = "api-version";
/// Makes a completion a rejection. Has no value.
pub const REJECT: &str = "reject";
/// How long the lock on a cloud-to-device message should last, in seconds.
pub const LOCK_TIMEOUT: &str = "iothub-messagelocktimeout";
/// Most bytes of the answer's body.
pub const MAX_BYTES: &str = "max_bytes";
