//! HTTP and gRPC: wire types, validation at the door, and the one table of errors.
//!
//! Handlers translate; they decide nothing about batches or devices. Whatever the fault, axum's own rejections
//! included, a client gets `application/problem+json` from [`problem`](Problem).

mod admin;
mod answer;
mod body;
mod describe;
pub mod grpc;
mod inference;
mod items;
mod observe;
mod ops;
mod problem;
mod recommend;
mod request_id;
mod traceparent;
mod transport;
mod validate;
mod wire;

pub use admin::Admin;
pub use problem::{Code, Problem, Row};

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::serving::Recommender;
use crate::telemetry::Metrics;
use transport::Transport;

/// The metrics of a server, with a series for every code that each transport may answer here.
///
/// # Errors
/// [`prometheus::Error`] where a family cannot be registered.
pub fn metrics() -> Result<Metrics, prometheus::Error> {
    Metrics::new(Transport::ALL.map(|transport| (transport.label(), transport.codes())))
}

/// Every HTTP endpoint over one recommender.
pub fn router(recommender: Arc<Recommender>) -> Router {
    let watched = Router::new()
        .route("/recommend", post(recommend::one))
        .route("/recommend/batch", post(recommend::many))
        .route("/model", get(describe::model))
        .route("/routes", get(describe::routes))
        .route("/items", get(items::search))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .merge(inference::router())
        .layer(CatchPanicLayer::custom(problem::panicked))
        // The outermost layer: it sees what is finally answered.
        .layer(middleware::from_fn_with_state(Arc::clone(&recommender), observe::call));
    // Probes and scrapes are not counted: a scrape must not change what it reads.
    Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .merge(inference::probes())
        .merge(watched)
        .layer(DefaultBodyLimit::disable())
        .with_state(recommender)
}

/// The endpoints of operators, to be merged with those of [`router`]. The connections' addresses must be given to the
/// service: without them nobody is on loopback.
pub fn admin_router(admin: Admin, recommender: Arc<Recommender>) -> Router {
    Router::new()
        .route("/admin/reload", post(admin::reload))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(recommender, observe::call))
        .with_state(admin)
}
