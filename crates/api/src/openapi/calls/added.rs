//! The calls that IoT Hub lacks.

use serde_json::{Value, json};
use utoipa::openapi::{Required, ResponseBuilder, request_body::RequestBodyBuilder};

use super::{
    super::parts::{
        delivery_header, done, if_none_match, if_none_match_desired, inbox_header, json_body,
        json_content, json_list, json_response, object_content, prefer_poll, prefer_write,
        request_header, stored, text_content, text_header,
    },
    Call,
};
use crate::{Code, header, inbox, limits, media_type, method, push, receipt, sync, token, twin};

pub(super) fn get_twin() -> Call {
    Call::new(
        "twin",
        "Reads the twin",
        "Both sections with their versions. The tag is made of both: `\"d7-r12\"`.",
    )
    .parameter(if_none_match())
    .answers(
        "200",
        json_response::<twin::TwinDocument>(
            "The twin.",
            json!({"desired": {"interval_s": 60, "$version": 7}, "reported": {"battery": 0.82, "$version": 12}}),
        )
        .header("etag", text_header("Versions of both sections.")),
    )
    .answers("304", ResponseBuilder::new().description("The device has it already."))
    .at_the_hub()
    .fails_with(&[Code::VersionConflict])
}

pub(super) fn patch_reported() -> Call {
    let patch =
        || json_content::<twin::ReportedPatch>(json!({"battery": 0.82, "old_setting": null}));
    Call::new(
        "twin",
        "Patches the reported properties",
        "The hub merges the patch (RFC 7396); a copy of the request does no harm. The rules of the twin are checked before \
         anything leaves, and a broken one is named with its path.",
    )
    .parameter(prefer_write())
    .body(
        RequestBodyBuilder::new()
            .description(Some("A merge patch, at most 262,144 bytes of text."))
            .required(Some(Required::True))
            .content(media_type::JSON, patch())
            .content(media_type::MERGE_PATCH, patch())
            .build(),
    )
    .answers(
        "200",
        json_response::<twin::ReportedAnswer>("IoT Hub has merged the patch.", json!({"$version": 13}))
            .header(header::TOMBOLO_DELIVERY, delivery_header()),
    )
    .answers("202", stored())
    .at_the_hub()
    .fails_with(&[Code::VersionConflict, Code::OutboxFull, Code::StorageFull])
}

pub(super) fn get_desired() -> Call {
    Call::new(
        "twin",
        "Reads the desired properties, or waits until they change",
        "The tag is the version, which is in the body as well: `$version`. With `If-None-Match` and `Prefer: wait=N` the \
         answer comes as soon as there is another version.",
    )
    .parameter(if_none_match())
    .parameter(prefer_poll("for another version than that of `If-None-Match`"))
    .answers(
        "200",
        json_response::<twin::Properties>("The desired properties.", json!({"interval_s": 60, "$version": 7}))
            .header("etag", text_header("The version, in quotes.")),
    )
    .answers("304", ResponseBuilder::new().description("The device has them already."))
    .at_the_hub()
}

pub(super) fn list_methods() -> Call {
    Call::new(
        "methods",
        "Lists the direct methods that wait for an answer",
        "While this call is open, and for some seconds after it, the hub offers the device's methods to callers; else it tells \
         them at once that the device is not online. Each method is shown until it is answered or over.",
    )
    .parameter(prefer_poll("for a method"))
    .answers(
        "200",
        json_response::<method::WaitingMethods>(
            "The methods, oldest first.",
            json!({"methods": [{
                "request_id": "3.1f", "name": "reboot", "payload": {"delay_s": 5},
                "deadline": "2026-01-01T00:00:30Z", "expires_in_ms": 29_400
            }]}),
        ),
    )
    .answers(
        "204",
        ResponseBuilder::new()
            .description("No method waits.")
            .header(header::TOMBOLO_INBOX, inbox_header()),
    )
    .at_the_hub()
}

pub(super) fn answer_method() -> Call {
    Call::new(
        "methods",
        "Answers a direct method",
        "The answer goes out on the very connection that the method came on, or not at all: it is never stored. Once 204 was \
         answered, it is on its way to the caller.",
    )
    .body(json_body::<method::MethodAnswer>(
        "The answer; the payload has at most 131,072 bytes.",
        json!({"status": 200, "payload": {"ok": true}}),
    ))
    .answers("204", done("The answer is on its way."))
    .fails_with(&[Code::MethodGone])
    .at_the_hub()
}

pub(super) fn get_inbox() -> Call {
    Call::new(
        "inbox",
        "Lists everything that waits, of every kind",
        "Cloud-to-device messages, direct methods and changed desired properties in one list. Reading does not consume: an \
         entry is shown every time until it is settled, answered or over. Desired properties are among the entries only if the device says which \
         version it has, with `If-None-Match`.",
    )
    .parameter(if_none_match_desired())
    .parameter(prefer_poll("for an entry"))
    .answers(
        "200",
        json_response::<inbox::Inbox>(
            "The entries, oldest first.",
            json!({
                "entries": [
                    {
                        "kind": "message", "token": "4b0f2c1e", "delivery_count": 0, "received_at": "2026-01-01T00:00:00Z",
                        "expires_at": "2026-01-01T01:00:00Z", "properties": {"level": "2"}, "system": {"message_id": "m-1"},
                        "body": "{\"hello\":1}", "encoding": "utf-8"
                    },
                    {
                        "kind": "method", "request_id": "3.1f", "name": "reboot", "payload": {"delay_s": 5},
                        "deadline": "2026-01-01T00:00:30Z", "expires_in_ms": 29_400
                    },
                    {"kind": "desired", "version": 8, "properties": {"interval_s": 5, "$version": 8}}
                ],
                "complete": true
            }),
        )
        .header(header::TOMBOLO_INBOX, inbox_header()),
    )
    .answers(
        "204",
        ResponseBuilder::new()
            .description("Nothing waits, or nothing that the device does not have.")
            .header(header::TOMBOLO_INBOX, inbox_header()),
    )
    .at_the_hub()
}

pub(super) fn settle() -> Call {
    Call::new(
        "inbox",
        "Settles many messages at once",
        "Each settlement has a result of its own; one that fails does not stop the others. The same settlement again \
         has the same answer; another one of the same message says `lock_lost`.",
    )
    .body(
        RequestBodyBuilder::new()
            .description(Some("1 to 500 settlements."))
            .required(Some(Required::True))
            .content(
                media_type::JSON,
                json_list::<inbox::Settle>(
                    limits::SETTLEMENTS,
                    json!([{"token": "4b0f2c1e", "outcome": "complete"}, {"token": "77d1", "outcome": "reject"}]),
                ),
            )
            .build(),
    )
    .answers(
        "200",
        json_response::<inbox::SettleAnswer>(
            "One result for each settlement, in the order of the request.",
            json!({"results": [
                {"token": "4b0f2c1e", "status": 204, "delivery": "hub"},
                {"token": "77d1", "status": 412, "code": "lock_lost", "detail": "no waiting message has this token", "retryable": false}
            ]}),
        ),
    )
    .at_the_hub()
}

pub(super) fn open_stream() -> Call {
    Call::new(
        "inbox",
        "Streams everything that waits",
        "Server-sent events, or JSON lines by `Accept`: the entries of the inbox as they come. Starts with a comment of 1 KiB \
         and has a heartbeat every 15 s. `Last-Event-ID` resumes.",
    )
    .parameter(request_header("last-event-id", "The last event that the device has seen."))
    .answers(
        "200",
        ResponseBuilder::new()
            .description("The stream.")
            .content(media_type::EVENT_STREAM, text_content("id: 3\nevent: message\ndata: {\"kind\":\"message\"}\n\n"))
            .content(media_type::LINES, text_content("{\"kind\":\"message\"}\n")),
    )
    .at_the_hub()
}

pub(super) fn sync_call() -> Call {
    Call::new(
        "inbox",
        "Does everything in one request",
        "Telemetry, reported properties, method answers and settlements up; messages, methods, desired properties, server time \
         and the time of the next sync down. One deadline, 8 s (`Prefer: wait`, 25 s at most): then what went up is stored, \
         and what comes down is what is known.",
    )
    .parameter(request_header(header::PREFER, "`wait=N`: take up to N seconds (8 by default, 25 at most)."))
    .body(json_body::<sync::SyncRequest>(
        "What the device has to say; at most 1 MiB.",
        json!({
            "request_id": "2026-01-01-7", "telemetry": [{"body": "{\"t\":21.5}"}], "reported": {"battery": 0.82},
            "settle": [{"token": "4b0f2c1e", "outcome": "complete"}], "desired_version": 7, "max_bytes": 16384
        }),
    ))
    .answers("200", json_response::<sync::SyncAnswer>("How it went, and what waits.", sync_answer()))
    .at_the_hub()
    .fails_with(&[Code::StorageFull])
}

fn sync_answer() -> Value {
    json!({
        "request_id": "2026-01-01-7",
        "telemetry": [{"status": 204, "delivery": "hub"}],
        "reported": {"status": 204, "delivery": "hub", "$version": 13},
        "answers": [],
        "settled": [{"token": "4b0f2c1e", "status": 204, "delivery": "hub"}],
        "messages": [],
        "methods": [],
        "desired": {"interval_s": 5, "$version": 8},
        "complete": true,
        "more": false,
        "server_time": "2026-01-01T00:00:00Z",
        "next_sync_after_s": 900
    })
}

pub(super) fn create_token() -> Call {
    Call::new(
        "gateway",
        "Buys a gateway token",
        "Any accepted credential buys a token for the device or module of the path that lives 24 h by default and 30 d at \
         most, so that a background request hours later still has a live credential. A token that was bought with a \
         gateway token has no scope that this one lacks, does not outlive it, and is revoked with it. A token that was \
         bought with a shared access signature that only the hub can judge does not outlive that. As many bought tokens \
         of a device as may live at once: 429 until the first of them ends.",
    )
    .body(json_body::<token::TokenRequest>(
        "What the token should be good for.",
        json!({"lifetime_s": 604_800, "scope": ["telemetry", "messages"]}),
    ))
    .answers(
        "200",
        json_response::<token::TokenAnswer>(
            "The token, shown this once.",
            json!({
                "token": "tmb_...", "token_id": "tk-1", "expires_at": "2026-01-08T00:00:00Z",
                "scope": ["telemetry", "messages"]
            }),
        ),
    )
}

pub(super) fn get_receipt() -> Call {
    Call::new(
        "gateway",
        "Tells what became of something that was stored",
        "`stored`: it waits for a session with the hub. `sent`: the hub has not acknowledged it yet. `acknowledged`: the hub has \
         it. `waiting_for_credential`: the hub refuses the credential that the gateway has for the device, or it has none. `refused`: it will \
         not reach the hub, and `code` says why. Kept for 8 days.",
    )
    .answers(
        "200",
        json_response::<receipt::Receipt>(
            "How far it has come.",
            json!({
                "receipt": "8c0f1f1b6a4f4e0f9d7c2b1a00000007", "state": "acknowledged",
                "stored_at": "2026-01-01T00:00:00Z", "acknowledged_at": "2026-01-01T00:00:09.120Z"
            }),
        ),
    )
}

pub(super) fn put_push() -> Call {
    Call::new(
        "gateway",
        "Registers a doorbell",
        "A push that carries no content: it rings when something waits, within the budget that Apple allows.",
    )
    .body(json_body::<push::PushTarget>(
        "Where to ring.",
        json!({"device_token": "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0", "topic": "com.example.watch", "environment": "production"}),
    ))
    .answers("204", ResponseBuilder::new().description("The doorbell is registered."))
}

pub(super) fn get_openapi() -> Call {
    let document = ResponseBuilder::new()
        .description("This document.")
        .content(
            media_type::JSON,
            object_content(json!({"openapi": "3.1.0"})),
        );
    Call {
        parameters: Vec::new(),
        codes: vec![
            Code::InvalidRequest,
            Code::Misdirected,
            Code::HeadersTooLarge,
            Code::Internal,
            Code::Overloaded,
            Code::Stopping,
        ],
        is_public: true,
        ..Call::new("gateway", "Reads this document", "Needs no credential.")
    }
    .answers("200", document)
}
