//! The hub's error codes and the JSON body that carries them.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        /// An error of IoT Hub. Its number is the HTTP status times 1,000 and a running number ("Understand and resolve
        /// Azure IoT Hub errors"); its name stands in the header `iothub-errorcode`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ErrorCode {
            $(#[doc = $doc] $name,)*
        }

        impl ErrorCode {
            /// The number, for example 404001.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// The name, for example `DeviceNotFound`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The code with this number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

error_codes! {
    InvalidProtocolVersion = 400_001, "The api-version is unknown.";
    InvalidOperation = 400_003, "The operation is not possible in this state.";
    ArgumentInvalid = 400_004, "Bad JSON, a bad field, or a rule of the twin broken.";
    ArgumentNull = 400_005, "A required field is missing.";
    IotHubFormatError = 400_006, "The JSON cannot be decoded.";
    DeviceDefinedMultipleTimes = 400_011, "A bulk request names an identity more than once.";
    InvalidFileUploadCorrelationId = 400_015, "No upload has this correlation id.";
    ExpiredFileUploadCorrelationId = 400_016, "The upload's time is over.";
    InvalidStorageEndpointOrBlob = 400_020, "No storage is set up, or the blob's name is not allowed.";
    EtagDoesNotMatch = 400_023, "The entity tag does not match.";
    ConnectionForcefullyClosedOnNewConnection = 400_027, "A second connection of the same identity closed this one.";
    IotHubUnauthorizedAccess = 401_002, "The token is wrong, or has not the right.";
    IotHubUnauthorized = 401_003, "The token has expired, or the device is disabled.";
    IotHubQuotaExceeded = 403_002, "The hub's messages of the day are spent.";
    JobQuotaExceeded = 403_003, "The hub keeps as many jobs as it may.";
    DeviceMaximumQueueDepthExceeded = 403_004, "The device has 50 cloud-to-device messages waiting.";
    DeviceMaximumActiveFileUploadLimitExceeded = 403_006, "The device has 10 uploads open.";
    DeviceDisabled = 403_012, "The device is disabled.";
    TooManyMethods = 403_800, "Too many direct methods in flight for the device.";
    DeviceNotFound = 404_001, "The hub knows no such device.";
    JobNotFound = 404_002, "The hub knows no such job.";
    ModuleNotFound = 404_010, "The device has no such module.";
    DeviceNotOnline = 404_103, "The device is not connected, or has no method subscription.";
    DeviceConnectionClosedRemotely = 404_104, "The device closed the connection, or fell silent.";
    DeviceAlreadyExists = 409_001, "A device with this id exists.";
    JobAlreadyExists = 409_007, "A job with this id exists.";
    ModuleAlreadyExistsOnDevice = 409_301, "A module with this id exists.";
    PreconditionFailed = 412_001, "The entity tag has moved on.";
    DeviceMessageLockLost = 412_002, "The lock on the cloud-to-device message is gone.";
    MessageTooLarge = 413_001, "The message is larger than the hub takes.";
    TooManyDevices = 413_002, "The hub has as many devices as it may have.";
    TooManyModulesOnDevice = 413_003, "The device has as many modules as it may have.";
    GenericTooManyRequests = 429_000, "Too many requests.";
    ThrottlingException = 429_001, "The hub throttles.";
    ThrottleBacklogLimitExceeded = 429_002, "The backlog of a throttled connection is full.";
    ThrottlingBacklogTimeout = 429_003, "A throttled request waited too long.";
    ThrottlingMaxActiveJobCountExceeded = 429_004, "As many jobs run as may run at a time.";
    DeviceThrottlingLimitExceeded = 429_005, "The hub throttles this device.";
    ServerError = 500_001, "The hub failed.";
    GenericTimeout = 500_008, "The hub ran out of time.";
    ServiceUnavailable = 503_001, "The hub is not available.";
    GatewayTimeout = 504_101, "The device did not answer a direct method in time.";
}

impl ErrorCode {
    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        // Every number is below 600,000.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "numbers are six digits, so the quotient has three"
        )]
        let status = (self.number() / 1000) as u16;
        status
    }
}

/// The body of an error answer on MQTT, and inside `Message` on HTTPS: envelope 2.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubError {
    /// [`ErrorCode::number`], or one that is not in our list.
    pub error_code: u32,
    /// Names the request in the hub's own logs.
    #[serde(default)]
    pub tracking_id: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// When it happened, RFC 3339.
    #[serde(default)]
    pub timestamp_utc: String,
    /// More, by code.
    #[serde(default)]
    pub info: serde_json::Value,
}
