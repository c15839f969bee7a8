use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::reload::Reloaded;
use super::wire::optional_integer;
use super::{Problem, body};
use canet_serving::{Offer, Reloader};

/// The state of the call that starts a candidate.
#[derive(Clone)]
pub(crate) struct Offers {
    pub(crate) reloader: Arc<Reloader>,
    /// The share of a candidate whose request names none.
    pub(crate) share: f64,
}

/// Selects the candidate and its share. An empty body or `null` selects the highest version and the server's share, or leaves
/// the candidate that serves already as it is.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CandidateRequest {
    /// The version. `null` means the highest, or the candidate that serves already.
    #[serde(default, deserialize_with = "optional_integer")]
    #[schema(minimum = 0)]
    version: Option<u64>,
    /// The share of the users whom it answers. `null` means the share that the version has already as the candidate, or the
    /// server's `--candidate-share`.
    #[serde(default)]
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    share: Option<f64>,
}

/// The candidate that serves now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Offered {
    name: String,
    version: u64,
    digest: String,
    share: f64,
}

/// Selects the candidate that the caller means. An empty body or `null` means whichever serves.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CandidateVersion {
    /// The version that must be the candidate.
    #[serde(default, deserialize_with = "optional_integer")]
    #[schema(minimum = 0)]
    version: Option<u64>,
}

/// `POST /admin/candidate` answers once the candidate serves.
///
/// # Errors
/// 404 if there is no such version, 409 while a version is being loaded, if the version is the live one, or if another is the
/// candidate, 422 if the request or the checkpoint is wrong. After any error the same models serve as before.
#[utoipa::path(
    post,
    path = "/admin/candidate",
    operation_id = "candidate",
    tag = "Operate",
    summary = "Start a candidate",
    description = "Loads a version beside the live one and lets it answer a share of the users, always the same ones. The \
                   answer comes once it serves. If the version is the candidate already, its share changes.",
    request_body = Option<CandidateRequest>,
    responses((status = 200, description = "The candidate", body = Offered))
)]
pub(crate) async fn offer(State(offers): State<Offers>, request: Request) -> Result<Response, Problem> {
    let CandidateRequest { version, share } = body::read_optional(request).await?;
    let share = share.or_else(|| offers.reloader.candidate_share(version)).unwrap_or(offers.share);
    if !(share > 0.0 && share <= 1.0) {
        return Err(Problem::invalid("share", format!("`share` is {share}: it must be above 0 and at most 1")));
    }
    let reload = offers.reloader.offer(Offer { version, share }).await?;
    Ok(Json(Offered { name: reload.name, version: reload.version, digest: reload.digest, share }).into_response())
}

/// `POST /admin/promote`: the candidate becomes the live model.
///
/// # Errors
/// 409 if there is no candidate, if it is another version, or while a version is being loaded.
#[utoipa::path(
    post,
    path = "/admin/promote",
    operation_id = "promote",
    tag = "Operate",
    summary = "Promote the candidate",
    description = "Makes the candidate the live model. It answers everybody at once, and the previous model is freed.",
    request_body = Option<CandidateVersion>,
    responses((status = 200, description = "The model that serves now", body = Reloaded))
)]
pub(crate) async fn promote(State(reloader): State<Arc<Reloader>>, request: Request) -> Result<Response, Problem> {
    let CandidateVersion { version } = body::read_optional(request).await?;
    Ok(Json(Reloaded::from(reloader.promote(version).await?)).into_response())
}

/// `POST /admin/withdraw`: the candidate answers nobody any more.
///
/// # Errors
/// 409 if there is no candidate, or if it is another version.
#[utoipa::path(
    post,
    path = "/admin/withdraw",
    operation_id = "withdraw",
    tag = "Operate",
    summary = "Withdraw the candidate",
    description = "Ends the candidate. The live model answers everybody at once, and the candidate is freed.",
    request_body = Option<CandidateVersion>,
    responses((status = 200, description = "The model that serves now", body = Reloaded))
)]
pub(crate) async fn withdraw(State(reloader): State<Arc<Reloader>>, request: Request) -> Result<Response, Problem> {
    let CandidateVersion { version } = body::read_optional(request).await?;
    Ok(Json(Reloaded::from(reloader.withdraw(version).await?)).into_response())
}
