use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::secret::{Secret, bearer};
use super::wire::optional_integer;
use super::{Code, Problem, body, site};
use canet_serving::{ReloadError, Reloader};

/// What operators may do, and who is one.
#[derive(Clone)]
pub struct Admin {
    reloader: Arc<Reloader>,
    token: Option<Secret>,
}

impl Admin {
    /// With a token its bearers are operators, and nobody else; without one, whoever connects over loopback, but for
    /// other sites' pages in a browser there.
    pub fn new(reloader: Arc<Reloader>, token: Option<&str>) -> Admin {
        Admin { reloader, token: token.map(Secret::new) }
    }

    /// # Errors
    /// 401 or 403 where the request does not come from an operator.
    fn check(&self, request: &Request) -> Result<(), Problem> {
        let Some(token) = &self.token else {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let local = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
            let detail = if !local {
                "without --admin-token this is for clients on the server's own machine, over loopback"
            } else if site::is_foreign(request) {
                "without --admin-token this is not for pages of other sites: ask at localhost or 127.0.0.1"
            } else {
                return Ok(());
            };
            return Err(Problem::new(Code::Forbidden, detail));
        };
        let Some(given) = bearer(request.headers()) else {
            return Err(Problem::new(Code::Unauthorized, "send `authorization: Bearer TOKEN` with the server's token"));
        };
        if token.is(given).into() {
            Ok(())
        } else {
            Err(Problem::new(Code::Unauthorized, "this is not the server's token"))
        }
    }

    /// Whether operators prove who they are by a token of their own.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

/// The body of a reload; without one, or with `null`, the highest version is meant.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadRequest {
    /// The version to serve; the highest where it is `null`.
    #[serde(default, deserialize_with = "optional_integer")]
    #[schema(minimum = 0)]
    version: Option<u64>,
}

/// What serves now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Reloaded {
    name: String,
    version: u64,
    digest: String,
}

/// `POST /admin/reload`: answers once the new generation serves.
///
/// # Errors
/// 401 and 403 for others than operators, 404 where there is no such version, 409 while another reload runs, 422
/// where the request or the checkpoint is at fault; whatever it is, what served before still does.
#[utoipa::path(
    post,
    path = "/admin/reload",
    operation_id = "reload",
    tag = "Operate",
    summary = "Replace the model",
    description = "Loads a version beside the live one, checks it and swaps it in; answers once it serves. Without a \
                   body the highest version is meant.",
    request_body = Option<ReloadRequest>,
    responses((status = 200, description = "What serves now", body = Reloaded))
)]
pub(crate) async fn reload(State(admin): State<Admin>, request: Request) -> Result<Response, Problem> {
    admin.check(&request)?;
    let bytes = body::read_optional_json(request).await?;
    let ReloadRequest { version } = match bytes.trim_ascii() {
        b"" | b"null" => ReloadRequest::default(),
        bytes => body::parse(bytes)?,
    };
    let reload = admin.reloader.reload(version).await?;
    Ok(Json(Reloaded { name: reload.name, version: reload.version, digest: reload.digest }).into_response())
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Problem {
        let code = match &error {
            ReloadError::InProgress => Code::ReloadInProgress,
            ReloadError::Load(error) if error.is_missing() => Code::NotFound,
            ReloadError::Load(error) if error.checkpoint_at_fault() => Code::CheckpointRejected,
            ReloadError::Load(_) | ReloadError::Thread(_) | ReloadError::BrokeOff => Code::Internal,
            ReloadError::Unready(_) => Code::Unavailable,
        };
        Problem::new(code, error.to_string())
    }
}
