use axum::http::{HeaderValue, header};
use axum::response::Response;

/// For a page: it takes its parts from this server alone, and no other site may frame it. Styles may stand in the
/// page, since the components that draw it set their own.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; \
                           img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

/// For everything else: it is data, and nothing in it may run.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Tells browsers to take an answer for what it says it is, and to keep other sites out of it. What a handler set
/// itself stays.
pub(super) async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let policy = if is_page { PAGE_POLICY } else { DATA_POLICY };
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, policy),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
