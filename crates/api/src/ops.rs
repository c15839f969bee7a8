use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::{Code, Problem};
use canet_serving::{Recommender, Unready};

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
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "Operate",
    summary = "Metrics",
    description = "Every series in the Prometheus text format.",
    responses((status = 200, description = "The series", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(recommender): State<Arc<Recommender>>) -> Result<impl IntoResponse, Problem> {
    match recommender.metrics().render() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text)),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            Err(Problem::new(Code::Internal, "the metrics could not be written"))
        }
    }
}
