use axum::http::{HeaderValue, header};
use axum::response::Response;

/// For what is no page, which has a policy of its own: it is data, and nothing in it may run.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Tells browsers to take an answer for what it says it is, and to keep other sites out of it. What a handler set
/// itself stays.
pub(crate) fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
