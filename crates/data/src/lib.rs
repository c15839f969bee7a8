//! Interaction files and their split into training, validation and test, and catalogue files.
//!
//! [`Dataset::read`] reads interactions in every format. [`Form`] documents the formats and how a file's format is detected.
//! [`ItemTable::read`] reads what a shop knows about its items.
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
mod item_table;
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
mod time_format;
mod times;

pub use bad_line::{BadLine, LineFault, LineUnit, Skipped};
pub use condition::{Condition, ConditionError};
pub use dataset::{Dataset, Duplicates, OrderedDataset, TimedDataset};
pub use error::{ColumnFault, DataError, HeaderFault, TooManyBadLines};
pub use foreign::Foreign;
pub use form::Form;
pub use item_table::{ItemFault, ItemKey, ItemTable, ItemTableBuilder, ItemTableError, KeyFault};
pub use options::{BadLinePolicy, ReadOptions, TimeColumn};
pub use reader::{CoarseTimes, Untimed};
pub use split::{Case, Split};
pub use summary::{FileSummary, TimeSpan};
pub use time::rfc3339;
pub use time_format::{TimeFormat, TimeFormatError};
pub use times::TimeUnit;
