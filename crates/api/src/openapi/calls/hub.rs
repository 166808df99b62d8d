//! The calls that IoT Hub has.

use serde_json::json;
use utoipa::openapi::{ResponseBuilder, request_body::RequestBodyBuilder};

use super::{
    super::parts::{
        bytes_content, done, inbox_header, json_body, json_content, json_list, json_response,
        lock_timeouts, number_header, prefer_poll, prefer_write, query_text, request_header,
        stored, text_content, text_header,
    },
    Call,
};
use crate::{Code, file, header, limits, media_type, query, telemetry};

pub(super) fn send_telemetry() -> Call {
    let call = Call::new(
        "telemetry",
        "Sends one telemetry message, or a batch",
        "A single message is the body, byte by byte; `Content-Type` says nothing of it. Its properties are headers: \
         `iothub-app-{name}` for an application property, the others for system properties. Body, values of system \
         properties, and names and values of application properties together have at most 262,144 bytes, and all \
         properties must fit into the 65,535 bytes of an MQTT topic.\n\nThree media types make the body a batch. \
         `application/vnd.microsoft.iothub.json` is IoT Hub's own: at most 262,144 bytes, checked as a whole before \
         anything is sent, and 204 once every message is acknowledged. `application/vnd.tombolo.batch+json` (a list) and \
         `application/vnd.tombolo.batch+ndjson` (a message a line) have at most 500 messages and 1 MiB, and a result per \
         message. Messages of a batch are sent in its order.\n\nOnce 204 was answered, IoT Hub \
         has acknowledged the message. Any other answer promises nothing, and the message may have arrived all the same.",
    );
    // The headers of application properties have no place here: a parameter has one name, theirs are the device's own.
    let properties = [
        (
            header::MESSAGE_ID,
            "Message id, at most 128 characters; by it the back end finds duplicates.",
        ),
        (header::CORRELATION_ID, "Correlation id."),
        (header::USER_ID, "User id."),
        (
            header::TO,
            "Where the message goes; IoT Hub's clients send it, nobody needs it.",
        ),
        (
            header::CONTENT_TYPE,
            "Media type of the body; IoT Hub's queries over bodies want `application/json`.",
        ),
        (
            header::CONTENT_ENCODING,
            "Character set of the body; IoT Hub's queries over bodies want `utf-8`.",
        ),
        (header::EXPIRY, "Absolute expiry."),
        (header::CREATION_TIME, "When the message was made."),
        (header::MESSAGE_SCHEMA, "Schema of the message."),
        (header::INTERFACE_ID, "Interface id."),
        (header::SUBJECT, "Component of a Plug and Play device."),
    ];
    properties
        .into_iter()
        .fold(call, |call, (name, description)| {
            call.parameter(request_header(name, description))
        })
        .parameter(prefer_write())
        .body(
            RequestBodyBuilder::new()
                .description(Some(
                    "The message's body, at most 262,144 bytes; may be empty. Or a batch.",
                ))
                .content(media_type::JSON, text_content("{\"temperature\":21.5}"))
                .content(media_type::BYTES, bytes_content())
                .content(
                    media_type::HUB_BATCH,
                    json_content::<telemetry::HubBatch>(json!([
                        {"body": "eyJ0IjoxfQ==", "properties": {"iothub-app-unit": "C"}},
                        {"body": "plain text", "base64Encoded": false}
                    ])),
                )
                .content(
                    media_type::BATCH,
                    json_list::<telemetry::Item>(
                        limits::BATCH_MESSAGES,
                        json!([{"body": "{\"t\":1}", "properties": {"unit": "C"}}]),
                    ),
                )
                .content(
                    media_type::BATCH_LINES,
                    text_content("{\"body\":\"{\\\"t\\\":1}\"}\n"),
                )
                .build(),
        )
        .answers(
            "200",
            json_response::<telemetry::BatchAnswer>(
                "A batch with a result per message, in the order of the request.",
                json!({"results": [{"status": 204, "delivery": "hub"}]}),
            ),
        )
        .answers(
            "204",
            done("IoT Hub has acknowledged the message, or all messages of its own kind of batch."),
        )
        .answers("202", stored())
        .at_the_hub()
        .fails_with(&[Code::OutboxFull, Code::StorageFull])
}

pub(super) fn receive_message() -> Call {
    let message = ResponseBuilder::new()
        .description("The message's body, byte by byte; its properties are headers.")
        .content(media_type::BYTES, bytes_content())
        .header("etag", text_header("The lock token, in quotes."))
        .header(header::SEQUENCE_NUMBER, number_header("Running number."))
        .header(
            header::DELIVERY_COUNT,
            number_header("How often the message was abandoned before."),
        )
        .header(header::ENQUEUED_TIME, text_header("When the message came."))
        .header(header::EXPIRY, text_header("When the message expires."))
        .header(header::MESSAGE_ID, text_header("Message id."))
        .header(header::CORRELATION_ID, text_header("Correlation id."))
        .header(header::USER_ID, text_header("User id."))
        .header(
            header::TO,
            text_header("`/devices/{device}/messages/deviceBound`."),
        )
        .header(
            header::ACK,
            text_header("Feedback that the sender asked for."),
        )
        .header(
            header::ANSWER_CONTENT_TYPE,
            text_header("Media type of the body."),
        )
        .header(
            header::ANSWER_CONTENT_ENCODING,
            text_header("Character set of the body."),
        )
        .header(
            "iothub-app-{name}",
            text_header("The application property `{name}`; a header for each."),
        );
    let [of_header, of_query] = lock_timeouts();
    Call::new(
        "messages",
        "Receives the next cloud-to-device message",
        "The message is under a lock of one minute: within it, complete, reject or abandon it with the token in `ETag`, or it \
         comes again. This is IoT Hub's own call, and the only read that hides something from the next reader of the same \
         call; the inbox shows the message all the same. Values of headers are what the sender gave, not percent-encoded; \
         only a value with control characters, which no header can carry, has these and what is not ASCII percent-encoded.",
    )
    .parameter(of_header)
    .parameter(of_query)
    .parameter(prefer_poll("for a message"))
    .answers("200", message)
    .answers(
        "204",
        ResponseBuilder::new()
            .description("No message waits.")
            .header(header::TOMBOLO_INBOX, inbox_header()),
    )
    .at_the_hub()
}

pub(super) fn complete_message() -> Call {
    Call::new(
        "messages",
        "Completes a message, or rejects it",
        "With the query parameter `reject`, which has no value, the message becomes a dead letter. The token is that of the \
         lock or of the inbox entry; an `If-Match` that Azure's clients send beside it is accepted.",
    )
    .parameter(query_text(query::REJECT, "Makes it a rejection. Has no value."))
    .parameter(request_header("if-match", "The lock token once more, with or without quotes; the path counts."))
    .answers("204", done("The message is settled."))
    .fails_with(&[Code::LockLost])
    .at_the_hub()
}

pub(super) fn abandon_message() -> Call {
    Call::new(
        "messages",
        "Abandons a message",
        "The message is offered again, with a delivery count that is one higher.",
    )
    .parameter(request_header(
        "if-match",
        "The lock token once more, with or without quotes; the path counts.",
    ))
    .answers("204", done("The message is offered again."))
    .fails_with(&[Code::LockLost])
    .at_the_hub()
}

pub(super) fn create_upload() -> Call {
    Call::new(
        "files",
        "Asks for a place to upload a file to",
        "The file itself goes to the hub's storage account by HTTPS, past the gateway.",
    )
    .body(json_body::<file::UploadRequest>("The file's name.", json!({"blobName": "log.txt"})))
    .answers(
        "200",
        json_response::<file::Upload>(
            "Where to upload.",
            json!({
                "correlationId": "MjAyNjAxMDE", "hostName": "contoso.blob.core.windows.net", "containerName": "uploads",
                "blobName": "watch-1/log.txt", "sasToken": "?sv=2018-03-28&sig=..."
            }),
        ),
    )
    .at_the_hub()
}

pub(super) fn report_upload() -> Call {
    Call::new(
        "files",
        "Reports how an upload went",
        "The upload is named by `correlationId` in the body or by the last part of the path: Azure's SDKs differ.",
    )
    .body(json_body::<file::UploadReport>(
        "How the upload went.",
        json!({"correlationId": "MjAyNjAxMDE", "isSuccess": true, "statusCode": 200, "statusDescription": "OK"}),
    ))
    .answers("204", done("IoT Hub knows."))
    .at_the_hub()
}
