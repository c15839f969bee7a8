use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{Code, Problem};

/// The domain in the details of errors.
const DOMAIN: &str = "canet";

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let mapping = problem.code.mapping();
        // It travels percent-encoded in headers, of which clients accept 8 KiB. Problems are shorter.
        let detail = problem.detail;
        let mut details = ErrorDetails::with_error_info(mapping.name.to_ascii_uppercase(), DOMAIN, []);
        if let Some(field) = &problem.field {
            details.add_bad_request_violation(&**field, &*detail);
        }
        let mut metadata = MetadataMap::new();
        if let Some(seconds) = problem.retry_after {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
            metadata.insert(header::RETRY_AFTER.as_str(), MetadataValue::from(seconds));
        }
        Status::with_error_details_and_metadata(mapping.grpc, detail, details, metadata)
    }
}

impl Problem {
    /// The response over gRPC.
    pub(crate) fn into_grpc(self) -> Response {
        Status::from(self).into_http::<Body>()
    }
}

/// Turns a refusal by tonic itself into an error of the table. `None` for any other response. `headers` are the
/// request's.
pub(super) fn refused_by_tonic(response: &Response, headers: &HeaderMap) -> Option<Problem> {
    // Statuses of the table have details.
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
        // Before a method is called, tonic can only fail to read the message.
        _ => Problem::new(Code::InvalidRequest, format!("the message cannot be read: {message}")),
    })
}
