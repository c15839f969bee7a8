use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use strum::VariantArray;
use utoipa::ToSchema;

use super::unpack;
use canet_serving::{Refusal, Unready};

/// Every error that a client can get. This is the one table of stable codes and of their statuses over HTTP and gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, VariantArray)]
pub enum Code {
    /// The body is not JSON.
    InvalidJson,
    /// The request lacks an API key or the operators' token.
    Unauthorized,
    /// The client is no operator.
    Forbidden,
    /// There is no such path, model or version.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// Another reload is running.
    ReloadInProgress,
    /// The order does not fit the models that serve, for example because there is no candidate to promote.
    Conflict,
    /// The body is larger than the limit.
    TooLarge,
    /// The content type is not JSON, or the content encoding is unknown.
    UnsupportedMediaType,
    /// A field is missing, unknown, of the wrong type or out of bounds.
    InvalidRequest,
    /// The checkpoint failed a check and must not serve.
    CheckpointRejected,
    /// The queue, or the budget for bodies or answers, is full.
    Overloaded,
    /// The server failed.
    Internal,
    /// No model is ready.
    Unavailable,
    /// The deadline passed.
    DeadlineExceeded,
}

impl Code {
    /// Every code.
    pub const ALL: &'static [Code] = Code::VARIANTS;

    /// Its status on each transport, and its name.
    pub fn mapping(self) -> CodeMapping {
        use tonic::Code as Grpc;
        let (status, grpc, name) = match self {
            Code::InvalidJson => (StatusCode::BAD_REQUEST, Grpc::InvalidArgument, "invalid_json"),
            Code::Unauthorized => (StatusCode::UNAUTHORIZED, Grpc::Unauthenticated, "unauthorized"),
            Code::Forbidden => (StatusCode::FORBIDDEN, Grpc::PermissionDenied, "forbidden"),
            Code::NotFound => (StatusCode::NOT_FOUND, Grpc::NotFound, "not_found"),
            Code::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, Grpc::Unimplemented, "method_not_allowed"),
            Code::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, Grpc::DeadlineExceeded, "request_timeout"),
            Code::ReloadInProgress => (StatusCode::CONFLICT, Grpc::Aborted, "reload_in_progress"),
            Code::Conflict => (StatusCode::CONFLICT, Grpc::FailedPrecondition, "conflict"),
            Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Grpc::ResourceExhausted, "too_large"),
            Code::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, Grpc::Unimplemented, "unsupported_media_type")
            }
            Code::InvalidRequest => (StatusCode::UNPROCESSABLE_ENTITY, Grpc::InvalidArgument, "invalid_request"),
            Code::CheckpointRejected => {
                (StatusCode::UNPROCESSABLE_ENTITY, Grpc::FailedPrecondition, "checkpoint_rejected")
            }
            Code::Overloaded => (StatusCode::TOO_MANY_REQUESTS, Grpc::ResourceExhausted, "overloaded"),
            Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Grpc::Internal, "internal"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Grpc::Unavailable, "unavailable"),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, Grpc::DeadlineExceeded, "deadline_exceeded"),
        };
        CodeMapping { status, grpc, name }
    }

    /// The detail of a typical problem of this code.
    pub(crate) fn typical_detail(self) -> &'static str {
        match self {
            Code::InvalidJson => "the body is not JSON: expected value at line 1 column 1",
            Code::Unauthorized => "this is none of the server's API keys",
            Code::Forbidden => "this is for clients on the server's own machine, over loopback",
            Code::NotFound => "there is no version 7",
            Code::MethodNotAllowed => "/recommend does not take DELETE",
            Code::RequestTimeout => "the body did not arrive within 30 s",
            Code::ReloadInProgress => "another reload is running",
            Code::Conflict => "there is no candidate",
            Code::TooLarge => "the body is larger than 1048576 bytes",
            Code::UnsupportedMediaType => "the content type must be application/json",
            Code::InvalidRequest => "`timeout_ms` is 0: it must be from 1 to 60000",
            Code::CheckpointRejected => "the checkpoint does not reproduce its own answers",
            Code::Overloaded => "the server is overloaded",
            Code::Internal => "the server failed on this request",
            Code::Unavailable => "the model is being loaded",
            Code::DeadlineExceeded => "the deadline passed before the request could be answered",
        }
    }
}

/// How each transport expresses a [`Code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeMapping {
    /// The status over HTTP.
    pub status: StatusCode,
    /// The status over gRPC.
    pub grpc: tonic::Code,
    /// The stable name, on every transport.
    pub name: &'static str,
}

/// The smallest value of `retry-after`. A model takes a few of these to load.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Longest detail in bytes. Details echo what clients send, which may be a megabyte.
const MAX_DETAIL: usize = 512;

/// Bytes of a longer detail that stay at its start. The rest of [`MAX_DETAIL`] stays at its end, which says what to do.
const DETAIL_START: usize = 128;

/// Longest field in bytes.
const MAX_FIELD: usize = 128;

/// An error as the client sees it, after RFC 9457. Build it with its functions, because they bound what it echoes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub code: Code,
    /// What is wrong with this request and what to do.
    pub detail: Cow<'static, str>,
    /// The request's wrong field, as `k` or `history[3]`.
    pub field: Option<Cow<'static, str>>,
    /// Seconds after which the same request may succeed. `None` if waiting does not help.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem that concerns no single field.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Problem {
        let retry_after = matches!(code, Code::Overloaded | Code::Unavailable).then_some(RETRY_AFTER_SECONDS);
        Problem { code, detail: shortened(detail.into(), DETAIL_START, MAX_DETAIL), field: None, retry_after }
    }

    /// A problem with one field.
    pub fn invalid(field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Code::InvalidRequest, detail).at(field)
    }

    /// The same problem, with the field that it concerns.
    pub(crate) fn at(self, field: impl Into<Cow<'static, str>>) -> Problem {
        Problem { field: Some(shortened(field.into(), MAX_FIELD - ELLIPSIS.len(), MAX_FIELD)), ..self }
    }

    /// An answer that cannot be written as JSON.
    pub(crate) fn unwritable(error: serde_json::Error) -> Problem {
        tracing::error!(%error, "an answer could not be written as JSON");
        Problem::new(Code::Internal, "the answer could not be written")
    }

    /// The JSON of the response.
    pub(crate) fn body(&self) -> ProblemBody<'_> {
        let CodeMapping { status, name, .. } = self.code.mapping();
        ProblemBody {
            title: status.canonical_reason().unwrap_or(name),
            status: status.as_u16(),
            code: name,
            detail: &self.detail,
            field: self.field.as_deref(),
        }
    }
}

/// Stands for what [`shortened`] left out.
const ELLIPSIS: &str = "…";

/// Shortens `text` to at most `longest` bytes: keeps `start` bytes of its start, and of its end what fits.
fn shortened(text: Cow<'static, str>, start: usize, longest: usize) -> Cow<'static, str> {
    if text.len() <= longest {
        return text;
    }
    let end = text.len() - (longest - start - ELLIPSIS.len());
    let (start, end) = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
    format!("{}{ELLIPSIS}{}", &text[..start], &text[end..]).into()
}

/// An error, after RFC 9457. It has no `type`, which means `about:blank`, so `title` is the status's phrase.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    title: &'static str,
    status: u16,
    /// The stable name of the error.
    code: &'static str,
    /// What is wrong with this request and what to do.
    detail: &'a str,
    /// The request's wrong field, as `k` or `history[3]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let code = match refusal {
            Refusal::Overloaded(full) => {
                let retry_after = Some(full.retry_after());
                return Problem { retry_after, ..Problem::new(Code::Overloaded, refusal.to_string()) };
            }
            Refusal::DeadlineExceeded => Code::DeadlineExceeded,
            Refusal::Unavailable(_) => Code::Unavailable,
            Refusal::Internal | Refusal::NotFinite => Code::Internal,
        };
        Problem::new(code, refusal.to_string())
    }
}

impl From<Unready> for Problem {
    fn from(unready: Unready) -> Problem {
        Refusal::from(unready).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code.mapping().status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.field.as_deref() == Some(header::CONTENT_ENCODING.as_str()) {
            // It tells this 415 from one for the content type (RFC 9110, 15.5.16).
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(unpack::ACCEPTED));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Answers an unknown path.
pub(crate) async fn not_found(uri: Uri) -> Problem {
    Problem::new(Code::NotFound, format!("there is nothing at {}", uri.path()))
}

/// Answers a method that the path does not take. axum adds the `allow` header.
pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::{Code, MAX_DETAIL, MAX_FIELD, Problem};

    #[test]
    fn what_a_client_sent_is_echoed_in_part() {
        for letter in ["x", "é", "\u{1f600}"] {
            let sent = letter.repeat(500_000);
            let problem = Problem::invalid(sent.clone(), format!("there is no route {sent:?}: use auto"));
            assert!(problem.detail.len() <= MAX_DETAIL && problem.detail.contains(&letter.repeat(10)), "{problem:?}");
            assert!(problem.detail.starts_with("there is no route") && problem.detail.ends_with(": use auto"));
            let field = problem.field.unwrap();
            assert!(field.len() <= MAX_FIELD && field.starts_with(letter) && field.ends_with('…'), "{field}");
        }
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let (detail, field) = ("d".repeat(MAX_DETAIL), "f".repeat(MAX_FIELD));
        let problem = Problem::new(Code::NotFound, detail.clone()).at(field.clone());
        assert_eq!((&*problem.detail, problem.field.as_deref()), (detail.as_str(), Some(field.as_str())));
    }
}
