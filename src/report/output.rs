use std::fs;
use std::path::{Path, PathBuf};

use super::super::Failure;
use super::findings::Findings;
use super::page::{Figure, page};
use super::picture::{By, Svg, WIDTHS, curve, differences, map};

/// Where a report goes: `STEM.html`, `STEM.json`, and a `STEM-NAME.svg` a picture.
pub(super) struct Output {
    stem: PathBuf,
}

impl Output {
    /// Makes the directory, so that a path that cannot be written to is known before anything is measured.
    pub(super) fn open(out: &Path) -> Result<Output, Failure> {
        let is_page = out.extension().is_some_and(|extension| extension == "html");
        let stem = if is_page { out.with_extension("") } else { out.join("report") };
        let directory = stem.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
        }
        Ok(Output { stem })
    }

    /// Writes everything; the page's path.
    pub(super) fn write(&self, found: &Findings) -> Result<PathBuf, Failure> {
        let figures = figures(found);
        for figure in &figures {
            if let Some(picture) = figure.pictures.first() {
                self.file(&format!("-{}.svg", figure.name), &picture.file())?;
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

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("--out: cannot write {}: {error}", path.display()))
}

fn figures(found: &Findings) -> Vec<Figure> {
    let drawn = |draw: &dyn Fn(f64) -> Svg| WIDTHS.into_iter().map(draw).collect();
    vec![
        Figure {
            name: "flops",
            title: "Accuracy against compute",
            caption: "Test split, means over users. The line of best static mixtures was chosen on validation. Bars: 95 % \
                      intervals of the router's paired difference from that line at equal FLOPs; a bar that crosses the \
                      line shows no difference. Values alone vary more from one set of users to another than these \
                      differences do: the tables have those errors.",
            pictures: drawn(&|width| curve(found, By::Flops, width)),
        },
        Figure {
            name: "differences",
            title: "What routing gains, budget by budget",
            caption: "Paired differences in NDCG@10 over the same users with 95 % intervals, each for one comparison.",
            pictures: drawn(&|width| differences(found, width)),
        },
        Figure {
            name: "time",
            title: "Accuracy against measured time",
            caption: "The same with the time that a request alone takes on this machine, router included; static mixtures \
                      and the bars are by equal time.",
            pictures: drawn(&|width| curve(found, By::Time, width)),
        },
        Figure {
            name: "routes",
            title: "Who takes which route",
            caption: "Per cent of each group of users by route, of the first model at the budget of the summary; a row \
                      adds up to 100. Rows that look alike mean that the router does not tell these users apart.",
            pictures: drawn(&|width| map(found, width)),
        },
    ]
}
