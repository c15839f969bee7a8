//! The OpenAPI document. Types and handlers bring their schemas and descriptions, the table of endpoints brings
//! credentials and problems, and the checkpoint that serves brings its bounds.

mod bounds;
mod operations;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};

use crate::access::API_KEY;
use crate::endpoint::{Documentation, Required};
use crate::problem::{Code, Problem, ProblemBody};
use canet_serving::{CatalogueRevision, Generation, GenerationId, Recommender};

/// The part that is the same for every server.
#[derive(OpenApi)]
#[openapi(
    tags((name = "Recommend"), (name = "Describe"), (name = "Operate")),
    // Relative to the document, so that it holds behind a proxy that serves it under a path.
    servers((url = ".")),
    info(
        title = "canet",
        // The version of the API. It changes with requests and answers, not with the package.
        version = "1.0.0",
        description = "Next-item recommendations. For each history, a router picks the slice of the network that runs. A request's body may \
                       be compressed with gzip, deflate, br or zstd; its limit of 1 MiB counts unpacked bytes.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(ProblemBody))
)]
struct Base;

/// The document of one server, still without the bounds of a checkpoint.
#[derive(Clone)]
pub(crate) struct Description {
    pub(crate) document: Arc<openapi::OpenApi>,
    recommender: Arc<Recommender>,
    /// The document as it was last answered.
    rendered: Arc<ArcSwapOption<Rendered>>,
}

/// A document as JSON. All answers share its bytes, so that a client that asks often, or takes no answer, costs little.
struct Rendered {
    /// The generation whose bounds it has.
    generation: GenerationId,
    /// The catalogue file whose keys it has.
    catalogue: Option<CatalogueRevision>,
    json: Bytes,
}

impl Description {
    /// Describes `endpoints` on a server that asks for what is `required`.
    pub(crate) fn new<'a>(
        endpoints: impl Iterator<Item = &'a Documentation>,
        required: Required,
        recommender: Arc<Recommender>,
    ) -> Description {
        Description { document: Arc::new(describe(endpoints, required)), recommender, rendered: Arc::default() }
    }

    /// The document with the bounds of `generation`, as JSON.
    fn render(&self, generation: &Generation) -> Result<Bytes, Problem> {
        let known = self.rendered.load();
        let view = generation.catalogue_view();
        let catalogue = view.as_ref().map(|view| view.revision);
        let known = known.as_ref().filter(|known| (known.generation, known.catalogue) == (generation.id, catalogue));
        if let Some(known) = known {
            return Ok(known.json.clone());
        }
        let mut document = openapi::OpenApi::clone(&self.document);
        bounds::apply(&mut document, generation, view.as_deref());
        let json = serde_json::to_vec(&document).map_err(|error| {
            tracing::error!(%error, "the OpenAPI document could not be written");
            Problem::new(Code::Internal, "the OpenAPI document could not be written")
        })?;
        let json = Bytes::from(json);
        let rendered = Rendered { generation: generation.id, catalogue, json: json.clone() };
        self.rendered.store(Some(Arc::new(rendered)));
        Ok(json)
    }
}

fn describe<'a>(endpoints: impl Iterator<Item = &'a Documentation>, required: Required) -> openapi::OpenApi {
    let mut document = Base::openapi();
    let components = document.components.get_or_insert_default();
    let bearer = || SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    if required.key {
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(API_KEY.as_str())));
        components.security_schemes.insert("key".to_owned(), key.into());
        components.security_schemes.insert("bearer".to_owned(), bearer().into());
    }
    if required.token {
        components.security_schemes.insert("operator".to_owned(), bearer().into());
    }
    for endpoint in endpoints {
        components.schemas.extend(endpoint.schemas.iter().cloned());
        for (path, item) in &endpoint.paths.paths {
            let mut item = item.clone();
            operations::of(&mut item).for_each(|operation| operations::complete(operation, endpoint, required));
            document.paths.paths.insert(path.clone(), item);
        }
    }
    document
}

/// `GET /openapi.json`, with the bounds of the checkpoint that serves: the server accepts what it allows.
///
/// # Errors
/// 503 if no model is ready.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = "Describe",
    summary = "This document",
    description = "OpenAPI 3.1, with the routes, items and bounds of the checkpoint that serves.",
    responses((status = 200, description = "The document", body = Object))
)]
pub(crate) async fn document(State(description): State<Description>) -> Result<Response, Problem> {
    let json = description.render(&*description.recommender.generation()?)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa_axum::routes;

    use super::describe;
    use crate::Code;
    use crate::endpoint::{Endpoint, Kind, Required};

    #[utoipa::path(
        method(get, put, post, delete, options, head, patch, trace),
        path = "/every",
        request_body = String,
        responses((status = 204, description = "Nothing"))
    )]
    async fn every_method() {}

    #[test]
    fn operations_of_every_method_are_completed() {
        let endpoint = Endpoint::<()>::documented(Kind::Operator, routes!(every_method), &[Code::ReloadInProgress]);
        let document = describe(endpoint.documentation.iter(), Required { key: true, token: true, host: false });
        let item = &json!(document)["paths"]["/every"];
        assert_eq!(item.as_object().map(serde_json::Map::len), Some(8));
        for method in ["get", "put", "post", "delete", "options", "head", "patch", "trace"] {
            let operation = &item[method];
            assert_eq!(operation["security"], json!([{"operator": []}]), "{method}");
            for status in ["204", "401", "409", "413", "500"] {
                let headers = &operation["responses"][status]["headers"];
                assert!(headers["x-request-id"].is_object(), "{method}, {status}");
            }
        }
    }
}
