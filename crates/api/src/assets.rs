use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::problem;

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(crate) const STYLE: &str = "text/css; charset=utf-8";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// A page and what it is made of, carried by the binary: served as they are, whatever the model.
pub(crate) struct Site {
    /// Where its content may come from (`content-security-policy`).
    pub(crate) policy: &'static str,
    pub(crate) files: &'static [File],
}

/// A file of a [`Site`].
pub(crate) struct File {
    /// Where it is served, as `/console/style.css`.
    pub(crate) path: &'static str,
    /// Its `content-type`.
    pub(crate) media_type: &'static str,
    pub(crate) content: &'static [u8],
}

impl Site {
    /// The endpoints. A browser asks each time whether it has the file already: after an update of the server it must
    /// not mix old files with new ones.
    pub(crate) fn router(&self) -> Router {
        let mut router = Router::new();
        for file in self.files {
            let (policy, tag) = (self.policy, file.tag());
            router = router.route(file.path, get(async move |headers| file.answer(policy, &tag, &headers)));
        }
        router.method_not_allowed_fallback(problem::method_not_allowed)
    }
}

impl File {
    /// Weak: what is sent may be compressed.
    fn tag(&self) -> String {
        let digest = Sha256::digest(self.content);
        let hex: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("W/\"{hex}\"")
    }

    fn answer(&self, policy: &'static str, tag: &str, headers: &HeaderMap) -> Response {
        let mut response = if has(headers, tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, self.media_type)], self.content).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

/// Whether the client's copy is the one with this tag, compared weakly (RFC 9110, 13.1.2).
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|list| list.split(',')).any(|given| given.trim() == "*" || opaque(given) == opaque(tag))
}
