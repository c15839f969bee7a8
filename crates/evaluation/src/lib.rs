//! How good a routed model is at what cost: full-ranking metrics, and everything it has to be better than.
//!
//! A saving alone proves nothing (a router that ignores its input saves as much), so a routed run stands beside
//! the full model, each static route, random routes, random routes of the router's own frequencies, and two
//! baselines without a network.

mod baseline;
mod bootstrap;
mod by_user;
mod contender;
mod folds;
mod groups;
mod hull;
mod kmeans;
mod markov;
mod metric;
mod permuted;
mod popularity;
mod rank;
mod ranker;
mod replicated;
mod route_table;
mod run;
mod student;

pub use bootstrap::{Comparison, RESAMPLES, compare};
pub use by_user::ByUser;
pub use contender::{Contender, Contest, evaluate};
pub use folds::Halves;
pub use groups::{Group, Mark, by_length, by_popularity, by_taste};
pub use hull::Hull;
pub use kmeans::kmeans;
pub use markov::Markov;
pub use metric::{CUTOFFS, Estimate, Metric, Metrics};
pub use permuted::{PERMUTATIONS, Permuted, frequencies};
pub use popularity::Popularity;
pub use rank::target_rank;
pub use ranker::{DRAWS, Ranker, Subject};
pub use replicated::Replicated;
pub use route_table::{Outcome, RouteTable};
pub use run::{Run, Share};
pub use student::t_reach;
