//! The OpenAPI document: what the types and handlers say of themselves, what the table of problems adds, and the
//! bounds of the checkpoint that serves.

mod bounds;
mod guards;
mod problems;
mod schemas;

pub(super) use guards::Guards;
pub(super) use schemas::batch_rows;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi;
use utoipa::openapi::path::{Operation, PathItem};

use super::Problem;
use super::problem::ProblemBody;
use canet_serving::Recommender;

/// What stands in every document, whatever is served.
#[derive(OpenApi)]
#[openapi(
    tags((name = "Recommend"), (name = "Describe"), (name = "Operate")),
    info(
        title = "canet",
        version = "1.0.0",
        description = "Next-item recommendations. A router reads the history and picks the submodel that runs.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(ProblemBody))
)]
struct Base;

/// The document of a server, and whose bounds go into it.
#[derive(Clone)]
pub(super) struct Description {
    document: Arc<openapi::OpenApi>,
    recommender: Arc<Recommender>,
}

impl Description {
    /// The document of the endpoints in `paths`.
    pub(super) fn new(paths: openapi::OpenApi, guards: Guards, recommender: Arc<Recommender>) -> Description {
        let mut document = Base::openapi();
        document.merge(paths);
        guards.describe(&mut document);
        problems::describe(&mut document);
        Description { document: Arc::new(document), recommender }
    }
}

/// `GET /openapi.json`: made for the checkpoint that serves, so that what it allows is accepted.
///
/// # Errors
/// 503 where no model is ready.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "Describe",
    summary = "This document",
    description = "OpenAPI 3.1, made for the checkpoint that serves: its routes, its items, its bounds.",
    responses((status = 200, description = "The document", body = Object))
)]
pub(super) async fn document(State(description): State<Description>) -> Result<Response, Problem> {
    let generation = description.recommender.generation()?;
    let mut document = openapi::OpenApi::clone(&description.document);
    bounds::apply(&mut document, &generation);
    Ok(Json(document).into_response())
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post].into_iter().flatten()
}
