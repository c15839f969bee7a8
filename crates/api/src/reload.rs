use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::optional_integer;
use super::{Code, Problem, body};
use canet_model::checkpoint::Fault;
use canet_serving::{ReloadError, Reloader, ServingVersion};

/// Selects a version. An empty body or `null` selects the highest that is not the candidate.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadRequest {
    /// The version to serve. `null` means the highest that is not the candidate.
    #[serde(default, deserialize_with = "optional_integer")]
    #[schema(minimum = 0)]
    version: Option<u64>,
}

/// The model that serves now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Reloaded {
    name: String,
    version: u64,
    digest: String,
}

/// `POST /admin/reload` answers once the new generation serves.
///
/// # Errors
/// 404 if there is no such version, 409 while another reload runs or if the version is the candidate, 422 if the request or the checkpoint is wrong, 503
/// if the store of the model fails. After any error the old model still serves.
#[utoipa::path(
    post,
    path = "/admin/reload",
    operation_id = "reload",
    tag = "Operate",
    summary = "Replace the model",
    description = "Loads a version beside the live one, checks it and swaps it in. The answer comes once it serves. An \
                   empty body selects the highest version that is not the candidate. On a server that watches, that version \
                   must pass the gate; a named version need not.",
    request_body = Option<ReloadRequest>,
    responses((status = 200, description = "The model that serves now", body = Reloaded))
)]
pub(crate) async fn reload(State(reloader): State<Arc<Reloader>>, request: Request) -> Result<Response, Problem> {
    let ReloadRequest { version } = body::read_optional(request).await?;
    Ok(Json(Reloaded::from(reloader.reload(version).await?)).into_response())
}

impl From<ServingVersion> for Reloaded {
    fn from(ServingVersion { name, version, digest }: ServingVersion) -> Reloaded {
        Reloaded { name, version, digest }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Problem {
        let code = match &error {
            ReloadError::InProgress => Code::ReloadInProgress,
            ReloadError::Conflict(_) | ReloadError::Left { .. } => Code::Conflict,
            ReloadError::Load(error) => match error.fault() {
                Fault::Missing => Code::NotFound,
                Fault::Incomplete | Fault::Rejected => Code::CheckpointRejected,
                Fault::StoreUnavailable => Code::Unavailable,
                Fault::Server => Code::Internal,
            },
            ReloadError::Thread(_) | ReloadError::BrokeOff => Code::Internal,
            ReloadError::Unready(_) => Code::Unavailable,
        };
        Problem::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use canet_model::checkpoint::CheckpointError;
    use canet_model::{ForwardError, OpenError};
    use canet_serving::{Conflict, LoadError, ReloadError, Unready};

    use crate::Problem;

    fn opening(error: CheckpointError) -> ReloadError {
        LoadError::from(OpenError::from(error)).into()
    }

    /// One error of each fault, and each error that is no load's. `canet-serving` tests which fault every load has.
    #[test]
    fn who_is_at_fault_decides_the_status() {
        for (error, status, code) in [
            (ReloadError::InProgress, 409, "reload_in_progress"),
            (Conflict::NoCandidate.into(), 409, "conflict"),
            (
                opening(CheckpointError::NoVersion { path: "m".into(), version: 3, available: vec![1] }),
                404,
                "not_found",
            ),
            (opening(CheckpointError::Truncated { path: "m/1/items.tsv".into() }), 422, "checkpoint_rejected"),
            (opening(CheckpointError::NotAFile { path: "m/1/items.tsv".into() }), 422, "checkpoint_rejected"),
            (
                opening(CheckpointError::Origin { address: "s3://shop/m".to_owned(), reason: "403".to_owned() }),
                503,
                "unavailable",
            ),
            (LoadError::from(ForwardError::Device("out of memory".into())).into(), 500, "internal"),
            (Unready::Draining.into(), 503, "unavailable"),
            (io::Error::from(io::ErrorKind::WouldBlock).into(), 500, "internal"),
            (ReloadError::BrokeOff, 500, "internal"),
        ] {
            let text = error.to_string();
            let problem = Problem::from(error);
            let mapping = problem.code.mapping();
            assert_eq!((mapping.status.as_u16(), mapping.name), (status, code), "{text}");
            assert_eq!(problem.detail, text);
        }
    }
}
