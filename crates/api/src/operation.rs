//! Every call of the API: its method, its path, and whether it is served yet.
//!
//! Literal parts of a path match without regard to case and one trailing slash is accepted; the parts in braces are
//! exact. A device's path has a twin below `modules/{module}` wherever IoT Hub has modules: it has no cloud-to-device
//! messages and no file upload for them, so those paths do not exist.

use crate::token::Scope;

/// An HTTP method.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Method {
    /// GET: reads, changes nothing, has no body.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

/// Whether a call is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It is.
    Served,
    /// Not yet: it answers 501 in the common error form, so that a device can tell it from a misspelt path.
    Planned,
}

macro_rules! operations {
    ($(#[doc = $doc:literal] $name:ident = $id:literal, $method:ident, $scope:ident $path:literal, $stage:ident;)*) => {
        /// A call of the API.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Operation {
            $(#[doc = $doc] $name,)*
        }

        impl Operation {
            /// Every call.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in the OpenAPI document.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// The HTTP method.
            #[must_use]
            pub const fn method(self) -> Method {
                match self { $(Self::$name => Method::$method,)* }
            }

            /// The path template.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self { $(Self::$name => device_path!($scope $path),)* }
            }

            /// The path template for a module, where modules have the call.
            #[must_use]
            pub const fn module_path(self) -> Option<&'static str> {
                match self { $(Self::$name => module_path!($scope $path),)* }
            }

            /// Whether the call is served, for devices and for modules that have it.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $(Self::$name => Stage::$stage,)* }
            }
        }
    };
}

/// `root`: not below a device. `device`: devices alone. `both`: devices and modules.
macro_rules! device_path {
    (root $path:literal) => {
        $path
    };
    ($scope:ident $path:literal) => {
        concat!("/devices/{device}", $path)
    };
}

macro_rules! module_path {
    (both $path:literal) => {
        Some(concat!("/devices/{device}/modules/{module}", $path))
    };
    ($scope:ident $path:literal) => {
        None
    };
}

operations! {
    /// One telemetry message, or a batch.
    SendTelemetry = "sendTelemetry", Post, both "/messages/events", Served;
    /// The next cloud-to-device message, under a lock.
    ReceiveMessage = "receiveMessage", Get, device "/messages/devicebound", Served;
    /// Completes a message that is under a lock, or rejects it.
    CompleteMessage = "completeMessage", Delete, device "/messages/devicebound/{lock}", Served;
    /// Gives a message back that is under a lock.
    AbandonMessage = "abandonMessage", Post, device "/messages/devicebound/{lock}/abandon", Served;
    /// Asks for a place to upload a file to.
    CreateUpload = "createUpload", Post, device "/files", Planned;
    /// Reports how an upload went.
    ReportUpload = "reportUpload", Post, device "/files/notifications", Planned;
    /// The same with the upload's id in the path, as some of Azure's SDKs have it.
    ReportUploadById = "reportUploadById", Post, device "/files/notifications/{correlation}", Planned;
    /// The twin.
    GetTwin = "getTwin", Get, both "/twin", Served;
    /// Patches the reported properties.
    PatchReported = "patchReported", Patch, both "/twin/properties/reported", Served;
    /// The desired properties, now or when they change.
    GetDesired = "getDesired", Get, both "/twin/properties/desired", Served;
    /// The direct methods that wait for an answer.
    ListMethods = "listMethods", Get, both "/methods", Served;
    /// Answers a direct method.
    AnswerMethod = "answerMethod", Post, both "/methods/{request}/response", Served;
    /// Everything that waits.
    GetInbox = "getInbox", Get, both "/inbox", Served;
    /// Settles many messages.
    Settle = "settle", Post, both "/inbox/settle", Served;
    /// Everything that waits, as a stream.
    OpenStream = "openStream", Get, both "/stream", Planned;
    /// Everything in one request.
    Sync = "sync", Post, both "/sync", Served;
    /// Buys a gateway token.
    CreateToken = "createToken", Post, both "/token", Served;
    /// What became of something that was stored.
    GetReceipt = "getReceipt", Get, both "/receipts/{receipt}", Served;
    /// Where to ring when something waits.
    PutPush = "putPush", Put, device "/push", Planned;
    /// The OpenAPI document.
    GetOpenApi = "getOpenApi", Get, root "/openapi.json", Served;
}

impl Method {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Operation {
    /// The scopes that open the call to a gateway token, each by itself; none if every token may make it. A call that
    /// shows things of several scopes shows those that the token has.
    #[must_use]
    pub const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::SendTelemetry => &[Scope::Telemetry],
            Self::ReceiveMessage | Self::CompleteMessage | Self::AbandonMessage | Self::Settle => {
                &[Scope::Messages]
            }
            Self::CreateUpload | Self::ReportUpload | Self::ReportUploadById => &[Scope::Files],
            Self::GetTwin | Self::PatchReported | Self::GetDesired => &[Scope::Twin],
            Self::ListMethods | Self::AnswerMethod => &[Scope::Methods],
            Self::GetInbox | Self::OpenStream => &[Scope::Messages, Scope::Methods, Scope::Twin],
            Self::Sync => &[
                Scope::Telemetry,
                Scope::Messages,
                Scope::Methods,
                Scope::Twin,
            ],
            Self::GetReceipt => &[Scope::Telemetry, Scope::Twin],
            Self::PutPush => &[Scope::Messages, Scope::Methods],
            Self::CreateToken | Self::GetOpenApi => &[],
        }
    }

    /// Whether the call changes something that a copy of the request would change again, so that an idempotency key
    /// has a meaning.
    #[must_use]
    pub const fn takes_idempotency_key(self) -> bool {
        match self {
            Self::SendTelemetry
            | Self::CompleteMessage
            | Self::AbandonMessage
            | Self::CreateUpload
            | Self::ReportUpload
            | Self::ReportUploadById
            | Self::PatchReported
            | Self::AnswerMethod
            | Self::Settle
            | Self::Sync
            | Self::PutPush => true,
            // A token is a secret, which is not kept to be shown again. One that nobody has got ends by itself.
            Self::CreateToken => false,
            Self::ReceiveMessage
            | Self::GetTwin
            | Self::GetDesired
            | Self::ListMethods
            | Self::GetInbox
            | Self::OpenStream
            | Self::GetReceipt
            | Self::GetOpenApi => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_calls_share_method_and_path() {
        let mut seen = BTreeSet::new();
        for operation in Operation::ALL {
            for path in [Some(operation.path()), operation.module_path()]
                .into_iter()
                .flatten()
            {
                assert!(seen.insert((operation.method(), path)), "{operation:?}");
            }
        }
    }

    #[test]
    fn paths_are_those_of_iot_hub() {
        assert_eq!(
            Operation::SendTelemetry.path(),
            "/devices/{device}/messages/events"
        );
        assert_eq!(
            Operation::SendTelemetry.module_path(),
            Some("/devices/{device}/modules/{module}/messages/events")
        );
        assert_eq!(Operation::ReceiveMessage.module_path(), None);
        assert_eq!(Operation::GetOpenApi.path(), "/openapi.json");
    }

    #[test]
    fn reads_and_tokens_have_no_idempotency_key() {
        for operation in Operation::ALL {
            let has_none =
                operation.method() == Method::Get || *operation == Operation::CreateToken;
            assert_eq!(
                operation.takes_idempotency_key(),
                !has_none,
                "{operation:?}"
            );
        }
    }
}
