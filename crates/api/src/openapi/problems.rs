use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Header, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use super::operations;
use crate::{Code, Problem, request_id};

/// The faults of a body.
const BODY: [Code; 6] = [
    Code::InvalidJson,
    Code::RequestTimeout,
    Code::TooLarge,
    Code::UnsupportedMediaType,
    Code::InvalidRequest,
    Code::Overloaded,
];

/// The faults of an endpoint: the table says how each looks.
fn of(path: &str) -> Vec<Code> {
    let own: &[Code] = match path {
        "/recommend" => &[Code::Unavailable, Code::DeadlineExceeded],
        "/recommend/batch" | "/model" | "/routes" | "/openapi.json" | "/healthz" | "/readyz" => &[Code::Unavailable],
        "/items" => &[Code::InvalidRequest, Code::Unavailable],
        "/admin/reload" => {
            &[Code::Forbidden, Code::NotFound, Code::ReloadInProgress, Code::CheckpointRejected, Code::Unavailable]
        }
        _ => &[],
    };
    let body: &[Code] = if takes_body(path) { &BODY } else { &[] };
    body.iter().chain(own).copied().chain([Code::Internal]).collect()
}

fn takes_body(path: &str) -> bool {
    matches!(path, "/recommend" | "/recommend/batch" | "/admin/reload")
}

/// Adds each endpoint's problems and every header that answers carry.
pub(super) fn describe(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            let proof = operation.security.as_ref().map(|_| Code::Unauthorized);
            let codes: Vec<Code> = of(path).into_iter().chain(proof).collect();
            for (status, codes) in by_status(&codes) {
                operation.responses.responses.insert(status.as_str().to_owned(), response(status, &codes).into());
            }
        }
        if !matches!(path.as_str(), "/healthz" | "/readyz" | "/metrics") {
            operations(item).for_each(name_headers);
        }
    }
}

fn by_status(codes: &[Code]) -> BTreeMap<StatusCode, Vec<Code>> {
    let mut statuses = BTreeMap::<StatusCode, Vec<Code>>::new();
    for code in codes {
        statuses.entry(code.row().status).or_default().push(*code);
    }
    statuses
}

fn response(status: StatusCode, codes: &[Code]) -> Response {
    let names: Vec<String> = codes.iter().map(|code| format!("`{}`", code.row().name)).collect();
    let examples = codes.iter().map(|code| {
        let problem = Problem::new(*code, code.meaning());
        (code.row().name, ExampleBuilder::new().value(Some(json!(problem.body()))).build())
    });
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).examples_from_iter(examples).build();
    let phrase = status.canonical_reason().unwrap_or_default();
    let mut response = ResponseBuilder::new()
        .description(format!("{phrase}: {}", names.join(", ")))
        .content("application/problem+json", content);
    if codes.iter().any(|code| matches!(code, Code::Overloaded | Code::Unavailable)) {
        let description = "Seconds after which the same request may succeed, where waiting helps.";
        response = response.header("retry-after", header(Type::Integer, description));
    }
    if codes.contains(&Code::Unauthorized) {
        response = response.header("www-authenticate", header(Type::String, "How to prove who is asking."));
    }
    response.build()
}

/// Every counted call is answered with these.
fn name_headers(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        let id = header(Type::String, "The request's own id where it sent a usable one, else a new one.");
        response.headers.insert(request_id::HEADER.to_string(), id.into());
        let times = header(Type::String, "Milliseconds in queue, router and forward pass, and in total.");
        response.headers.insert("server-timing".to_owned(), times.into());
    }
}

fn header(kind: Type, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(kind))).description(Some(description)).build()
}
