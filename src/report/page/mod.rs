//! The report as one HTML page without scripts and without requests to any host.

mod method;
mod summary;
mod tables;

use std::fmt::Write as _;

use super::findings::Findings;
use super::format::{escaped, mega};
use super::plot::{STYLE, Svg};

pub(super) use summary::summary;

const PAGE_STYLE: &str = include_str!("style.css");

/// A plot with its title and caption.
pub(super) struct Figure {
    /// Part of the name of the plot's file.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) caption: &'static str,
    /// The plot at each width, the widest first.
    pub(super) plots: Vec<Svg>,
}

/// The HTML document.
pub(super) fn page(found: &Findings, figures: &[Figure]) -> String {
    let names: Vec<String> = found.models.iter().map(|m| format!("{}, version {}", m.name, m.version)).collect();
    let names = escaped(&names.join("; "));
    let data = escaped(&found.data.name);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Routing report: {names}</title>\n<style>\n{STYLE}{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<p class=\"kind\">Routing report</p>\n<h1>{names}</h1>\n<p class=\"hint\">Data: {data}, {} users, {} items. Metric: \
         NDCG@10 on the test split, ranked over the whole catalogue. {} routes of {} to {} MFLOPs.</p>\n</header>\n",
        found.users,
        found.items,
        found.routes.len(),
        found.routes.first().map_or_else(String::new, |route| mega(route.cost.flops)),
        mega(found.full_flops),
    );
    let verdict = &found.verdict;
    let _ = writeln!(
        html,
        "<section class=\"summary\">\n<h2>{}</h2>\n{}<ul>",
        escaped(&verdict.headline),
        tables::verdict(found)
    );
    let next = verdict.next.iter().map(|next| format!("Next: {next}"));
    for sentence in verdict.sentences.iter().cloned().chain(next).chain(summary(found)) {
        let _ = writeln!(html, "<li>{}</li>", escaped(&sentence));
    }
    html += "</ul>\n</section>\n";
    for figure in figures {
        let _ = writeln!(html, "<section>\n<h2>{}</h2>\n<figure>", escaped(figure.title));
        for (class, plot) in ["wide", "narrow"].iter().zip(&figure.plots) {
            let _ = writeln!(html, "<div class=\"{class}\">{}</div>", plot.inline());
        }
        let _ = writeln!(html, "<figcaption>{}</figcaption>\n</figure>\n</section>", escaped(figure.caption));
    }
    let mut tables = vec![
        ("The router at each budget", tables::budgets(found)),
        ("Baselines", tables::baselines(found)),
        ("Permutation test", tables::permutation_test(found)),
        ("Groups of users", tables::groups(found)),
        ("Every route for every user", tables::routes(found)),
    ];
    if !found.trained_alone.is_empty() {
        tables.insert(2, ("Models trained alone", tables::standalone(found)));
    }
    for (title, table) in tables {
        let _ = writeln!(html, "<section>\n<h2>{title}</h2>\n{table}</section>");
    }
    html += "<section class=\"method\">\n<h2>Method</h2>\n";
    for paragraph in method::method(found) {
        let _ = writeln!(html, "<p>{}</p>", escaped(&paragraph));
    }
    html + "</section>\n</main>\n</body>\n</html>\n"
}
