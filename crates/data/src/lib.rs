//! Interaction files, and their split into training, validation and test.
//!
//! [`Dataset::read`] reads every format. [`Form`] documents the formats and how a file's format is detected.
//!
//! To add a format, add a variant to [`Form`], recognise it in `detect.rs`, and read its lines in a module such as
//! `table.rs`.

mod bad_line;
mod collector;
mod dataset;
mod detect;
mod error;
mod form;
mod headerless;
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
