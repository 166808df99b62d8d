//! The way from a path to an operation.
//!
//! Literal parts match without regard to case and one trailing slash is accepted, as IoT Hub does it. The parts in
//! braces are taken as they stand: they are decoded once, later, so that a `%2F` never becomes a separator.

use std::{collections::BTreeSet, sync::LazyLock};

use api::Operation;
use http::{HeaderValue, Method};

/// What a method and a path mean.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Route<'a> {
    /// A call.
    Call(Call<'a>),
    /// A path with other methods: the value of `Allow`.
    OtherMethods(HeaderValue),
    /// No path of this API.
    Unknown,
}

/// A call, with the parts of its path as they stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) operation: Operation,
    pub(crate) device: Option<&'a str>,
    pub(crate) module: Option<&'a str>,
    pub(crate) item: Option<&'a str>,
}

/// Finds the call that a request makes.
pub(crate) fn find<'a>(method: &Method, path: &'a str) -> Route<'a> {
    let Some(path) = path.strip_prefix('/') else {
        return Route::Unknown;
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut allowed = BTreeSet::new();
    for template in TEMPLATES.iter() {
        if let Some(call) = template.matched(path) {
            if template.method == *method {
                return Route::Call(call);
            }
            allowed.insert(template.operation.method().as_str());
        }
    }
    if allowed.is_empty() {
        return Route::Unknown;
    }
    let allowed = Vec::from_iter(allowed).join(", ");
    Route::OtherMethods(
        allowed
            .try_into()
            .expect("names of methods are header values"),
    )
}

struct Template {
    method: Method,
    operation: Operation,
    parts: Vec<Part>,
}

enum Part {
    Literal(&'static str),
    Device,
    Module,
    Item,
}

impl Template {
    fn new(operation: Operation, path: &'static str) -> Self {
        let parts = path
            .trim_start_matches('/')
            .split('/')
            .map(|part| match part {
                "{device}" => Part::Device,
                "{module}" => Part::Module,
                part if part.starts_with('{') => Part::Item,
                literal => Part::Literal(literal),
            });
        Self {
            method: match operation.method() {
                api::Method::Get => Method::GET,
                api::Method::Post => Method::POST,
                api::Method::Put => Method::PUT,
                api::Method::Patch => Method::PATCH,
                api::Method::Delete => Method::DELETE,
            },
            operation,
            parts: parts.collect(),
        }
    }

    fn matched<'a>(&self, path: &'a str) -> Option<Call<'a>> {
        let mut call = Call {
            operation: self.operation,
            device: None,
            module: None,
            item: None,
        };
        let mut given = path.split('/');
        for part in &self.parts {
            let given = given.next().filter(|given| !given.is_empty())?;
            match part {
                Part::Literal(literal) if given.eq_ignore_ascii_case(literal) => {}
                Part::Literal(_) => return None,
                Part::Device => call.device = Some(given),
                Part::Module => call.module = Some(given),
                Part::Item => call.item = Some(given),
            }
        }
        given.next().is_none().then_some(call)
    }
}

/// Every path of every operation.
static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| {
    let operations = Operation::ALL.iter();
    operations
        .flat_map(|operation| {
            let paths = [Some(operation.path()), operation.module_path()];
            paths
                .into_iter()
                .flatten()
                .map(|path| Template::new(*operation, path))
        })
        .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, path: &str) -> Call<'_> {
        let Route::Call(call) = find(&method, path) else {
            panic!("{path} is no call");
        };
        call
    }

    #[test]
    fn every_operation_is_found_by_its_path() {
        for template in TEMPLATES.iter() {
            let path: Vec<&str> = template
                .parts
                .iter()
                .map(|part| match part {
                    Part::Literal(literal) => literal,
                    Part::Device => "dev1",
                    Part::Module => "m1",
                    Part::Item => "i1",
                })
                .collect();
            let path = format!("/{}", path.join("/"));
            for path in [path.clone(), format!("{path}/")] {
                let found = call(template.method.clone(), &path);
                assert_eq!(found.operation, template.operation, "{path}");
                assert_eq!(found.module.is_some(), path.contains("/m1"), "{path}");
            }
        }
    }

    #[test]
    fn literals_have_no_case_and_ids_do() {
        let found = call(Method::GET, "/DEVICES/Dev%2F1/Messages/deviceBound");
        assert_eq!(found.operation, Operation::ReceiveMessage);
        assert_eq!(found.device, Some("Dev%2F1"));
        let found = call(Method::DELETE, "/devices/d/messages/devicebound/ABC");
        assert_eq!(found.item, Some("ABC"));
    }

    #[test]
    fn a_path_of_another_method_says_which() {
        let Route::OtherMethods(allow) = find(&Method::PUT, "/devices/d/twin") else {
            panic!("there is no such call");
        };
        assert_eq!(allow, "GET");
    }

    #[test]
    fn nothing_else_is_a_path() {
        for path in [
            "",
            "/",
            "*",
            "//",
            "/devices",
            "/devices/",
            "/devices//twin",
            "/devices/d",
            "/devices/d/twin//",
            "//devices/d/twin",
            "/devices/d/twin/x",
            "/devices/d/./twin",
            "/%64evices/d/twin",
            "/devices/a/b/twin",
            "/devices/d;x/twi",
            "/devices/d/modules//twin",
        ] {
            assert_eq!(find(&Method::GET, path), Route::Unknown, "{path}");
        }
    }
}
