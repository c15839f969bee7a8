//! HTTP and gRPC: wire types, validation at the door, and the one table of errors.
//!
//! Handlers translate; they decide nothing about batches or devices. Whatever the fault, axum's own rejections
//! included, a client gets `application/problem+json` from [`problem`](Problem).

mod admin;
mod answer;
mod assets;
mod body;
mod console;
mod describe;
mod docs;
pub mod grpc;
mod headers;
mod inference;
mod items;
mod observe;
mod openapi;
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
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::openapi::Description;
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

/// Who may do what, beyond asking for recommendations.
#[derive(Clone, Default)]
pub struct Access {
    /// The operators; without it there are no endpoints for them.
    pub admin: Option<Admin>,
}

/// Every HTTP endpoint over one recommender. The connections' addresses must be given to the service: without them
/// nobody is on loopback.
pub fn router(recommender: &Arc<Recommender>, access: Access) -> Router {
    let (mut counted, mut paths) = endpoints(recommender, |endpoints| {
        endpoints
            .routes(routes!(recommend::one))
            .routes(routes!(recommend::many))
            .routes(routes!(describe::model))
            .routes(routes!(describe::routes))
            .routes(routes!(items::search))
    });
    if let Some(admin) = access.admin {
        let (operators, theirs) = endpoints(&admin, |endpoints| endpoints.routes(routes!(admin::reload)));
        counted = counted.merge(operators);
        paths.merge(theirs);
    }
    // Probes, scrapes and pages are not counted: a scrape must not change what it reads.
    let (uncounted, theirs) = endpoints(recommender, |endpoints| {
        endpoints.routes(routes!(ops::healthz)).routes(routes!(ops::readyz)).routes(routes!(ops::metrics))
    });
    paths.merge(theirs);
    // Stated last: it describes itself too.
    let (documents, theirs) = OpenApiRouter::default().routes(routes!(openapi::document)).split_for_parts();
    paths.merge(theirs);
    let description = Description::new(paths, Arc::clone(recommender));

    counted
        .merge(documents.with_state(description))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .merge(inference::router().with_state(Arc::clone(recommender)))
        .layer(CatchPanicLayer::custom(problem::panicked))
        // The outermost layer: it sees what is finally answered.
        .layer(middleware::from_fn_with_state(Arc::clone(recommender), observe::call))
        .merge(inference::probes().with_state(Arc::clone(recommender)))
        .merge(uncounted.method_not_allowed_fallback(problem::method_not_allowed))
        .layer(DefaultBodyLimit::disable())
        .merge(console::SITE.router())
        .merge(docs::SITE.router())
        .layer(middleware::map_response(headers::secure))
}

/// Handlers over one state, and what they say of themselves.
fn endpoints<S: Clone + Send + Sync + 'static>(
    state: &S,
    add: impl FnOnce(OpenApiRouter<S>) -> OpenApiRouter<S>,
) -> (Router, utoipa::openapi::OpenApi) {
    let (router, paths) = add(OpenApiRouter::default()).split_for_parts();
    (router.with_state(state.clone()), paths)
}
