//! The body of `PUT .../push`: where to ring when something waits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A doorbell at Apple's push notification service. It carries no content: the inbox is the truth.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushTarget {
    /// The device token of the app on the device, in hexadecimal.
    #[schema(pattern = "^[0-9a-fA-F]{16,200}$")]
    pub device_token: String,
    /// The app's topic: its bundle id.
    pub topic: String,
    /// Which of Apple's services the app was built for.
    pub environment: PushEnvironment,
}

/// Apple's two push services.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PushEnvironment {
    /// For apps from the store.
    Production,
    /// For apps from a developer's machine.
    Development,
}
