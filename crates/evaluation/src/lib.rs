//! Offline evaluation of a routed model: ranking metrics, baselines and statistics.
//!
//! # Protocol
//!
//! The split is leave-one-out: a user's last item is the test target, the item before it is the validation target, and
//! the rest is training data ([`Dataset::cases`](canet_data::Dataset::cases)). A target is ranked among all items of
//! the catalogue outside the user's history, or of the whole catalogue under [`SeenItems::Included`]. Sampled
//! candidates are never used, because metrics over samples can order models differently (Krichene and Rendle, "On
//! sampled metrics for item recommendation", KDD 2020).
//!
//! ```
//! use canet_domain::Item;
//! use canet_evaluation::{Estimate, Metric, target_rank};
//!
//! let [first, second, third] = [1, 2, 3].map(|id| Item::new(id).unwrap());
//! // Column 0 is the padding. Item 1 has the best score, but the user has seen it.
//! let rank = target_rank(&[0.0, 9.0, 2.0, 5.0], &[first], second);
//! assert_eq!(rank, Some(2));
//!
//! let values = [Metric::Mrr.value(rank), Metric::Mrr.value(target_rank(&[0.0, 9.0, 2.0, 5.0], &[first], third))];
//! assert_eq!(Estimate::of(&values).mean, 0.75);
//! ```
//!
//! # Baselines
//!
//! A saving alone proves nothing: a router that ignores the user saves as much. So [`evaluate`] runs the router beside
//! - the full model and each other route for every user,
//! - random routes, drawn uniformly or with the router's own frequencies,
//! - two baselines without a network: [`Popularity`] and [`Markov`].
//!
//! # Statistics
//!
//! | question | answer |
//! | --- | --- |
//! | How good is a run? | [`Estimate`]: mean and standard error over users |
//! | Do two runs differ? | [`compare`]: paired bootstrap over users |
//! | What can a policy of routing achieve? | [`RouteTable`]: every route on every case |
//! | What can static routes achieve at a cost? | [`UpperHull`] of the routes, cross-fitted by [`TwoFolds`] |
//! | Does the router know anything about the user? | [`PermutationTest`] |
//! | Does a result hold for other trainings? | [`MultiModelEstimate`] |
//! | Is the model worth serving, and does routing pay? | [`Verdict`] |
//! | Which users take which route? | [`by_taste`], [`by_length`], [`by_popularity`] |

mod baseline;
mod bootstrap;
mod cases_by_user;
mod eval_run;
mod kmeans;
mod metric;
mod multi_model;
mod permutation_test;
mod ranker;
mod route_table;
mod seen_items;
mod student_t;
mod target_rank;
#[cfg(test)]
mod testing;
mod two_folds;
mod upper_hull;
mod user_groups;
mod verdict;

pub use baseline::{Baseline, BaselineInputs, Markov, Popularity, evaluate};
pub use bootstrap::{Comparison, RESAMPLES, compare};
pub use cases_by_user::{CasesByUser, UserMeans};
pub use eval_run::{EvalRun, RouteUsage};
pub use metric::{CUTOFFS, Estimate, Metric};
pub use multi_model::MultiModelEstimate;
pub use permutation_test::{PERMUTATIONS, PermutationTest, route_frequencies};
pub use ranker::{EvaluatedModel, RANDOM_ASSIGNMENTS, Ranker, rank_targets};
pub use route_table::{PolicyOutcome, RouteTable};
pub use seen_items::SeenItems;
pub use student_t::t_critical;
pub use target_rank::target_rank;
pub use two_folds::TwoFolds;
pub use upper_hull::UpperHull;
pub use user_groups::{GroupDescription, UserGroup, by_length, by_popularity, by_taste};
pub use verdict::{
    Contender, Difference, Rival, Routing, Shown, Unbeaten, Verdict, VerdictInputs, VerdictRuns, best_affordable_route,
    selection_cases, selection_step,
};
