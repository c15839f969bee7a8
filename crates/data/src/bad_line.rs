use std::fmt;
use std::path::{Path, PathBuf};

use canet_domain::Catalogue;

use super::{BadLinePolicy, DataError, TimeFormat, TooManyBadLines};

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {unit} {line}: {fault}", path.display())]
pub struct BadLine {
    /// The file.
    pub path: PathBuf,
    /// What the number counts.
    pub unit: LineUnit,
    /// The line's number, from 1, counting the header. For Parquet the row's number, from 1.
    pub line: u64,
    /// The fault.
    pub fault: LineFault,
}

/// What the number of a [`BadLine`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineUnit {
    /// Lines of a text.
    Line,
    /// Rows of a Parquet file.
    Row,
}

impl fmt::Display for LineUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LineUnit::Line => "line",
            LineUnit::Row => "row",
        })
    }
}

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LineFault {
    /// The bytes are not text.
    #[error("not UTF-8 text (Latin-1 files: iconv -f LATIN1 -t UTF-8 OLD > NEW)")]
    NotUtf8,
    /// A value of a Parquet column is no text.
    #[error("`{0}` holds bytes that are no UTF-8 text: write it as a string, or a UUID with Parquet's type for that")]
    Bytes(String),
    /// The line is longer than the limit.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// The number of columns differs from the header's.
    #[error("{found} columns instead of {expected}")]
    Columns {
        /// Columns of the line.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// A quoted field has no end.
    #[error("a quoted field opens here and is not closed within {}", counted(*.0))]
    OpenQuote(usize),
    /// A quoted field ends within a later row, or text follows its closing quote.
    #[error("a quoted field opens here and does not end before a separator")]
    StrayQuote,
    /// The line is not a JSON object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// A field of a JSON object is an object or a list.
    #[error("`{0}` is an object or a list, not a text or a number")]
    Nested(String),
    /// An id is empty.
    #[error("`{0}` is empty")]
    EmptyId(String),
    /// An interaction's user or item is missing: its id is empty, or what programs write for a missing value.
    #[error("{}", missing_id(role, text, column.as_deref()))]
    MissingId {
        /// `user` or `item`.
        role: &'static str,
        /// The id.
        text: String,
        /// The column, unless the format has no names.
        column: Option<String>,
    },
    /// A line-based file cannot hold the id.
    #[error("`{0}` holds a tab or a line break")]
    UnusableId(String),
    /// An id is longer than a checkpoint allows.
    #[error("`{column}` has {bytes} bytes; a checkpoint holds ids of at most {max} bytes", max = Catalogue::MAX_ID_BYTES)]
    LongId {
        /// The column.
        column: String,
        /// The id's length in bytes.
        bytes: usize,
    },
    /// A title is longer than a checkpoint allows.
    #[error("the title has {0} bytes; a checkpoint holds titles of at most {max} bytes", max = Catalogue::MAX_TITLE_BYTES)]
    LongTitle(usize),
    /// The time is neither a number nor a date.
    #[error("`{column}` {}", no_time(text))]
    Time {
        /// The column.
        column: String,
        /// The text.
        text: String,
    },
    /// A condition cannot compare the value.
    #[error("`{column}` is {text:?}, but {comparison}. Leave such lines out: --where '{column}!={text}'")]
    Condition {
        /// The column.
        column: String,
        /// The text.
        text: String,
        /// The condition and what it needs, such as `price>=5 needs a number`.
        comparison: String,
    },
    /// The time is not in the format that the user named.
    #[error("`{column}` is {text:?}, which does not match --time-format '{format}'")]
    TimeFormat {
        /// The column.
        column: String,
        /// The text.
        text: String,
        /// The format.
        format: String,
    },
    /// The time is a date outside the years that a 64-bit number of nanoseconds holds.
    #[error(
        "`{column}` is {text:?}, a date outside the years 1677 to 2262, which often stands for a missing one. Select the \
         others: --where '{column}!={text}'"
    )]
    DateRange {
        /// The column.
        column: String,
        /// The text.
        text: String,
    },
    /// The time is of another kind than those of earlier lines.
    #[error("the time is {found}, but those of earlier lines are {earlier}")]
    MixedTimes {
        /// What the line has.
        found: &'static str,
        /// What earlier lines have.
        earlier: &'static str,
    },
    /// The line has a user and no item.
    #[error("one column {0:?}, where a user and at least one item are needed, separated by spaces or tabs")]
    OneColumn(String),
    /// The line has several items in a file of pairs.
    #[error("{items} items, but line {because} repeats a user, so this is a file of `user item` pairs")]
    SeveralItems {
        /// Items of the line.
        items: usize,
        /// The line that proves pairs.
        because: u64,
    },
    /// The line repeats a user in a file of sequences.
    #[error(
        "user {user:?} stands in an earlier line too, but line {because} has several items, \
         so this is a file with one line `user item item ...` a user"
    )]
    RepeatedUser {
        /// The user.
        user: String,
        /// The line that proves sequences.
        because: u64,
    },
}

/// The bad lines that `--skip-bad-lines` skipped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Skipped {
    /// Number of bad lines.
    pub count: u64,
    /// The first [`Skipped::SHOWN`] of them.
    pub first: Vec<BadLine>,
}

impl Skipped {
    /// Number of bad lines that are kept for the message.
    pub const SHOWN: usize = 5;

    /// Adds the bad lines of a later file.
    pub(crate) fn append(&mut self, later: Skipped) {
        self.count += later.count;
        let room = Skipped::SHOWN - self.first.len();
        self.first.extend(later.first.into_iter().take(room));
    }

    fn add(&mut self, bad: BadLine) {
        self.count += 1;
        if self.first.len() < Skipped::SHOWN {
            self.first.push(bad);
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bad lines skipped", self.count)?;
        for (index, bad) in self.first.iter().enumerate() {
            write!(f, "{} {bad}", if index == 0 { ":" } else { ";" })?;
        }
        if self.count > self.first.len() as u64 { write!(f, "; and more") } else { Ok(()) }
    }
}

/// Which id is missing, and the flag that leaves such rows out.
fn missing_id(role: &str, text: &str, column: Option<&str>) -> String {
    let cure = column.map(|column| format!(" (leave such rows out: --where '{column}!={text}')")).unwrap_or_default();
    match text {
        "" => format!("`{}` is empty{cure}", column.unwrap_or(role)),
        _ => format!("the {role} is `{text}`, which stands for a missing value{cure}"),
    }
}

/// What is wrong with a text in a column of times.
fn no_time(text: &str) -> String {
    if text.is_empty() {
        return "is empty: every interaction needs a time, or none in the whole file has one".to_owned();
    }
    let remedy = match TimeFormat::guess(text) {
        Some((format, None)) => format!("Name its format: --time-format '{format}'"),
        Some((format, Some(other))) => {
            format!("Name its format: --time-format '{format}' or '{other}'")
        }
        None => "If it is a date, name its format, such as --time-format '%m/%d/%Y %H:%M'".to_owned(),
    };
    format!("is {text:?}, which is neither a number nor an ISO 8601 date such as 2023-11-14T22:50:40Z. {remedy}")
}

fn counted(lines: usize) -> String {
    if lines == 1 { "its line".to_owned() } else { format!("{lines} lines") }
}

/// Counts the lines of a file and its bad ones.
pub(crate) struct BadLines {
    policy: BadLinePolicy,
    path: PathBuf,
    unit: LineUnit,
    /// Lines so far that are not blank, without the header.
    pub(crate) lines: u64,
    pub(crate) skipped: Skipped,
}

/// A file with more bad lines than this, which are more than half of its lines, is read no further.
const HOPELESS: u64 = 1000;

impl BadLines {
    pub(crate) fn new(policy: BadLinePolicy, path: &Path, unit: LineUnit) -> BadLines {
        BadLines { policy, path: path.to_owned(), unit, lines: 0, skipped: Skipped::default() }
    }

    /// Counts a bad line.
    ///
    /// # Errors
    /// [`DataError::BadLines`] if most of the lines so far are bad.
    pub(crate) fn report(&mut self, line: u64, fault: LineFault) -> Result<(), DataError> {
        self.skipped.add(BadLine { path: self.path.clone(), unit: self.unit, line, fault });
        if self.skipped.count > HOPELESS && self.skipped.count * 2 > self.lines { self.judge(false) } else { Ok(()) }
    }

    /// Compares the bad lines with those that are allowed. `ended` says whether the whole file was read.
    ///
    /// # Errors
    /// [`DataError::BadLines`] if there are more.
    pub(crate) fn judge(&self, ended: bool) -> Result<(), DataError> {
        let Some(first) = self.skipped.first.first() else { return Ok(()) };
        let (bad, lines) = (self.skipped.count, self.lines.max(1));
        match self.policy {
            BadLinePolicy::Skip { max_share } if bad as f64 <= max_share * lines as f64 => Ok(()),
            policy => {
                Err(DataError::BadLines(Box::new(TooManyBadLines { first: first.clone(), bad, lines, ended, policy })))
            }
        }
    }
}
