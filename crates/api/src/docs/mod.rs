use super::assets::{File, HTML, SCRIPT, STYLE, Site, TEXT};

/// `/docs`: the OpenAPI document to read and to try, all of it out of the binary.
///
/// The viewer is OpenAPI Explorer 2.4.820 (npm `openapi-explorer`, `dist/browser/openapi-explorer.min.js` as it was
/// published), under the Apache licence 2.0 beside it.
pub(super) const SITE: Site = Site {
    // Everything is the server's own, and nobody may frame the page. The viewer's components write their own styles.
    policy: "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; \
             img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    files: &[
        File { path: "/docs", media_type: HTML, content: include_bytes!("index.html") },
        File { path: "/docs/page.css", media_type: STYLE, content: include_bytes!("page.css") },
        File { path: "/docs/page.js", media_type: SCRIPT, content: include_bytes!("page.js") },
        File {
            path: "/docs/openapi-explorer.js",
            media_type: SCRIPT,
            content: include_bytes!("openapi-explorer.min.js"),
        },
        File {
            path: "/docs/openapi-explorer.LICENSE",
            media_type: TEXT,
            content: include_bytes!("openapi-explorer.LICENSE"),
        },
    ],
};
