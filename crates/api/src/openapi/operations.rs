use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Header, Ref, RefOr, Response, ResponseBuilder};

use crate::endpoint::{Credential, Documentation, Required};
use crate::observe::{REQUEST_ID, SERVER_TIMING};
use crate::problem::{Code, Problem};

/// The problems that every endpoint with a request body shares.
const BODY: [Code; 6] = [
    Code::InvalidJson,
    Code::RequestTimeout,
    Code::TooLarge,
    Code::UnsupportedMediaType,
    Code::InvalidRequest,
    Code::Overloaded,
];

/// The operations of every method.
pub(super) fn of(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, query, additional_operations, .. } = item;
    let named = [get, put, post, delete, options, head, patch, trace, query];
    named.into_iter().flatten().chain(additional_operations.values_mut())
}

/// Adds to an operation what its endpoint's entry in the table says: credentials, problems, and the headers of answers.
pub(super) fn complete(operation: &mut Operation, endpoint: &Documentation, required: Required) {
    let credential = endpoint.kind.credential(required);
    let schemes: &[&str] = match credential {
        Some(Credential::Key) => &["key", "bearer"],
        Some(Credential::Token) => &["operator"],
        None => &[],
    };
    if !schemes.is_empty() {
        let needs = |name: &&str| SecurityRequirement::new::<_, [&str; 0], _>(*name, []);
        operation.security = Some(schemes.iter().map(needs).collect());
    }
    let mut problems = [endpoint.problems, &[Code::Internal]].concat();
    if operation.request_body.is_some() {
        problems.extend(BODY);
    }
    problems.extend(credential.map(|_| Code::Unauthorized));
    problems.extend(required.host.then_some(Code::Forbidden));
    for (status, codes) in by_status(&problems) {
        operation.responses.responses.insert(status.as_str().to_owned(), response(status, &codes).into());
    }
    if endpoint.kind.is_counted() {
        name_headers(operation);
    }
}

/// Groups codes by status, in the order of the table of codes.
fn by_status(codes: &[Code]) -> BTreeMap<StatusCode, Vec<Code>> {
    let mut statuses = BTreeMap::<StatusCode, Vec<Code>>::new();
    for code in Code::ALL.iter().copied().filter(|code| codes.contains(code)) {
        statuses.entry(code.mapping().status).or_default().push(code);
    }
    statuses
}

fn response(status: StatusCode, codes: &[Code]) -> Response {
    let names: Vec<String> = codes.iter().map(|code| format!("`{}`", code.mapping().name)).collect();
    let examples = codes.iter().map(|code| {
        let problem = Problem::new(*code, code.typical_detail());
        (code.mapping().name, ExampleBuilder::new().value(Some(json!(problem.body()))).build())
    });
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).examples_from_iter(examples).build();
    let phrase = status.canonical_reason().unwrap_or_default();
    let mut response = ResponseBuilder::new()
        .description(format!("{phrase}: {}", names.join(", ")))
        .content("application/problem+json", content);
    if codes.iter().any(|code| matches!(code, Code::Overloaded | Code::Unavailable)) {
        let description = "Seconds after which the same request may succeed. Missing if waiting does not help.";
        response = response.header("retry-after", header(Type::Integer, description));
    }
    if codes.contains(&Code::UnsupportedMediaType) {
        let description = "The content encodings that the server unpacks. Missing if the content type is at fault.";
        response = response.header("accept-encoding", header(Type::String, description));
    }
    if codes.contains(&Code::Unauthorized) {
        response = response.header("www-authenticate", header(Type::String, "The scheme that the server asks for."));
    }
    response.build()
}

/// Names the headers that every counted call is answered with.
fn name_headers(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        let id = header(Type::String, "The request's own id if it sent a usable one, else a new one.");
        response.headers.insert(REQUEST_ID.to_string(), id.into());
        let times = header(Type::String, "Milliseconds in queue, router and forward pass, and in total.");
        response.headers.insert(SERVER_TIMING.to_string(), times.into());
    }
}

fn header(kind: Type, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(kind))).description(Some(description)).build()
}
