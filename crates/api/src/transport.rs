use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{Code, Problem, inference};

/// How a call reached the server, as `transport` labels it in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// REST and what else speaks plain HTTP; its codes are statuses.
    Http,
    /// gRPC; its codes are the names of gRPC's.
    Grpc,
}

impl Transport {
    pub(crate) const ALL: [Transport; 2] = [Transport::Http, Transport::Grpc];

    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Transport::Http => "http",
            Transport::Grpc => "grpc",
        }
    }

    /// How faults of calls to `path` are answered outside of their handlers.
    pub(crate) fn refusal(self, path: &str) -> fn(Problem) -> Response {
        match self {
            Transport::Http if inference::has(path) => inference::refuse,
            Transport::Http => Problem::into_response,
            Transport::Grpc => Problem::into_grpc,
        }
    }

    /// Every code that a call may end with.
    pub(crate) fn codes(self) -> BTreeSet<String> {
        let rows = Code::ALL.iter().map(|code| code.row());
        match self {
            Transport::Http => {
                let statuses = rows.map(|row| row.status).chain([StatusCode::OK]);
                statuses.map(|status| status.as_str().to_owned()).collect()
            }
            Transport::Grpc => {
                // A call is cancelled by who made it.
                let codes = rows.map(|row| row.grpc).chain([tonic::Code::Ok, tonic::Code::Cancelled]);
                codes.map(|code| grpc_name(code).to_owned()).collect()
            }
        }
    }
}

/// A gRPC code's name as gRPC's own documents write it.
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
