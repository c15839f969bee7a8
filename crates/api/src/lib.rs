//! HTTP and gRPC: wire types, validation at the door, and the one table of errors.
//!
//! Handlers translate; they decide nothing about batches or devices. Whatever the fault, axum's own rejections
//! included, a client gets `application/problem+json` from [`problem`](Problem).

mod admin;
mod answer;
mod arrival;
mod assets;
mod body;
mod console;
mod describe;
mod docs;
pub mod grpc;
mod headers;
mod inference;
mod items;
mod keys;
mod observe;
mod openapi;
mod ops;
mod origins;
mod problem;
mod recommend;
mod request_id;
mod secret;
mod server;
mod site;
mod spans;
mod traceparent;
mod transport;
mod validate;
mod wire;

pub use admin::Admin;
pub use keys::ApiKeys;
pub use origins::Origins;
pub use problem::{Code, Problem, Row};
pub use server::{Bodies, Connections, Patience, Tls, TlsError, TlsFiles, serve};
pub use spans::{SpanExport, SpanExportError};

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::openapi::{Description, Guards};
use canet_serving::Recommender;
use canet_serving::metrics::Metrics;
use transport::Transport;

/// Smallest answer in bytes that is compressed for clients that take it so: below, the headers alone outweigh it.
const COMPRESSED: u16 = 1024;

/// The metrics of a server, with a series for every code that each transport may answer here.
///
/// # Errors
/// [`prometheus::Error`] where a family cannot be registered.
pub fn metrics() -> Result<Metrics, prometheus::Error> {
    Metrics::new(Transport::ALL.map(|transport| (transport.label(), transport.codes())))
}

/// Who may do what.
#[derive(Clone, Default)]
pub struct Access {
    /// The operators; without it there are no endpoints for them.
    pub admin: Option<Admin>,
    /// What everybody but an operator with a token needs, for all but probes and pages.
    pub keys: ApiKeys,
    /// Which sites' pages may ask from a browser.
    pub origins: Origins,
}

/// Every HTTP endpoint over one recommender, to be served by [`serve`], which tells who is on loopback.
pub fn router(recommender: &Arc<Recommender>, access: Access) -> Router {
    let Access { admin, keys, origins } = access;
    let guards = Guards { keys: !keys.is_empty(), token: admin.as_ref().is_some_and(Admin::has_token) };
    // A layer costs every call some time: what checks nothing is left out.
    let guarded = |router: Router| {
        if guards.keys { router.layer(middleware::from_fn_with_state(keys.clone(), keys::check)) } else { router }
    };
    let (asked, mut paths) = endpoints(recommender, |endpoints| {
        endpoints
            .routes(routes!(recommend::one))
            .routes(routes!(recommend::many))
            .routes(routes!(describe::model))
            .routes(routes!(describe::routes))
    });
    let (searched, theirs) =
        endpoints(&items::Search::new(recommender), |endpoints| endpoints.routes(routes!(items::search)));
    paths.merge(theirs);
    let (operated, theirs) = match &admin {
        Some(admin) => endpoints(admin, |endpoints| endpoints.routes(routes!(admin::reload))),
        None => Default::default(),
    };
    paths.merge(theirs);
    let (scraped, theirs) = endpoints(recommender, |endpoints| endpoints.routes(routes!(ops::metrics)));
    paths.merge(theirs);
    let (probed, theirs) =
        endpoints(recommender, |endpoints| endpoints.routes(routes!(ops::healthz)).routes(routes!(ops::readyz)));
    paths.merge(theirs);
    // Stated last: it describes itself too.
    let (documents, theirs) = OpenApiRouter::default().routes(routes!(openapi::document)).split_for_parts();
    paths.merge(theirs);
    let description = Description::new(paths, guards, Arc::clone(recommender));

    let known = |router: Router| router.method_not_allowed_fallback(problem::method_not_allowed);
    // An operator's token is worth more than a key.
    let operated = if guards.token { known(operated) } else { guarded(known(operated)) };
    let asked = known(asked.merge(searched).merge(documents.with_state(description)))
        .fallback(problem::not_found)
        .merge(inference::router().with_state(Arc::clone(recommender)));
    // Layers that go on together are one service: apart, a call allocates the rest of the stack anew in each of them.
    let observed = middleware::from_fn_with_state(Arc::clone(recommender), observe::call);
    let counted = guarded(asked).merge(operated).layer((compression(), observed));
    // Probes, scrapes and pages are not counted: a scrape must not change what it reads.
    let secured = middleware::map_response(async |response| headers::secure(response));
    let others = guarded(known(scraped))
        .merge(known(probed))
        .merge(inference::probes().with_state(Arc::clone(recommender)))
        .merge(docs::SITE.router())
        .merge(console::SITE.router())
        .layer((compression(), secured));
    let all = counted.merge(others);
    match origins.layer() {
        // Before the keys: a browser asks without one whether it may ask with one.
        Some(cors) => all.layer(cors),
        None => all,
    }
}

/// The probes alone, for a listener of their own.
pub fn probes(recommender: &Arc<Recommender>) -> Router {
    Router::new()
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::not_found)
        .layer(middleware::map_response(async |response| headers::secure(response)))
        .with_state(Arc::clone(recommender))
}

fn compression() -> CompressionLayer<SizeAbove> {
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(COMPRESSED))
}

/// Handlers over one state, and what they say of themselves.
fn endpoints<S: Clone + Send + Sync + 'static>(
    state: &S,
    add: impl FnOnce(OpenApiRouter<S>) -> OpenApiRouter<S>,
) -> (Router, utoipa::openapi::OpenApi) {
    let (router, paths) = add(OpenApiRouter::default()).split_for_parts();
    (router.with_state(state.clone()), paths)
}
