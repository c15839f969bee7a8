//! `GET /docs`: the OpenAPI document to read and try, all of it out of the binary.
//!
//! The viewer is OpenAPI Explorer 2.4.820 (npm `openapi-explorer`, `dist/browser/openapi-explorer.min.js` as it was
//! published), under the Apache licence 2.0 beside it.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

/// The page and what it loads; none of it is in the OpenAPI document, which describes the API.
pub(super) fn router() -> Router {
    Router::new()
        .route("/docs", get(async || Html(include_str!("index.html"))))
        .route("/docs/page.css", get(async || asset("text/css; charset=utf-8", include_bytes!("page.css"))))
        .route("/docs/page.js", get(async || asset(JAVASCRIPT, include_bytes!("page.js"))))
        .route("/docs/openapi-explorer.js", get(async || asset(JAVASCRIPT, include_bytes!("openapi-explorer.min.js"))))
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

fn asset(content_type: &'static str, content: &'static [u8]) -> Response {
    // It changes with the binary alone.
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), content).into_response()
}
