//! The OpenAPI 3.1 document, made of the types of this crate.
//!
//! [`Operation`] gives methods, paths and stages; `calls` says for each what goes in and what comes out; `parts` holds
//! what many of them share. A problem response stands once per status in the components and lists its codes.

mod calls;
mod parts;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        Components, ComponentsBuilder, ContentBuilder, HttpMethod, Info, InfoBuilder, License,
        OpenApi, OpenApiBuilder, OpenApiVersion, Paths, Ref, RefOr, Response, ResponseBuilder,
        Schema, SecurityRequirement, ServerBuilder, Tag,
        example::{Example, ExampleBuilder},
        extensions::{Extensions, ExtensionsBuilder},
        path::OperationBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use self::calls::Call;
use crate::{
    Code, Method, Operation, Problem, Stage, file, header, inbox, media_type, method, push,
    receipt, sync, telemetry, token, twin,
};

/// The document as it is served at `/openapi.json` and committed as `openapi/tombolo.json`: indented, with a line
/// break at the end.
#[must_use]
pub fn openapi_json() -> String {
    let mut text = document()
        .to_pretty_json()
        .expect("the document consists of maps with string keys");
    text.push('\n');
    text
}

fn document() -> OpenApi {
    let mut paths = Paths::new();
    for operation in Operation::ALL.iter().copied() {
        let call = calls::describe(operation);
        add(
            &mut paths,
            operation,
            operation.path(),
            operation.stage(),
            &call,
        );
        if let Some(path) = operation.module_path() {
            add(&mut paths, operation, path, operation.stage(), &call);
        }
    }
    OpenApiBuilder::new()
        .openapi(OpenApiVersion::Version31)
        .info(info())
        .servers(Some([ServerBuilder::new()
            .url("https://localhost:8443")
            .description(Some("The gateway that `tombolo dev` starts."))
            .build()]))
        .tags(Some(TAGS.map(|(name, description)| tag(name, description))))
        .paths(paths)
        .components(Some(components()))
        .build()
}

fn info() -> Info {
    InfoBuilder::new()
        .title("Tombolo device API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(License::new("Apache-2.0 OR MIT")))
        .build()
}

fn tag(name: &str, description: &str) -> Tag {
    TagBuilder::new()
        .name(name)
        .description(Some(description))
        .build()
}

fn add(paths: &mut Paths, operation: Operation, path: &str, stage: Stage, call: &Call) {
    let is_module = path.contains("{module}");
    let id = if is_module {
        format!("{}OfModule", operation.id())
    } else {
        operation.id().to_owned()
    };
    let mut builder = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(call.summary))
        .description(Some(format!("{}{}", call.description, scopes(operation))))
        .tag(if is_module { "modules" } else { call.tag })
        .extensions(Some(status(stage)));
    for segment in parts::path_parameters(path) {
        builder = builder.parameter(segment);
    }
    for parameter in &call.parameters {
        builder = builder.parameter(parameter.clone());
    }
    if operation.takes_idempotency_key() {
        builder = builder.parameter(parts::idempotency_key());
    }
    if let Some(body) = &call.body {
        builder = builder.request_body(Some(body.clone()));
    }
    for (status, response) in &call.responses {
        builder = builder.response(*status, response.clone());
    }
    let mut codes: BTreeSet<Code> = call.codes.iter().copied().collect();
    if call.body.is_some() {
        codes.extend([Code::RequestTimeout, Code::MessageTooLarge]);
    }
    if operation.takes_idempotency_key() {
        codes.extend([Code::KeyReused, Code::TooManyKeys]);
    }
    if stage == Stage::Planned {
        codes.insert(Code::NotImplemented);
    }
    for status in codes
        .iter()
        .map(|code| code.status())
        .collect::<BTreeSet<u16>>()
    {
        builder = builder.response(
            status.to_string(),
            Ref::from_response_name(problem_name(status)),
        );
    }
    builder = if call.is_public {
        builder.security(SecurityRequirement::default())
    } else {
        SECURITY.iter().fold(builder, |builder, scheme| {
            builder.security(SecurityRequirement::new::<_, [&str; 0], &str>(*scheme, []))
        })
    };
    paths.add_path_operation(path, vec![http_method(operation.method())], builder);
}

/// What a gateway token needs for a call, as a paragraph.
fn scopes(operation: Operation) -> String {
    let scopes = operation
        .scopes()
        .iter()
        .map(|scope| format!("`{}`", scope.as_str()));
    let scopes: Vec<String> = scopes.collect();
    match scopes.as_slice() {
        [] => String::new(),
        [only] => format!("\n\nScope of a gateway token: {only}."),
        several => format!(
            "\n\nScope of a gateway token: one of {}; what the token has no scope for is left out.",
            several.join(", ")
        ),
    }
}

fn status(stage: Stage) -> Extensions {
    let word = match stage {
        Stage::Served => "served",
        Stage::Planned => "planned",
    };
    ExtensionsBuilder::new()
        .add("x-tombolo-status", word)
        .build()
}

const fn http_method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Post => HttpMethod::Post,
        Method::Put => HttpMethod::Put,
        Method::Patch => HttpMethod::Patch,
        Method::Delete => HttpMethod::Delete,
    }
}

fn components() -> Components {
    let mut builder = ComponentsBuilder::new();
    builder = with_schema::<Problem>(builder);
    builder = with_schema::<telemetry::HubBatch>(builder);
    builder = with_schema::<telemetry::Item>(builder);
    builder = with_schema::<telemetry::BatchAnswer>(builder);
    builder = with_schema::<file::UploadRequest>(builder);
    builder = with_schema::<file::Upload>(builder);
    builder = with_schema::<file::UploadReport>(builder);
    builder = with_schema::<twin::TwinDocument>(builder);
    builder = with_schema::<twin::ReportedPatch>(builder);
    builder = with_schema::<twin::ReportedAnswer>(builder);
    builder = with_schema::<method::WaitingMethods>(builder);
    builder = with_schema::<method::MethodAnswer>(builder);
    builder = with_schema::<inbox::Inbox>(builder);
    builder = with_schema::<inbox::Settle>(builder);
    builder = with_schema::<inbox::SettleAnswer>(builder);
    builder = with_schema::<sync::SyncRequest>(builder);
    builder = with_schema::<sync::SyncAnswer>(builder);
    builder = with_schema::<token::TokenRequest>(builder);
    builder = with_schema::<token::TokenAnswer>(builder);
    builder = with_schema::<receipt::Receipt>(builder);
    builder = with_schema::<push::PushTarget>(builder);
    for status in Code::ALL
        .iter()
        .map(|code| code.status())
        .collect::<BTreeSet<u16>>()
    {
        builder = builder.response(problem_name(status), problem(status));
    }
    builder
        .security_scheme(
            SECURITY[0],
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .description(Some("A gateway token, as `tombolo token create --device ID` prints it and `POST .../token` answers it."))
                    .build(),
            ),
        )
        .security_scheme(
            SECURITY[1],
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "Tombolo-Authorization",
                "The same as `Authorization`, with either scheme, which Apple's URL loading system reserves for itself. Both \
                 present and different: 400.",
            ))),
        )
        .security_scheme(
            SECURITY[2],
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "Authorization",
                "A shared access signature as IoT Hub has it: `SharedAccessSignature sr={host}%2Fdevices%2F{device}&\
                 sig={signature}&se={expiry}`. The host is the hub's name, or one of the gateway's if it holds the key.",
            ))),
        )
        .build()
}

/// Adds a schema and all that it refers to.
fn with_schema<T: ToSchema>(builder: ComponentsBuilder) -> ComponentsBuilder {
    let mut schemas: Vec<(String, RefOr<Schema>)> = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    builder.schemas_from_iter(schemas)
}

fn problem(status: u16) -> Response {
    let codes = || {
        Code::ALL
            .iter()
            .copied()
            .filter(move |code| code.status() == status)
    };
    let lines: Vec<String> = codes()
        .map(|code| format!("`{}`: {}", code.as_str(), code.title()))
        .collect();
    let content = codes().fold(
        ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))),
        |content, code| content.examples_from_iter([(code.as_str(), example(code))]),
    );
    let mut response = ResponseBuilder::new()
        .description(lines.join("\n\n"))
        .content(media_type::PROBLEM, content.build())
        .header(
            header::IOTHUB_ERRORCODE,
            parts::text_header("IoT Hub's name for the error."),
        )
        .header(
            header::REQUEST_ID,
            parts::text_header("Names the request in the gateway's log."),
        );
    if codes().any(|code| code.retry_after_s() > Some(0)) {
        response = response.header(
            "retry-after",
            parts::number_header("Seconds to wait before a retry."),
        );
    }
    if status == 401 {
        response = response.header(
            "www-authenticate",
            parts::text_header("Always `Bearer`, never `Basic`."),
        );
    }
    if status == 405 {
        response = response.header(
            "allow",
            parts::text_header("The methods that the path has."),
        );
    }
    response.build()
}

fn example(code: Code) -> Example {
    let at = iothub::Timestamp::from_unix_seconds(1_767_225_600);
    let problem = Problem::new(code, code.title(), "01jx3k5v9q", at);
    let value: Value = json!(problem);
    ExampleBuilder::new()
        .summary(code.title())
        .value(Some(value))
        .build()
}

fn problem_name(status: u16) -> String {
    format!("Problem{status}")
}

const SECURITY: [&str; 3] = [
    "gatewayToken",
    "tomboloAuthorization",
    "sharedAccessSignature",
];

const TAGS: [(&str, &str); 8] = [
    ("telemetry", "Messages to the hub."),
    (
        "messages",
        "Cloud-to-device messages, as IoT Hub's own HTTPS API has them.",
    ),
    ("twin", "The device twin."),
    ("methods", "Direct methods."),
    (
        "inbox",
        "Everything that waits for the device, of every kind.",
    ),
    ("files", "File upload."),
    ("gateway", "What the gateway itself has to say."),
    ("modules", "The same for modules."),
];

const ABOUT: &str = "IoT Hub's own HTTPS device API, completed: the paths, headers, bodies and status codes that IoT Hub \
has are kept, and what it lacks stands beside them.

Calls with `x-tombolo-status: planned` are not served by this version and answer 501.

Literal parts of a path match without regard to case and one trailing slash is accepted; ids are exact. There is never \
a redirect, a cookie, a Basic challenge or a GET with a body. Anything may arrive twice: reads do not consume. Every \
error has the one form of the schema `Problem`; an unknown path is 404 and an unknown method 405 in the same form.";

#[cfg(test)]
mod tests {
    use super::*;

    fn json() -> Value {
        serde_json::from_str(&openapi_json()).unwrap()
    }

    fn operations(document: &Value) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                found.push((format!("{method} {path}"), operation.clone()));
            }
        }
        found
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str));
                    object.values().for_each(|value| walk(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = json();
        let mut references = Vec::new();
        walk(&document, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_call_is_there_and_says_whether_it_is_served() {
        let document = json();
        assert_eq!(document["openapi"], "3.1.0");
        let found = operations(&document);
        let modules = Operation::ALL
            .iter()
            .filter(|o| o.module_path().is_some())
            .count();
        assert_eq!(found.len(), Operation::ALL.len() + modules);
        for (name, operation) in found {
            let has_501 = operation["responses"].get("501").is_some();
            let is_planned = operation["x-tombolo-status"] == "planned";
            assert_eq!(has_501, is_planned, "{name}");
        }
    }

    #[test]
    fn every_device_call_tells_of_bad_credentials_and_of_bad_requests() {
        for (name, operation) in operations(&json()) {
            if name == "get /openapi.json" {
                continue;
            }
            for status in [
                "400", "401", "403", "404", "421", "429", "431", "500", "503",
            ] {
                assert!(
                    operation["responses"].get(status).is_some(),
                    "{name} {status}"
                );
            }
            assert_eq!(operation["security"].as_array().unwrap().len(), 3, "{name}");
        }
    }

    #[test]
    fn every_path_parameter_is_described() {
        for (name, operation) in operations(&json()) {
            let path = name.split_once(' ').unwrap().1;
            for parameter in path.split('/').filter(|part| part.starts_with('{')) {
                let parameter = parameter.trim_matches(['{', '}']);
                let described = operation["parameters"].as_array().unwrap();
                let is_described = described
                    .iter()
                    .any(|p| p["name"] == parameter && p["in"] == "path");
                assert!(is_described, "{name} {parameter}");
            }
        }
    }
}
