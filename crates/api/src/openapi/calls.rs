//! What goes into each call, and what comes out: `hub` has the calls of IoT Hub, `added` ours.

mod added;
mod hub;

use utoipa::openapi::{Response, path::Parameter, request_body::RequestBody};

use super::parts::api_version;
use crate::{Code, Operation};

/// One call, without what its method, path and stage say already.
pub(super) struct Call {
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<RequestBody>,
    /// Successes, and 304.
    pub(super) responses: Vec<(&'static str, Response)>,
    /// Every code that the call can fail with, but for those that follow from its having a body or an idempotency key.
    pub(super) codes: Vec<Code>,
    /// Whether it needs no credential.
    pub(super) is_public: bool,
}

/// Describes a call.
pub(super) fn describe(operation: Operation) -> Call {
    match operation {
        Operation::SendTelemetry => hub::send_telemetry(),
        Operation::ReceiveMessage => hub::receive_message(),
        Operation::CompleteMessage => hub::complete_message(),
        Operation::AbandonMessage => hub::abandon_message(),
        Operation::CreateUpload => hub::create_upload(),
        Operation::ReportUpload | Operation::ReportUploadById => hub::report_upload(),
        Operation::GetTwin => added::get_twin(),
        Operation::PatchReported => added::patch_reported(),
        Operation::GetDesired => added::get_desired(),
        Operation::ListMethods => added::list_methods(),
        Operation::AnswerMethod => added::answer_method(),
        Operation::GetInbox => added::get_inbox(),
        Operation::Settle => added::settle(),
        Operation::OpenStream => added::open_stream(),
        Operation::Sync => added::sync_call(),
        Operation::CreateToken => added::create_token(),
        Operation::GetReceipt => added::get_receipt(),
        Operation::PutPush => added::put_push(),
        Operation::GetOpenApi => added::get_openapi(),
    }
}

impl Call {
    /// A call below a device.
    fn new(tag: &'static str, summary: &'static str, description: &'static str) -> Self {
        Self {
            tag,
            summary,
            description,
            parameters: vec![api_version()],
            body: None,
            responses: Vec::new(),
            codes: vec![
                Code::InvalidRequest,
                Code::Unauthenticated,
                Code::Forbidden,
                Code::NotFound,
                Code::Misdirected,
                Code::HeadersTooLarge,
                Code::Throttled,
                Code::Internal,
                Code::Overloaded,
                Code::Stopping,
            ],
            is_public: false,
        }
    }

    /// It needs the hub.
    fn at_the_hub(self) -> Self {
        self.fails_with(&[Code::HubRefused, Code::HubUnavailable, Code::HubTimeout])
    }

    fn fails_with(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    fn body(mut self, body: RequestBody) -> Self {
        self.body = Some(body);
        self
    }

    fn answers(mut self, status: &'static str, response: impl Into<Response>) -> Self {
        self.responses.push((status, response.into()));
        self
    }
}
