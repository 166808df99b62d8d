//! What a request is about, as far as its path tells.

use axum::http::Method;
use iothub::{DeviceId, ModuleId};
use percent_encoding::percent_decode_str;

use crate::hub::{Api, Operation};

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// None for what a real hub has no request for.
    pub(super) api: Option<Api>,
    /// What it is throttled as.
    pub(super) operation: Option<Operation>,
    pub(super) device: Option<DeviceId>,
    pub(super) module: Option<ModuleId>,
    /// Charged for by what is sent, and not by the hub itself ("Azure IoT Hub billing information").
    pub(super) is_charged: bool,
    /// Charged for by what is read.
    pub(super) is_read: bool,
}

impl Asked {
    /// None for the emulator's own paths. The path is in its one spelling.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        use Operation::{
            CloudReceives, CloudSends, FileUploads, Jobs, Methods, Queries, Registry, Telemetry,
            TwinReads, TwinUpdates,
        };
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let is_get = method == Method::GET;
        let (api, operation) = match parts[..] {
            ["devices", _, "messages", "events"]
            | ["devices", _, "modules", _, "messages", "events"] => {
                (Some(Api::Device), Some(Telemetry))
            }
            ["devices", _, "messages", "devicebound"] if is_get => {
                (Some(Api::Device), Some(CloudReceives))
            }
            // How the cloud side sends without AMQP, should a hub take that.
            ["devices", _, "messages", "devicebound"] => (Some(Api::Service), Some(CloudSends)),
            ["devices", _, "messages", ..] => (Some(Api::Device), None),
            ["devices", _, "files", ..] => (Some(Api::Device), Some(FileUploads)),
            ["devices", name] if is_query(method, name) => (Some(Api::Service), Some(Queries)),
            ["devices", _, "commands"] | ["messages", ..] => (Some(Api::Service), None),
            ["devices", ..] | ["statistics", ..] => (Some(Api::Service), Some(Registry)),
            ["twins", _, "methods"] | ["twins", _, "modules", _, "methods"] => {
                (Some(Api::Service), Some(Methods))
            }
            ["twins", ..] if is_get => (Some(Api::Service), Some(TwinReads)),
            ["twins", ..] => (Some(Api::Service), Some(TwinUpdates)),
            ["jobs", ..] => (Some(Api::Service), Some(Jobs)),
            ["emulator", "devices", _, "messages"] => (None, Some(CloudSends)),
            _ => return None,
        };
        let (device, module) = match parts[..] {
            ["devices" | "twins", device, "modules", module, ..] => (Some(device), Some(module)),
            ["devices", name] if is_query(method, name) => (None, None),
            ["devices" | "twins", device, ..] => (Some(device), None),
            _ => (None, None),
        };
        Some(Self {
            api,
            operation,
            device: device.and_then(|id| decoded(id).parse().ok()),
            module: module.and_then(|id| decoded(id).parse().ok()),
            is_charged: matches!(operation, Some(FileUploads | TwinUpdates)),
            is_read: matches!(operation, Some(Queries | TwinReads)),
        })
    }
}

/// A device may be called `query` as well; what is not posted there is about that one.
fn is_query(method: &Method, name: &str) -> bool {
    method == Method::POST && name.eq_ignore_ascii_case("query")
}

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_api_operation_and_whom() {
        let get = Method::GET;
        let (device, service) = (Some(Api::Device), Some(Api::Service));
        for (method, path, api, operation, whom) in [
            (
                Method::POST,
                "/devices/a%3Ab/messages/events",
                device,
                Some(Operation::Telemetry),
                "a:b",
            ),
            (
                Method::POST,
                "/devices/a/modules/m/messages/events",
                device,
                Some(Operation::Telemetry),
                "a/m",
            ),
            (
                get.clone(),
                "/devices/a/messages/devicebound",
                device,
                Some(Operation::CloudReceives),
                "a",
            ),
            (
                Method::POST,
                "/devices/a/messages/devicebound",
                service,
                Some(Operation::CloudSends),
                "a",
            ),
            (
                Method::DELETE,
                "/devices/a/messages/devicebound/lock",
                device,
                None,
                "a",
            ),
            (
                Method::POST,
                "/devices/a/files",
                device,
                Some(Operation::FileUploads),
                "a",
            ),
            (
                Method::POST,
                "/devices/query",
                service,
                Some(Operation::Queries),
                "",
            ),
            (
                Method::POST,
                "/devices/Query",
                service,
                Some(Operation::Queries),
                "",
            ),
            (
                get.clone(),
                "/devices/query",
                service,
                Some(Operation::Registry),
                "query",
            ),
            (
                get.clone(),
                "/devices",
                service,
                Some(Operation::Registry),
                "",
            ),
            (
                Method::PUT,
                "/devices/a/modules/m",
                service,
                Some(Operation::Registry),
                "a/m",
            ),
            (
                get.clone(),
                "/twins/a",
                service,
                Some(Operation::TwinReads),
                "a",
            ),
            (
                Method::PATCH,
                "/twins/a/modules/m",
                service,
                Some(Operation::TwinUpdates),
                "a/m",
            ),
            (
                Method::POST,
                "/twins/a/methods",
                service,
                Some(Operation::Methods),
                "a",
            ),
            (
                Method::PUT,
                "/jobs/v2/j",
                service,
                Some(Operation::Jobs),
                "",
            ),
            (
                Method::POST,
                "/emulator/devices/a/messages",
                None,
                Some(Operation::CloudSends),
                "",
            ),
        ] {
            let asked = Asked::of(&method, path).unwrap();
            assert_eq!((asked.api, asked.operation), (api, operation), "{path}");
            let device = asked.device.map(|id| id.to_string()).unwrap_or_default();
            let module = asked.module.map(|id| format!("/{id}")).unwrap_or_default();
            assert_eq!(device + &module, whom, "{path}");
        }
        for path in ["/emulator/faults", "/$iothub/websocket", "/"] {
            assert_eq!(Asked::of(&get, path), None);
        }
    }
}
