use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::Problem;
use super::endpoint::{Endpoint, Kind};
use super::gzip::accepts_gzip;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// A [`File`] with the path in the URL, its media type, and its path in the sources. The build script compresses the file.
macro_rules! file {
    ($path:literal, $media_type:expr, $source:literal) => {
        File {
            path: $path,
            media_type: $media_type,
            content: include_bytes!($source),
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/pages/", $source, ".gz")),
        }
    };
}

/// The console at `/`: plain files without a build step. It calls the same endpoints as every other client.
///
/// `vendor/uplot` holds files of the npm package uPlot 1.6.32, unchanged, with its MIT licence.
const CONSOLE: Site = Site {
    // Every file comes from this server. No site may frame the page, because it has a button that replaces the model.
    policy: "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    files: &[
        file!("/", HTML, "console/index.html"),
        file!("/console/icon.svg", SVG, "console/icon.svg"),
        file!("/console/style.css", STYLE, "console/style.css"),
        file!("/console/panels.css", STYLE, "console/panels.css"),
        file!("/console/answer.js", SCRIPT, "console/answer.js"),
        file!("/console/api.js", SCRIPT, "console/api.js"),
        file!("/console/charts.js", SCRIPT, "console/charts.js"),
        file!("/console/dom.js", SCRIPT, "console/dom.js"),
        file!("/console/format.js", SCRIPT, "console/format.js"),
        file!("/console/history.js", SCRIPT, "console/history.js"),
        file!("/console/item.js", SCRIPT, "console/item.js"),
        file!("/console/live.js", SCRIPT, "console/live.js"),
        file!("/console/main.js", SCRIPT, "console/main.js"),
        file!("/console/matrix.js", SCRIPT, "console/matrix.js"),
        file!("/console/model.js", SCRIPT, "console/model.js"),
        file!("/console/routes.js", SCRIPT, "console/routes.js"),
        file!("/console/scrape.js", SCRIPT, "console/scrape.js"),
        file!("/console/search.js", SCRIPT, "console/search.js"),
        file!("/console/state.js", SCRIPT, "console/state.js"),
        file!("/console/tried.js", SCRIPT, "console/tried.js"),
        file!("/console/uplot.js", SCRIPT, "console/vendor/uplot/uPlot.iife.min.js"),
        file!("/console/uplot.css", STYLE, "console/vendor/uplot/uPlot.min.css"),
        file!("/console/uplot.LICENSE", TEXT, "console/vendor/uplot/LICENSE"),
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
        file!("/docs", HTML, "docs/index.html"),
        file!("/docs/page.css", STYLE, "docs/page.css"),
        file!("/docs/page.js", SCRIPT, "docs/page.js"),
        file!("/docs/openapi-explorer.js", SCRIPT, "docs/openapi-explorer.min.js"),
        file!("/docs/openapi-explorer.LICENSE", TEXT, "docs/openapi-explorer.LICENSE"),
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
    /// `content` as gzip, so that no request pays for the compression.
    gzip: &'static [u8],
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
        } else if accepts_gzip(headers) {
            let encoding = HeaderValue::from_static("gzip");
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static(self.media_type)),
                (header::CONTENT_ENCODING, encoding),
            ];
            (headers, self.gzip).into_response()
        } else {
            ([(header::CONTENT_TYPE, self.media_type)], self.content).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
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
    use std::io::Read;

    use axum::http::{HeaderMap, HeaderValue, header};

    use super::{CONSOLE, DOCS, has};

    #[test]
    fn the_compressed_files_are_the_files() {
        for file in CONSOLE.files.iter().chain(DOCS.files) {
            let mut content = Vec::new();
            flate2::read::GzDecoder::new(file.gzip).read_to_end(&mut content).unwrap();
            assert_eq!(content, file.content, "{}", file.path);
        }
    }

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
