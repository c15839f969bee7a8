use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use tokio::sync::Semaphore;

use super::answer_budget::held;
use super::{Code, Problem};
use canet_serving::{Recommender, Unready};

/// Most scrapes that are being answered at one time. An answer has up to a megabyte.
const MOST_SCRAPES: usize = 8;

/// The state of `/metrics`. Its answers have places of their own: who watches a server must see it when other answers use up
/// the room.
#[derive(Clone)]
pub(crate) struct Scrapes {
    recommender: Arc<Recommender>,
    open: Arc<Semaphore>,
}

impl Scrapes {
    /// Scrapes of the metrics of `recommender`.
    pub(crate) fn new(recommender: &Arc<Recommender>) -> Scrapes {
        Scrapes { recommender: Arc::clone(recommender), open: Arc::new(Semaphore::new(MOST_SCRAPES)) }
    }
}

/// `GET /healthz`: 503 if only a restart helps.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "Operate",
    summary = "Liveness",
    description = "200 while the server works, 503 if only a restart helps.",
    responses((status = 200, description = "Alive", body = String, content_type = "text/plain"))
)]
pub(crate) async fn healthz(State(recommender): State<Arc<Recommender>>) -> Result<&'static str, Problem> {
    if recommender.is_alive() { Ok("alive\n") } else { Err(Unready::Dead.into()) }
}

/// `GET /readyz`: 200 if clients should send requests here.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "Operate",
    summary = "Readiness",
    description = "200 if clients should send requests here: a model is loaded and the server is not stopping.",
    responses((status = 200, description = "Ready", body = String, content_type = "text/plain"))
)]
pub(crate) async fn readyz(State(recommender): State<Arc<Recommender>>) -> Result<&'static str, Problem> {
    Ok(recommender.ready().map(|()| "ready\n")?)
}

/// `GET /metrics` in the Prometheus text format.
///
/// # Errors
/// 429 if too many scrapes wait for their clients to read, 500 if the metrics cannot be written.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Operate",
    summary = "Metrics",
    description = "Every series in the Prometheus text format.",
    responses((status = 200, description = "The series", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(scrapes): State<Scrapes>) -> Result<impl IntoResponse, Problem> {
    let Ok(permit) = scrapes.open.try_acquire_owned() else {
        let detail = format!("{MOST_SCRAPES} scrapes are being answered, which is the limit: try again later");
        return Err(Problem::new(Code::Overloaded, detail));
    };
    match scrapes.recommender.metrics().render() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], held(text, permit))),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            Err(Problem::new(Code::Internal, "the metrics could not be written"))
        }
    }
}
