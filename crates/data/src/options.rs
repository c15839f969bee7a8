use super::{Condition, TimeFormat};

/// How to read interaction files.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// What bad lines do.
    pub bad_lines: BadLinePolicy,
    /// The names of the columns, for tables without a header. The first line is then data.
    pub columns: Option<Vec<String>>,
    /// The column of users, if its name is not one of the common ones.
    pub user_column: Option<String>,
    /// The column of items, if its name is not one of the common ones.
    pub item_column: Option<String>,
    /// The column of times.
    pub time_column: TimeColumn,
    /// The format of the column of times, unless its values are numbers, ISO 8601 dates or Parquet's own times.
    pub time_format: Option<TimeFormat>,
    /// The rows to use: those that meet every condition. Conditions of equality on one column are alternatives.
    pub conditions: Vec<Condition>,
    /// Drop users and items with fewer interactions than this, until none is left. 0 and 1 drop nothing.
    pub min_interactions: u32,
    /// Drop interactions with the same user, item and time as an earlier one.
    pub drop_duplicates: bool,
    /// Bytes of memory that the interactions may take; `None` for no limit. A small packed file can hold very many.
    pub max_bytes: Option<u64>,
}

/// What bad lines do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum BadLinePolicy {
    /// A bad line is an error.
    #[default]
    Stop,
    /// Bad lines are skipped and counted. More than this share of a file's lines is an error.
    Skip {
        /// From 0 to 1.
        max_share: f64,
    },
}

impl BadLinePolicy {
    /// The share of bad lines that may be skipped unless the user says otherwise.
    pub const MAX_SHARE: f64 = 0.01;
}

/// The column of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimeColumn {
    /// A column of a common name.
    #[default]
    Detect,
    /// None: the order of the file is the order of time.
    FileOrder,
    /// The column of this name.
    Named(String),
}
