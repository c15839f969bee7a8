use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Form;
use canet_domain::Catalogue;

/// Why a data set cannot be read; every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Nothing stands at the path.
    #[error("{}: no such file; check the path, or run `make data` for MovieLens-100K", .0.display())]
    Missing(PathBuf),
    /// The file or directory cannot be read, or its gzip stream is damaged.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory without an interaction file.
    #[error("{}: the directory holds no .inter, .csv or .txt file; give the path of a file", .0.display())]
    NoneInDirectory(PathBuf),
    /// A directory with several interaction files.
    #[error("{}: the directory holds several data files ({}); give the path of one", path.display(), found.join(", "))]
    SeveralInDirectory {
        /// The directory.
        path: PathBuf,
        /// The files' names.
        found: Vec<String>,
    },
    /// A file of no bytes, or of blank lines alone.
    #[error("{}: the file is empty", .0.display())]
    Empty(PathBuf),
    /// The first line names no column that the form needs.
    #[error("{}: the header has no column `{column}`, which {form} needs (it has: {found})", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The form that was expected.
        form: Form,
        /// The column.
        column: &'static str,
        /// The header as it stands.
        found: String,
    },
    /// A header whose form is not known.
    #[error(
        "{}: the first line looks like a header, but of no known form: use RecBole's `user_id:token` header with tabs, \
         a CSV header `user,item,timestamp`, or lines `user item ...` without a header",
        .0.display()
    )]
    UnknownHeader(PathBuf),
    /// A line that cannot be used.
    #[error("{0}; mend it, or pass --skip-bad-lines")]
    BadLine(BadLine),
    /// Not one usable interaction.
    #[error("{}: no interactions ({skipped})", path.display())]
    NoInteractions {
        /// The file.
        path: PathBuf,
        /// What was skipped.
        skipped: Skipped,
    },
    /// Not one item that the checkpoint knows.
    #[error("{}: not one of its {interactions} interactions is with an item that the checkpoint knows", path.display())]
    NoKnownItem {
        /// The file.
        path: PathBuf,
        /// Interactions in the file.
        interactions: u64,
    },
    /// More items or users than dense ids.
    #[error("{}: more than {max} items or users", .0.display(), max = Catalogue::MAX_ITEMS)]
    TooMany(PathBuf),
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: line {line}: {fault}", path.display())]
pub struct BadLine {
    /// The file.
    pub path: PathBuf,
    /// Its number, from 1, header included.
    pub line: u64,
    /// What is wrong with it.
    pub fault: LineFault,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LineFault {
    /// Bytes that are no text.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// A line of unreasonable length.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// Another number of columns than the header's.
    #[error("{found} columns, the header has {expected}")]
    Columns {
        /// Columns of the line.
        found: usize,
        /// Columns of the header.
        expected: usize,
    },
    /// A quoted field that nothing closes.
    #[error("a quoted field opens here and is not closed until the end of the file")]
    OpenQuote,
    /// An id of no characters.
    #[error("`{0}` is empty")]
    EmptyId(&'static str),
    /// An id that cannot be written to a line-based file.
    #[error("`{0}` holds a tab or a line break")]
    UnusableId(&'static str),
    /// A timestamp that is no finite number.
    #[error("timestamp {0:?} is not a number")]
    Timestamp(String),
    /// A line of one column where a user and an item are needed.
    #[error("one column {0:?}, where a user and at least one item are needed, separated by spaces or tabs")]
    OneColumn(String),
    /// Several items in a file of pairs.
    #[error("{items} items, but line {because} repeats a user, so this is a file of `user item` pairs")]
    SeveralItems {
        /// Items of the line.
        items: usize,
        /// The line that showed the form.
        because: u64,
    },
    /// A user's second line in a file of whole sequences.
    #[error(
        "user {user:?} stands in an earlier line too, but line {because} has several items, \
         so this is a file with one line `user item item ...` a user"
    )]
    RepeatedUser {
        /// The user.
        user: String,
        /// The line that showed the form.
        because: u64,
    },
}

/// The bad lines that `--skip-bad-lines` passed over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first few, up to [`Skipped::SHOWN`].
    pub first: Vec<BadLine>,
}

impl Skipped {
    /// How many are kept to be shown.
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
        for (place, bad) in self.first.iter().enumerate() {
            write!(f, "{} {bad}", if place == 0 { ":" } else { ";" })?;
        }
        if self.count > self.first.len() as u64 { write!(f, "; ...") } else { Ok(()) }
    }
}
