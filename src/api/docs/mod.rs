use super::assets::{File, Site};

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The OpenAPI document to read and try, at `/docs`.
///
/// `vendor/openapi-explorer.min.js` is OpenAPI Explorer 2.4.820 (Apache-2.0, its licence stands beside it), the file
/// of its npm package as it is.
pub(super) const SITE: Site = Site {
    // Everything is the server's own; the viewer's components bring their styles with them.
    policy: "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; \
             img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    files: &[
        File { path: "/docs", media_type: "text/html; charset=utf-8", content: include_bytes!("index.html") },
        File { path: "/docs/page.css", media_type: "text/css; charset=utf-8", content: include_bytes!("page.css") },
        File { path: "/docs/page.js", media_type: SCRIPT, content: include_bytes!("page.js") },
        File {
            path: "/docs/openapi-explorer.js",
            media_type: SCRIPT,
            content: include_bytes!("vendor/openapi-explorer.min.js"),
        },
        File {
            path: "/docs/openapi-explorer.LICENSE",
            media_type: "text/plain; charset=utf-8",
            content: include_bytes!("vendor/LICENSE"),
        },
    ],
};
