use super::assets::{File, HTML, SCRIPT, STYLE, Site, TEXT};

const SVG: &str = "image/svg+xml";

/// The console at `/`: plain files without a build step. It asks the same endpoints as everybody else.
///
/// `vendor/uplot` is uPlot 1.6.32 (MIT, its licence stands beside it), the files of its npm package as they are.
pub(super) const SITE: Site = Site {
    // Everything is the server's own, and nobody may frame the page: it has a button that replaces the model.
    policy: "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    files: &[
        File { path: "/", media_type: HTML, content: include_bytes!("index.html") },
        File { path: "/console/icon.svg", media_type: SVG, content: include_bytes!("icon.svg") },
        File { path: "/console/style.css", media_type: STYLE, content: include_bytes!("style.css") },
        File { path: "/console/panels.css", media_type: STYLE, content: include_bytes!("panels.css") },
        File { path: "/console/answer.js", media_type: SCRIPT, content: include_bytes!("answer.js") },
        File { path: "/console/api.js", media_type: SCRIPT, content: include_bytes!("api.js") },
        File { path: "/console/charts.js", media_type: SCRIPT, content: include_bytes!("charts.js") },
        File { path: "/console/dom.js", media_type: SCRIPT, content: include_bytes!("dom.js") },
        File { path: "/console/format.js", media_type: SCRIPT, content: include_bytes!("format.js") },
        File { path: "/console/history.js", media_type: SCRIPT, content: include_bytes!("history.js") },
        File { path: "/console/item.js", media_type: SCRIPT, content: include_bytes!("item.js") },
        File { path: "/console/live.js", media_type: SCRIPT, content: include_bytes!("live.js") },
        File { path: "/console/main.js", media_type: SCRIPT, content: include_bytes!("main.js") },
        File { path: "/console/matrix.js", media_type: SCRIPT, content: include_bytes!("matrix.js") },
        File { path: "/console/model.js", media_type: SCRIPT, content: include_bytes!("model.js") },
        File { path: "/console/routes.js", media_type: SCRIPT, content: include_bytes!("routes.js") },
        File { path: "/console/scrape.js", media_type: SCRIPT, content: include_bytes!("scrape.js") },
        File { path: "/console/search.js", media_type: SCRIPT, content: include_bytes!("search.js") },
        File { path: "/console/state.js", media_type: SCRIPT, content: include_bytes!("state.js") },
        File { path: "/console/tried.js", media_type: SCRIPT, content: include_bytes!("tried.js") },
        File {
            path: "/console/uplot.js",
            media_type: SCRIPT,
            content: include_bytes!("vendor/uplot/uPlot.iife.min.js"),
        },
        File { path: "/console/uplot.css", media_type: STYLE, content: include_bytes!("vendor/uplot/uPlot.min.css") },
        File { path: "/console/uplot.LICENSE", media_type: TEXT, content: include_bytes!("vendor/uplot/LICENSE") },
    ],
};
