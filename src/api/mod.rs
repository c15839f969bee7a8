//! HTTP: wire types, validation at the door, and the one table of errors.
//!
//! Handlers translate; they decide nothing about batches or devices. Whatever the fault, axum's own rejections
//! included, a client gets `application/problem+json` from [`problem`](Problem).

mod body;
mod describe;
mod items;
mod observe;
mod ops;
mod problem;
mod recommend;
mod request_id;
mod validate;
mod wire;

pub use problem::{Code, Problem};

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::serving::Recommender;

/// The label of HTTP in metrics.
pub const TRANSPORT: &str = "http";

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
        .layer(CatchPanicLayer::custom(problem::panicked))
        // The outermost layer: it sees what is finally answered.
        .layer(middleware::from_fn_with_state(Arc::clone(&recommender), observe::call));
    // Probes and scrapes are not counted: a scrape must not change what it reads.
    Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .merge(watched)
        .layer(DefaultBodyLimit::disable())
        .with_state(recommender)
}
