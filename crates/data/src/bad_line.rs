use std::fmt;
use std::path::PathBuf;

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: line {line}: {fault}", path.display())]
pub struct BadLine {
    /// The file.
    pub path: PathBuf,
    /// The line's number, from 1, counting the header.
    pub line: u64,
    /// The fault.
    pub fault: LineFault,
}

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LineFault {
    /// The bytes are not text.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// The line is longer than the limit.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// The number of columns differs from the header's.
    #[error("{found} columns, the header has {expected}")]
    Columns {
        /// Columns of the line.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// A quoted field has no end.
    #[error("a quoted field opens here and is not closed until the end of the file")]
    OpenQuote,
    /// An id is empty.
    #[error("`{0}` is empty")]
    EmptyId(&'static str),
    /// A line-based file cannot hold the id.
    #[error("`{0}` holds a tab or a line break")]
    UnusableId(&'static str),
    /// The timestamp is not a finite number.
    #[error("timestamp {0:?} is not a number")]
    Timestamp(String),
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

    pub(crate) fn add(&mut self, bad: BadLine) {
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
        if self.count > self.first.len() as u64 { write!(f, "; ...") } else { Ok(()) }
    }
}
