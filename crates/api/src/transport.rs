use std::collections::BTreeSet;

use axum::http::StatusCode;

use super::Code;

/// How a call reached the server: the label `transport` of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Plain HTTP. Its codes are statuses.
    Http,
    /// gRPC. Its codes are the names of gRPC's status codes.
    Grpc,
}

impl Transport {
    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Transport::Http => "http",
            Transport::Grpc => "grpc",
        }
    }

    /// Every code that a call may end with.
    pub(crate) fn codes(self) -> BTreeSet<String> {
        let mappings = Code::ALL.iter().map(|code| code.mapping());
        match self {
            Transport::Http => {
                let statuses = mappings.map(|mapping| mapping.status).chain([StatusCode::OK]);
                statuses.map(|status| status.as_str().to_owned()).collect()
            }
            Transport::Grpc => {
                // A client that leaves cancels its call.
                let codes = mappings.map(|mapping| mapping.grpc).chain([tonic::Code::Ok, tonic::Code::Cancelled]);
                codes.map(|code| grpc_name(code).to_owned()).collect()
            }
        }
    }
}

/// The name of a gRPC status code as gRPC's documents write it.
pub(crate) fn grpc_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "CANCELLED",
        tonic::Code::Unknown => "UNKNOWN",
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        tonic::Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        tonic::Code::NotFound => "NOT_FOUND",
        tonic::Code::AlreadyExists => "ALREADY_EXISTS",
        tonic::Code::PermissionDenied => "PERMISSION_DENIED",
        tonic::Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        tonic::Code::FailedPrecondition => "FAILED_PRECONDITION",
        tonic::Code::Aborted => "ABORTED",
        tonic::Code::OutOfRange => "OUT_OF_RANGE",
        tonic::Code::Unimplemented => "UNIMPLEMENTED",
        tonic::Code::Internal => "INTERNAL",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::DataLoss => "DATA_LOSS",
        tonic::Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
