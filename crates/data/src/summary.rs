use std::path::PathBuf;

use super::TimeUnit;

/// What was understood of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSummary {
    /// The file. `-` is standard input.
    pub path: PathBuf,
    /// The format in words, as in `CSV, separated by commas, gzip`.
    pub form: String,
    /// The column of users. Formats without names have none.
    pub user: Option<String>,
    /// The column of items.
    pub item: Option<String>,
    /// The column of times.
    pub time: Option<String>,
    /// The format by which the times were read, if the user named one.
    pub time_format: Option<String>,
    /// Columns that are neither read nor part of a condition.
    pub unused: Vec<String>,
    /// What the times are. `None` if the file has none.
    pub time_unit: Option<TimeUnit>,
    /// Lines that are not blank, without the header; rows of a Parquet file.
    pub lines: u64,
    /// Bad lines that were skipped.
    pub skipped: u64,
    /// Lines that do not meet the conditions.
    pub unselected: u64,
}

/// The earliest and the latest time of all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    /// Nanoseconds since 1970, UTC.
    pub first: i128,
    /// Nanoseconds since 1970, UTC.
    pub last: i128,
    /// Whether the times are dates. If not, only their order has a meaning.
    pub dates: bool,
}
