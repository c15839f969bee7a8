//! Serves requests: a scheduler, executor threads, and the generation of the model that they run.
//!
//! [`Recommender::rank`] turns a validated [`Request`] into a **row** and queues it in the [`scheduler`]. A **lane** is the
//! set of rows that may share a batch. An executor thread asks the scheduler what to do next. The scheduler answers with
//! one of two kinds of work:
//!
//! - Ask the router for the routes of new rows. A row's route decides its lane.
//! - Run a batch of rows of one lane. The executor then sends their answers to the tokio runtime.
//!
//! A [`Reloader`] replaces the [`Generation`] while the server runs. A [`Candidate`] is a second generation, which answers a
//! share of the users until it is promoted or withdrawn. A [`CatalogueFile`] says what is known about the items. This crate
//! knows no transport.

mod absence;
mod answer_log;
mod batch_cost;
mod catalogue_file;
mod executor;
mod exploration;
mod freed_memory;
mod gate;
mod generation;
mod health;
mod judge;
mod load;
pub mod metrics;
mod outcome;
mod priority;
mod ranking;
mod recommender;
mod refusal;
mod reload;
mod reload_error;
mod retired;
mod row;
pub mod scheduler;
mod serving;
mod shadow;
mod shared_scheduler;
mod split;
mod timings;
mod uniform;
mod watch;

pub use answer_log::{AnswerLog, AnswerLogTarget, CallRow, Roll};
pub use catalogue_file::{CatalogueFile, CatalogueRevision, CatalogueView, CurrentView};
pub use exploration::Exploration;
pub use gate::{Doubt, Gate, Regression};
pub use generation::{Generation, GenerationId, Policy};
pub use judge::{JUDGED, Judge, UserAnswer, UserRequest, Visit};
pub use load::{LoadError, Loader, Start};
pub use priority::Priority;
pub use ranking::{RankedRow, rank_requests};
pub use recommender::{AnswerTicket, Recommender, RecommenderOptions};
pub use refusal::{Refusal, Unready};
pub use reload::{Offer, Reloader, ServingVersion};
pub use reload_error::{Conflict, ReloadError};
pub use row::{Answer, Request, Routing, Times};
pub use scheduler::{BatchTiming, Due, Limits};
pub use serving::{Candidate, Serving, Side};
pub use shared_scheduler::SharedScheduler;
pub use split::{SplitBy, UserSplit};
pub use timings::Timings;
pub use watch::{Stamp, Step, Watch};
