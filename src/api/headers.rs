use axum::http::{HeaderValue, header};
use axum::response::Response;

/// For what is no page: it is data, nothing in it may run, and nobody may frame it.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Tells browsers to take an answer for what it says it is, and to tell other sites nothing of it. A page's own policy
/// stays.
pub(super) async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, DATA_POLICY),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
