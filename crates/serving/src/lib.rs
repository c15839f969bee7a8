//! Executes requests: admission, lanes, the loop that owns the device, and the generation that serves.
//!
//! A validated [`Request`] enters by [`Recommender::rank`], takes a place in the queue ([`Admission`]), and is sent to
//! the executor's thread, which routes it, puts it into a lane ([`Lanes`]), runs it in one batch with others of its
//! lane, and hands the outcome to the runtime. No transport is known here.

mod admission;
mod computed;
mod cost;
mod degrade;
mod executor;
mod generation;
mod lanes;
mod life;
mod load;
pub mod metrics;
mod pace;
mod queue;
mod recommender;
mod refusal;
mod reload;
mod replies;
mod row;
mod shadow;
mod stretch;
mod timings;
mod watch;

pub use admission::{Admission, Need, Permit, QueueFull};
pub use cost::{BatchCost, CostModel, Ran};
pub use degrade::{Degrade, Eased, Relief};
pub use generation::{Generation, GenerationId, Policy};
pub use lanes::{Batch, Due, Lanes};
pub use load::{LoadError, Loader};
pub use pace::Pace;
pub use queue::Queue;
pub use recommender::{Limits, Recommender};
pub use refusal::{Refusal, Unready};
pub use reload::{Reload, ReloadError, Reloader};
pub use row::{Answer, Request, Routing, Times};
pub use timings::Timings;
pub use watch::{Stamp, Watch};
