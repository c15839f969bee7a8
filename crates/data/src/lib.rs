//! Interaction files, and their split into training, validation and test.
//!
//! [`Dataset::read`] reads every format. [`Form`] documents the formats and how a file's format is detected.
//!
//! CONTRIBUTING.md lists the steps that add a format.

mod bad_line;
mod collector;
mod condition;
mod contained;
mod dataset;
mod dense_ids;
mod detect;
mod error;
mod foreign;
mod form;
mod headerless;
mod interaction;
mod json_lines;
mod lines;
mod locate;
mod options;
mod parquet_file;
mod reader;
mod records;
mod roles;
mod source;
mod split;
mod summary;
mod syntax;
mod table;
mod time;
mod times;

pub use bad_line::{BadLine, LineFault, LineUnit, Skipped};
pub use condition::{Condition, ConditionError};
pub use dataset::{Dataset, TimedDataset, Untimed};
pub use error::{ColumnFault, DataError, HeaderFault, TooManyBadLines};
pub use foreign::Foreign;
pub use form::Form;
pub use options::{BadLinePolicy, ReadOptions, TimeColumn};
pub use split::{Case, Split};
pub use summary::{FileSummary, TimeSpan};
pub use times::TimeUnit;
