use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::Problem;
use super::endpoint::{Endpoint, Kind};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// The console at `/`: plain files without a build step. It calls the same endpoints as every other client.
///
/// `vendor/uplot` holds files of the npm package uPlot 1.6.32, unchanged, with its MIT licence.
const CONSOLE: Site = Site {
    // Every file comes from this server. No site may frame the page, because it has a button that replaces the model.
    policy: "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    files: &[
        File { path: "/", media_type: HTML, content: include_bytes!("console/index.html") },
        File { path: "/console/icon.svg", media_type: SVG, content: include_bytes!("console/icon.svg") },
        File { path: "/console/style.css", media_type: STYLE, content: include_bytes!("console/style.css") },
        File { path: "/console/panels.css", media_type: STYLE, content: include_bytes!("console/panels.css") },
        File { path: "/console/answer.js", media_type: SCRIPT, content: include_bytes!("console/answer.js") },
        File { path: "/console/api.js", media_type: SCRIPT, content: include_bytes!("console/api.js") },
        File { path: "/console/charts.js", media_type: SCRIPT, content: include_bytes!("console/charts.js") },
        File { path: "/console/dom.js", media_type: SCRIPT, content: include_bytes!("console/dom.js") },
        File { path: "/console/format.js", media_type: SCRIPT, content: include_bytes!("console/format.js") },
        File { path: "/console/history.js", media_type: SCRIPT, content: include_bytes!("console/history.js") },
        File { path: "/console/item.js", media_type: SCRIPT, content: include_bytes!("console/item.js") },
        File { path: "/console/live.js", media_type: SCRIPT, content: include_bytes!("console/live.js") },
        File { path: "/console/main.js", media_type: SCRIPT, content: include_bytes!("console/main.js") },
        File { path: "/console/matrix.js", media_type: SCRIPT, content: include_bytes!("console/matrix.js") },
        File { path: "/console/model.js", media_type: SCRIPT, content: include_bytes!("console/model.js") },
        File { path: "/console/routes.js", media_type: SCRIPT, content: include_bytes!("console/routes.js") },
        File { path: "/console/scrape.js", media_type: SCRIPT, content: include_bytes!("console/scrape.js") },
        File { path: "/console/search.js", media_type: SCRIPT, content: include_bytes!("console/search.js") },
        File { path: "/console/state.js", media_type: SCRIPT, content: include_bytes!("console/state.js") },
        File { path: "/console/tried.js", media_type: SCRIPT, content: include_bytes!("console/tried.js") },
        File {
            path: "/console/uplot.js",
            media_type: SCRIPT,
            content: include_bytes!("console/vendor/uplot/uPlot.iife.min.js"),
        },
        File {
            path: "/console/uplot.css",
            media_type: STYLE,
            content: include_bytes!("console/vendor/uplot/uPlot.min.css"),
        },
        File {
            path: "/console/uplot.LICENSE",
            media_type: TEXT,
            content: include_bytes!("console/vendor/uplot/LICENSE"),
        },
    ],
};

/// `/docs` shows the OpenAPI document and sends requests to its endpoints.
///
/// The viewer is OpenAPI Explorer 2.4.820: `dist/browser/openapi-explorer.min.js` of the npm package
/// `openapi-explorer`, unchanged, with its Apache 2.0 licence.
const DOCS: Site = Site {
    // Every file comes from this server, and no site may frame the page. The viewer's components write inline styles.
    policy: "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; \
             img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    files: &[
        File { path: "/docs", media_type: HTML, content: include_bytes!("docs/index.html") },
        File { path: "/docs/page.css", media_type: STYLE, content: include_bytes!("docs/page.css") },
        File { path: "/docs/page.js", media_type: SCRIPT, content: include_bytes!("docs/page.js") },
        File {
            path: "/docs/openapi-explorer.js",
            media_type: SCRIPT,
            content: include_bytes!("docs/openapi-explorer.min.js"),
        },
        File {
            path: "/docs/openapi-explorer.LICENSE",
            media_type: TEXT,
            content: include_bytes!("docs/openapi-explorer.LICENSE"),
        },
    ],
};

/// A page and its files. The binary carries them.
struct Site {
    /// Its `content-security-policy`.
    policy: &'static str,
    files: &'static [File],
}

/// A file of a [`Site`].
struct File {
    path: &'static str,
    media_type: &'static str,
    content: &'static [u8],
}

/// The files of both pages.
pub(crate) fn endpoints() -> impl Iterator<Item = Endpoint> {
    [CONSOLE, DOCS].into_iter().flat_map(|Site { policy, files }| files.iter().map(move |file| file.endpoint(policy)))
}

impl File {
    fn endpoint(&'static self, policy: &'static str) -> Endpoint {
        let tag = self.tag();
        Endpoint {
            path: self.path.to_owned(),
            handlers: get(async move |headers| self.answer(policy, &tag, &headers)),
            kind: Kind::Public,
            refuse: Problem::into_response,
            documentation: None,
        }
    }

    /// The `etag`. It is weak, because the answer may be compressed.
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
        // The browser must ask each time: after an update of the server it must not mix old files with new ones.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

/// Whether the client has the copy with this tag. Tags are compared weakly (RFC 9110, 13.1.2).
fn has(headers: &HeaderMap, tag: &str) -> bool {
    fn opaque(tag: &str) -> &str {
        tag.trim().trim_start_matches("W/")
    }
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|list| list.split(',')).any(|given| given.trim() == "*" || opaque(given) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::has;

    #[test]
    fn tags_are_compared_weakly_in_every_header() {
        let has = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::IF_NONE_MATCH, HeaderValue::from_static(value)));
            has(&HeaderMap::from_iter(values), "W/\"a\"")
        };
        assert!(has(&["W/\"a\""]) && has(&["\"a\""]) && has(&["\"b\" , \"a\""]) && has(&["*"]));
        assert!(!has(&[]) && !has(&["\"b\""]) && !has(&["a"]));
    }
}
