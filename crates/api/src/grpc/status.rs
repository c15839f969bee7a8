use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{Code, Problem};

/// What errors are of, in their details.
const DOMAIN: &str = "canet";

/// Longest text of a status: it goes into headers, percent-encoded, and clients take no more than 8 KiB of those.
const LONGEST: usize = 512;

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let row = problem.code.row();
        let detail = shortened(&problem.detail);
        let mut details = ErrorDetails::with_error_info(row.name.to_ascii_uppercase(), DOMAIN, []);
        if let Some(field) = &problem.field {
            details.add_bad_request_violation(shortened(field), detail);
        }
        let mut metadata = MetadataMap::new();
        if let Some(seconds) = problem.retry_after {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
            metadata.insert(header::RETRY_AFTER.as_str(), MetadataValue::from(seconds));
        }
        Status::with_error_details_and_metadata(row.grpc, detail, details, metadata)
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

impl Problem {
    /// The answer over gRPC.
    pub(crate) fn into_grpc(self) -> Response {
        Status::from(self).into_http::<Body>()
    }
}

/// What tonic refused by itself, as a fault of the table; `None` where `response` is not such a refusal. `headers` are
/// the request's.
pub(super) fn refused_by_tonic(response: &Response, headers: &HeaderMap) -> Option<Problem> {
    // The table's own statuses have details.
    let status = Status::from_header_map(response.headers()).filter(|status| status.details().is_empty())?;
    let message = status.message().to_owned();
    let compressed = headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity");
    Some(match status.code() {
        GrpcCode::Ok => return None,
        GrpcCode::Unimplemented if compressed => {
            Problem::new(Code::UnsupportedMediaType, "messages must not be compressed")
        }
        GrpcCode::Unimplemented => Problem::new(Code::MethodNotAllowed, "there is no such method"),
        GrpcCode::OutOfRange | GrpcCode::ResourceExhausted => Problem::new(Code::TooLarge, message),
        // All that tonic finds wrong before a method is called is wrong with the message.
        _ => Problem::new(Code::InvalidRequest, format!("the message cannot be read: {message}")),
    })
}
