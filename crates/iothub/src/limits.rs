//! IoT Hub's numbers. Sources are the pages of the Azure documentation named with each.

/// Characters of a device or module id ("Understand the identity registry").
pub const ID_LENGTH: usize = 128;
/// Bytes of one telemetry message: body, values of system properties, names and values of application properties
/// ("Create and read IoT Hub messages").
pub const TELEMETRY_BYTES: usize = 256 * 1024;
/// Characters of a message id ("Create and read IoT Hub messages").
pub const MESSAGE_ID_LENGTH: usize = 128;
/// Bytes of one cloud-to-device message, counted like [`TELEMETRY_BYTES`] ("Understand cloud-to-device messaging").
pub const CLOUD_MESSAGE_BYTES: usize = 64 * 1024;
/// Cloud-to-device messages that wait for one device, locked ones included ("Understand cloud-to-device messaging").
pub const CLOUD_MESSAGE_QUEUE: usize = 50;
/// Seconds that a receiver over HTTPS may ask a cloud-to-device message to be locked for. "Understand cloud-to-device
/// messaging" says that the lock is a minute; the SDKs ask for other times, and the hub's feedback queue allows 5 to 300.
pub const CLOUD_MESSAGE_LOCK_S: std::ops::RangeInclusive<u64> = 1..=300;
/// Seconds that a cloud-to-device message is locked for if its receiver does not say.
pub const CLOUD_MESSAGE_LOCK_DEFAULT_S: u64 = 60;
/// Deliveries after which a cloud-to-device message becomes a dead letter, by default.
pub const CLOUD_MESSAGE_DELIVERIES: u32 = 10;
/// Seconds that a cloud-to-device message lives if it does not say, by default.
pub const CLOUD_MESSAGE_TTL_S: u64 = 3600;
/// Bytes of a direct method's payload, each way ("Understand and invoke direct methods").
pub const METHOD_PAYLOAD_BYTES: usize = 128 * 1024;
/// Characters of a direct method's name ("IoT Hub quotas and throttling").
pub const METHOD_NAME_LENGTH: usize = 100;
/// Seconds that a caller may wait for a direct method's answer ("Understand and invoke direct methods").
pub const METHOD_RESPONSE_TIMEOUT_S: std::ops::RangeInclusive<u64> = 5..=300;
/// Seconds that a caller waits for an answer if it does not say.
pub const METHOD_RESPONSE_TIMEOUT_DEFAULT_S: u64 = 30;
/// Seconds that a caller may wait for the device to connect.
pub const METHOD_CONNECT_TIMEOUT_S: std::ops::RangeInclusive<u64> = 0..=300;
/// Bytes of the desired, and of the reported properties ("Understand and use device twins").
pub const TWIN_SECTION_BYTES: usize = 32 * 1024;
/// Bytes of the tags of a twin.
pub const TWIN_TAGS_BYTES: usize = 8 * 1024;
/// Levels of nesting of a twin section.
pub const TWIN_DEPTH: usize = 10;
/// Bytes of a key in a twin.
pub const TWIN_KEY_BYTES: usize = 1024;
/// Bytes of a string value in a twin.
pub const TWIN_STRING_BYTES: usize = 4096;
/// Integers that a twin holds (EdgeHub's `ReportedPropertiesValidator`): 53 bits, signed.
pub const TWIN_INTEGER: std::ops::RangeInclusive<i64> =
    -4_503_599_627_370_496..=4_503_599_627_370_495;
/// Uploads of files that one device may have open ("IoT Hub quotas and throttling").
pub const FILE_UPLOADS: usize = 10;
/// Modules of one device ("IoT Hub quotas and throttling").
pub const MODULES: usize = 20;
/// Subscriptions of one session ("Understand and invoke direct methods").
pub const SUBSCRIPTIONS: usize = 5;
/// Bytes of an MQTT topic (MQTT 3.1.1, section 1.5.3).
pub const TOPIC_BYTES: usize = 65_535;
/// Largest useful keep-alive of a client in seconds; the hub closes after one and a half times this
/// ("Communicate with an IoT hub using the MQTT protocol").
pub const KEEP_ALIVE_S: u16 = 1140;
/// Telemetry messages of one device in flight: what EdgeHub, the protocol gateway and the MQTT 5 preview take.
pub const TELEMETRY_WINDOW: usize = 16;
/// Seconds after its expiry during which a token may still be taken, and the clock difference that is tolerated.
pub const TOKEN_GRACE_S: u64 = 300;
