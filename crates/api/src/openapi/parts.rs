//! Parameters, headers and bodies that several calls share.

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        Content, ContentBuilder, Header, HeaderBuilder, ObjectBuilder, Ref, Required, Response,
        ResponseBuilder,
        path::{Parameter, ParameterBuilder, ParameterIn},
        request_body::{RequestBody, RequestBodyBuilder},
        schema::{AdditionalProperties, SchemaFormat, Type},
    },
};

use crate::{header, limits, media_type, query};

/// The parameters of a path template, in order.
pub(super) fn path_parameters(path: &str) -> Vec<Parameter> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(path_parameter)
        .collect()
}

fn path_parameter(name: &str) -> Parameter {
    let id = || {
        text()
            .min_length(Some(1))
            .max_length(Some(iothub::limits::ID_LENGTH))
            .pattern(Some(r"^[A-Za-z0-9\-:.%_*?!(),=@;$']+$"))
    };
    let (schema, description) = match name {
        "device" => (
            id(),
            "The device's id: exact, case counts, percent-encoded where a URL asks for it.",
        ),
        "module" => (id(), "The module's id: exact, case counts."),
        "lock" => (
            token(),
            "The lock token: the `ETag` of the message without its quotes, or the token of an inbox entry.",
        ),
        "request" => (token(), "The `request_id` of the method."),
        "correlation" => (token(), "The upload's `correlationId`."),
        "receipt" => (
            token(),
            "The receipt's id: the last part of the `Location` of a 202.",
        ),
        other => unreachable!("path templates name no parameter {other}"),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn token() -> ObjectBuilder {
    text().min_length(Some(1)).max_length(Some(256))
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn number() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
}

/// A header of a request.
pub(super) fn request_header(name: &str, description: &str) -> Parameter {
    parameter(name, ParameterIn::Header, description, text())
}

/// A query parameter with a text.
pub(super) fn query_text(name: &str, description: &str) -> Parameter {
    parameter(name, ParameterIn::Query, description, text())
}

/// How long the lock on a message should last: Java's SDK says it in a header, .NET's in the query.
pub(super) fn lock_timeouts() -> [Parameter; 2] {
    let seconds = || {
        number()
            .minimum(Some(*limits::LOCK_SECONDS.start()))
            .maximum(Some(*limits::LOCK_SECONDS.end()))
    };
    let parameter = |name, place, description| parameter(name, place, description, seconds());
    [
        parameter(
            header::LOCK_TIMEOUT,
            ParameterIn::Header,
            "How long the lock should last, in seconds.",
        ),
        parameter(
            query::LOCK_TIMEOUT,
            ParameterIn::Query,
            "The same as the header, which counts more.",
        ),
    ]
}

fn parameter(
    name: &str,
    place: ParameterIn,
    description: &str,
    schema: ObjectBuilder,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// `Prefer` on a write.
pub(super) fn prefer_write() -> Parameter {
    request_header(
        header::PREFER,
        "`wait=N`: wait up to N seconds for the hub's acknowledgement (5 if there is no number, 50 at most), then store the \
         write. `respond-async`: store it at once. What cannot be stored waits all the same, and then fails: where the gateway \
         has no disk, or no credential of its own for the device.",
    )
}

/// `Prefer` on a read that can wait.
pub(super) fn prefer_poll(what: &str) -> Parameter {
    request_header(
        header::PREFER,
        &format!(
            "`wait=N`: if there is nothing to say, wait up to N seconds (25 if there is no number, 50 at most) {what}. Without \
             it the answer comes as soon as it is known."
        ),
    )
}

/// `If-None-Match`.
pub(super) fn if_none_match() -> Parameter {
    request_header(
        "if-none-match",
        "The `ETag` that the device has: answers 304 while it is in force.",
    )
}

/// `If-None-Match` of the inbox.
pub(super) fn if_none_match_desired() -> Parameter {
    request_header(
        "if-none-match",
        "The version of the desired properties that the device has, in quotes: `\"7\"`, or `\"0\"` for none. Then others are an \
         entry; the answer is never 304.",
    )
}

/// `api-version`.
pub(super) fn api_version() -> Parameter {
    query_text(
        query::API_VERSION,
        "IoT Hub's version of the API: accepted, not required.",
    )
}

/// `Idempotency-Key`.
pub(super) fn idempotency_key() -> Parameter {
    let schema = text()
        .min_length(Some(*limits::IDEMPOTENCY_KEY_LENGTH.start()))
        .max_length(Some(*limits::IDEMPOTENCY_KEY_LENGTH.end()))
        .pattern(Some("^[!-~]+$"));
    parameter(
        header::IDEMPOTENCY_KEY,
        ParameterIn::Header,
        "The device's own name for this write. A copy of the request has no further effect and is answered like the first, for \
         8 days; another request with the key is refused. Query, body and, of telemetry, the properties have to be the same.",
        schema,
    )
}

/// A header of an answer, with a text.
pub(super) fn text_header(description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(text()))
        .description(Some(description))
        .build()
}

/// A header of an answer, with a number.
pub(super) fn number_header(description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(number()))
        .description(Some(description))
        .build()
}

/// `Tombolo-Delivery`.
pub(super) fn delivery_header() -> Header {
    HeaderBuilder::new()
        .schema(Some(text().enum_values(Some(["hub", "stored", "gateway"]))))
        .description(Some(
            "What the answer promises. `hub`: IoT Hub has acknowledged it. `stored`: it is on the gateway's disk and will \
             reach the hub at least once. `gateway`: the gateway has done it, the hub hears of it later.",
        ))
        .build()
}

/// `Tombolo-Inbox`.
pub(super) fn inbox_header() -> Header {
    HeaderBuilder::new()
        .schema(Some(text().enum_values(Some([header::PARTIAL]))))
        .description(Some(
            "`partial`: the session with the hub was opened just now, so more may be waiting than is known.",
        ))
        .build()
}

/// The body of a request in JSON.
pub(super) fn json_body<T: ToSchema>(description: &str, example: Value) -> RequestBody {
    RequestBodyBuilder::new()
        .description(Some(description))
        .required(Some(Required::True))
        .content(media_type::JSON, json_content::<T>(example))
        .build()
}

/// Content that is one of our schemas.
pub(super) fn json_content<T: ToSchema>(example: Value) -> Content {
    ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(T::name())))
        .example(Some(example))
        .build()
}

/// Content that is a list of one of our schemas, never an empty one.
pub(super) fn json_list<T: ToSchema>(most: usize, example: Value) -> Content {
    let list = utoipa::openapi::ArrayBuilder::new()
        .items(Ref::from_schema_name(T::name()))
        .min_items(Some(1))
        .max_items(Some(most));
    ContentBuilder::new()
        .schema(Some(list))
        .example(Some(example))
        .build()
}

/// Content that is an object of another document's making.
pub(super) fn object_content(example: Value) -> Content {
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(true)));
    ContentBuilder::new()
        .schema(Some(object))
        .example(Some(example))
        .build()
}

/// Content that is bytes.
pub(super) fn bytes_content() -> Content {
    let bytes = text().format(Some(SchemaFormat::Custom("binary".to_owned())));
    ContentBuilder::new().schema(Some(bytes)).build()
}

/// Content that is text of some form.
pub(super) fn text_content(example: &str) -> Content {
    ContentBuilder::new()
        .schema(Some(text()))
        .example(Some(json!(example)))
        .build()
}

/// An answer in JSON.
pub(super) fn json_response<T: ToSchema>(description: &str, example: Value) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(description)
        .content(media_type::JSON, json_content::<T>(example))
}

/// A write that the hub has acknowledged.
pub(super) fn done(description: &str) -> Response {
    ResponseBuilder::new()
        .description(description)
        .header(header::TOMBOLO_DELIVERY, delivery_header())
        .build()
}

/// A write that is stored.
pub(super) fn stored() -> Response {
    ResponseBuilder::new()
        .description(
            "Stored: it is on the gateway's disk, flushed, and will reach the hub at least once.",
        )
        .header(header::TOMBOLO_DELIVERY, delivery_header())
        .header("location", text_header("Path of the receipt."))
        .header(
            header::PREFERENCE_APPLIED,
            text_header("`respond-async`, if the request has asked for it."),
        )
        .build()
}
