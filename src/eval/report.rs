use canet_domain::RouteSpace;
use canet_evaluation::{Comparison, EvalRun, Metric};

/// What an evaluation found. The tables and the JSON document are two views of it.
pub(super) struct Report<'a> {
    pub(super) split: &'static str,
    /// Largest number of targets per user.
    pub(super) holdout: u32,
    /// What is unfair about the targets.
    pub(super) warning: Option<&'static str>,
    /// Number of targets in their user's own history, which count as misses.
    pub(super) repeated: usize,
    /// Metric of the comparisons.
    pub(super) metric: Metric,
    pub(super) space: &'a RouteSpace,
    /// At least one.
    pub(super) runs: Vec<EvalRun>,
    pub(super) comparisons: Vec<Comparison>,
}
