//! Interaction files, and their split into training, validation and test.
//!
//! [`Dataset::read`] reads every format. [`Form`] documents the formats and how a file's format is detected.
//!
//! CONTRIBUTING.md lists the steps that add a format.

mod bad_line;
mod collector;
mod dataset;
mod detect;
mod error;
mod form;
mod headerless;
mod interaction;
mod lines;
mod locate;
mod split;
mod table;

pub use bad_line::{BadLine, LineFault, Skipped};
pub use collector::{ReadOptions, Untimed};
pub use dataset::Dataset;
pub use error::DataError;
pub use form::Form;
pub use split::{Case, Split};
