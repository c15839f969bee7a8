use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::findings::Findings;
use super::page::{Figure, page};
use super::plot::{CostKind, Svg, WIDTHS, accuracy_over_cost, differences, route_map};
use crate::Failure;

/// The files of a report: `STEM.html`, `STEM.json` and one `STEM-NAME.svg` per plot.
pub(super) struct Output {
    stem: PathBuf,
}

impl Output {
    /// Creates the directory, so a path that cannot be written fails before the measurement.
    pub(super) fn open(out: &Path) -> Result<Output, Failure> {
        let is_page = out.extension().is_some_and(|extension| extension == "html");
        let stem = if is_page { out.with_extension("") } else { out.join("report") };
        let directory = stem.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
        }
        Ok(Output { stem })
    }

    /// Writes all files and returns the path of the page.
    pub(super) fn write(&self, found: &Findings) -> Result<PathBuf, Failure> {
        let figures = figures(found);
        for figure in &figures {
            if let Some(plot) = figure.plots.first() {
                self.file(&format!("-{}.svg", figure.name), &plot.file())?;
            }
        }
        let document = serde_json::to_string_pretty(found).map_err(Failure::data)? + "\n";
        self.file(".json", &document)?;
        self.file(".html", &page(found, &figures))
    }

    fn file(&self, ending: &str, content: &str) -> Result<PathBuf, Failure> {
        let mut path = self.stem.clone().into_os_string();
        path.push(ending);
        let path = PathBuf::from(path);
        fs::write(&path, content).map_err(|error| unwritable(&path, &error))?;
        Ok(path)
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::unwritable(error, format!("--out: cannot write {}: {error}", path.display()))
}

fn figures(found: &Findings) -> Vec<Figure> {
    let drawn = |draw: &dyn Fn(f64) -> Svg| WIDTHS.into_iter().map(draw).collect();
    vec![
        Figure {
            name: "flops",
            title: "Accuracy against FLOPs",
            caption: "Test split, means over users. The line of best static mixtures is chosen on validation. A bar is the \
                      95 % interval of the router's paired difference from that line at equal FLOPs. A bar that crosses \
                      the line shows no difference. The values themselves vary more between sets of users than these \
                      differences do; their standard errors are in the tables.",
            plots: drawn(&|width| accuracy_over_cost(found, CostKind::Flops, width)),
        },
        Figure {
            name: "differences",
            title: "Gain of routing at each budget",
            caption: "Paired differences in NDCG@10 over the same users. Each 95 % interval is for one comparison.",
            plots: drawn(&|width| differences(found, width)),
        },
        Figure {
            name: "time",
            title: "Accuracy against measured time",
            caption: "The same against the measured time of a request that runs alone on this machine, including the router. \
                      The static mixtures and the bars compare at equal time.",
            plots: drawn(&|width| accuracy_over_cost(found, CostKind::Time, width)),
        },
        Figure {
            name: "routes",
            title: "Which users take which route",
            caption: "Percentage of each group of users by route, for the first model at the budget of the summary. A row \
                      adds up to 100. If two rows are alike, the router does not distinguish their users.",
            plots: drawn(&|width| route_map(found, width)),
        },
    ]
}
