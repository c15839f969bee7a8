use canet_domain::RouteSpace;
use canet_evaluation::{Comparison, EvalRun, Metric, SeenItems};

use crate::columns::wrapped;
use crate::verdict::Words;

/// What an evaluation found. The tables and the JSON document are two views of it.
pub(super) struct Report<'a> {
    pub(super) split: &'static str,
    /// Largest number of targets per user.
    pub(super) holdout: u32,
    /// What is unfair about the targets.
    pub(super) warning: Option<&'static str>,
    /// Number of targets in their user's own history.
    pub(super) repeated: usize,
    /// The rule under which all runs ranked.
    pub(super) seen: SeenItems,
    /// Metric of the comparisons.
    pub(super) metric: Metric,
    pub(super) space: &'a RouteSpace,
    /// At least one.
    pub(super) runs: Vec<EvalRun>,
    pub(super) comparisons: Vec<Comparison>,
    /// The conclusion. There is none for the validation split, which chooses the single slice, and for chosen runs.
    pub(super) verdict: Option<Words>,
}

impl Report<'_> {
    /// The line that says what is unfair about the targets; empty if nothing is.
    pub(super) fn caution(&self) -> String {
        self.warning.map(|warning| wrapped(&format!("Caution: {warning}.")) + "\n\n").unwrap_or_default()
    }
}
