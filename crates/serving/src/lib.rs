//! Serves requests: a scheduler, executor threads, and the generation of the model that they run.
//!
//! [`Recommender::rank`] takes a validated [`Request`] and gives it to the [`scheduler`]. An executor thread asks the
//! scheduler for work: it routes the row, runs it in one batch with others of its lane, and sends the answer to the
//! runtime. A [`Reloader`] replaces the [`Generation`] meanwhile. No transport is known here.

mod batch_cost;
mod executor;
mod generation;
mod health;
mod load;
pub mod metrics;
mod outcome;
mod pace;
mod recommender;
mod refusal;
mod reload;
mod row;
pub mod scheduler;
mod shadow;
mod shared_scheduler;
mod timings;
mod watch;

pub use generation::{Generation, GenerationId, Policy};
pub use load::{LoadError, Loader};
pub use pace::Pace;
pub use recommender::Recommender;
pub use refusal::{Refusal, Unready};
pub use reload::{Reload, ReloadError, Reloader};
pub use row::{Answer, Request, Routing, Times};
pub use scheduler::{BatchTiming, Due, Limits};
pub use shared_scheduler::SharedScheduler;
pub use timings::Timings;
pub use watch::{Stamp, Watch};
