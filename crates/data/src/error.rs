use std::fmt;
use std::io;
use std::path::PathBuf;

use canet_domain::Catalogue;

use super::{BadLine, BadLinePolicy, Foreign, Form};

/// Why a data set cannot be read. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The path does not exist.
    #[error("{}: no such file; check the path, or run `make data` for MovieLens-100K", .0.display())]
    Missing(PathBuf),
    /// The file or directory cannot be read, or its packed stream is damaged.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The directory has no interaction file.
    #[error(
        "{}: the directory holds no interaction file ({}); give the path of a file",
        .0.display(),
        Form::EXTENSIONS.map(|extension| format!(".{extension}")).join(", ")
    )]
    NoneInDirectory(PathBuf),
    /// The directory has several interaction files.
    #[error(
        "{}: the directory holds several data files ({}); give the paths of those to read",
        path.display(), found.join(", ")
    )]
    SeveralInDirectory {
        /// The directory.
        path: PathBuf,
        /// The files' names.
        found: Vec<String>,
    },
    /// The file is empty or blank.
    #[error("{}: the file is empty", .0.display())]
    Empty(PathBuf),
    /// The file's format is known and not read.
    #[error("{}: {foreign}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its format.
        foreign: Foreign,
    },
    /// The first line that is not blank is wrong.
    #[error("{}: line {line}: {fault}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: u64,
        /// What is wrong and what to do.
        fault: HeaderFault,
    },
    /// The columns are not those that are needed.
    #[error("{}: {fault}", path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        fault: ColumnFault,
    },
    /// More lines are bad than are allowed.
    #[error("{0}")]
    BadLines(Box<TooManyBadLines>),
    /// The Parquet file is damaged, or uses what is not supported.
    #[error("{}: the Parquet file cannot be read: {reason}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The conditions select no row.
    #[error("{}: no row meets {condition}; the column holds {found}", path.display())]
    NothingSelected {
        /// The file.
        path: PathBuf,
        /// The conditions.
        condition: String,
        /// Values of the column.
        found: String,
    },
    /// The parts of one table in a directory have different columns.
    #[error(
        "{}: this part would be read by its column `{column}`, but {} by `{earlier_column}`: name the column with {flag}",
        path.display(),
        earlier.display()
    )]
    PartsDiffer {
        /// The part.
        path: PathBuf,
        /// Its column.
        column: String,
        /// The first part.
        earlier: PathBuf,
        /// The column of the first part.
        earlier_column: String,
        /// The flag that names this column.
        flag: &'static str,
    },
    /// Some files have times and others have none.
    #[error("{}: this file has {}, but {} has {}: give both, or neither (--time-column none)",
        path.display(), times(*timed), earlier.display(), times(!*timed))]
    SomeTimed {
        /// The file.
        path: PathBuf,
        /// Whether this file has times.
        timed: bool,
        /// An earlier file.
        earlier: PathBuf,
    },
    /// The file has no times, or numbers that are no dates.
    #[error(
        "{}: its interactions have no dates: name the column of times with --time-column. Times are ISO 8601 or numbers since 1970",
        .0.display()
    )]
    Undated(PathBuf),
    /// The file has no usable interaction.
    #[error("{}: no interactions", .0.display())]
    NoInteractions(PathBuf),
    /// The filter on interactions leaves nothing.
    #[error("no user and no item keeps {0} interactions: lower --min-interactions")]
    NothingLeft(u32),
    /// The checkpoint knows none of the items.
    #[error("{}: not one of its {interactions} interactions is with an item that the checkpoint knows", path.display())]
    NoKnownItem {
        /// The file.
        path: PathBuf,
        /// Number of interactions in the file.
        interactions: u64,
    },
    /// The interactions take more memory than they may.
    #[error(
        "{}: it is too large for the memory: the first {interactions} interactions already take {}, which is the limit; \
         split the file by users, or run the command with more memory",
        path.display(),
        megabytes(*limit)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Number of interactions that fit.
        interactions: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// There are too few users or items to train on.
    #[error(
        "{}: too few to train on (users: {users}, items: {items}): at least {min_users} users and {min_items} items are \
         needed. Check that the columns are the right ones ({columns})",
        path.display(),
        min_users = super::Dataset::MIN_USERS,
        min_items = super::Dataset::MIN_ITEMS
    )]
    TooFew {
        /// The first file.
        path: PathBuf,
        /// Number of users.
        users: usize,
        /// Number of items.
        items: usize,
        /// The columns that were read.
        columns: String,
    },
    /// No user has two items in the training part.
    #[error("there is nothing to learn: no user has two interactions before the two that are held out")]
    NothingToLearn,
    /// No user has a validation position.
    #[error("there is nobody to validate on: no user has three interactions or more")]
    NothingToValidate,
    /// There are more items or users than dense ids, or more interactions than 32 bits count.
    #[error("more than {max} users or items, or more than 4294967295 interactions", max = Catalogue::MAX_ITEMS)]
    TooMany,
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn times(timed: bool) -> &'static str {
    if timed { "times" } else { "none" }
}

/// What is wrong with the first line of a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// A quoted field has no end.
    #[error("a quoted field opens here and is not closed. Correct the header")]
    OpenQuote,
    /// The line is longer than the limit.
    #[error("longer than {0} bytes. Is this a text file of interactions?")]
    TooLong(usize),
    /// `--columns` names the columns of a table that has a header.
    #[error(
        "this is a header ({0}), and --columns is for tables without one. Leave out --columns; --user-column, --item-column \
         and --time-column name columns of the header"
    )]
    Named(String),
    /// A second header has other columns.
    #[error("a second header, with other columns than the first. Split the file here")]
    Second,
    /// The line has data.
    #[error(
        "this is data, not a header ({first}). Name the columns, for example --columns {example}; check which column is the user"
    )]
    Missing {
        /// The line's fields.
        first: String,
        /// A value of the flag.
        example: String,
    },
    /// The header's columns are separated by blanks.
    #[error("the header's columns are separated by blanks ({0}). Use commas, semicolons, tabs or bars")]
    Blanks(String),
    /// The line has no separator.
    #[error("one column {0:?}, without a comma, semicolon, tab or bar. A table needs a user and an item column")]
    OneColumn(String),
    /// `--columns` does not fit.
    #[error("--columns names {expected} columns, but no separator splits this line into as many: {first:?}")]
    Names {
        /// Number of names.
        expected: usize,
        /// The line.
        first: String,
    },
    /// The first line begins like a JSON object and is none.
    #[error("not a JSON object: {0}. JSON lines have one object a line, with names and texts in double quotes")]
    NotJson(String),
    /// The file is one JSON document.
    #[error("this is one JSON document. JSON lines are read, with one object a line: jq -c '{0}' OLD > NEW.jsonl")]
    JsonDocument(&'static str),
}

/// What is wrong with the columns of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnFault {
    /// No column has a common name for a role.
    #[error("no column is named like {role} (columns: {found}). Name it with {flag}")]
    None {
        /// `a user` or `an item`.
        role: &'static str,
        /// The flag.
        flag: &'static str,
        /// The columns.
        found: String,
    },
    /// A flag names a column that does not exist.
    #[error("{flag} {name}: there is no such column (columns: {found})")]
    Unknown {
        /// The flag.
        flag: &'static str,
        /// The name.
        name: String,
        /// The columns.
        found: String,
    },
    /// Several columns have names of equal rank.
    #[error("the columns {found} have the same name but for its spelling. Name one with {flag}")]
    Ambiguous {
        /// The flag.
        flag: &'static str,
        /// The columns.
        found: String,
    },
    /// One column has two roles.
    #[error("the column `{0}` cannot be two of user, item and time: check the flags")]
    Twice(String),
    /// A column looks like a time and is not used.
    #[error(
        "the column `{name}` looks like a time ({value}) and is not used. Pass --time-column {name}, or --time-column none \
         if the order of the lines is the order of time"
    )]
    UnusedTime {
        /// The column.
        name: String,
        /// One of its values.
        value: String,
    },
    /// `--time-format` is given, and no column is the time.
    #[error("--time-format needs a column of times (columns: {0}). Name it with --time-column")]
    NoTime(String),
    /// The column of times holds numbers that are no times, while another column looks like a time.
    #[error(
        "the column `{name}` looks like a time ({value}) and is not used, because `{read}` has a common name of times. Its \
         values ({number}) are no times since 1970. Pass --time-column {name}, or --time-column {read} to sort by these numbers"
    )]
    BetterTime {
        /// The column that looks like a time.
        name: Box<str>,
        /// One of its values.
        value: Box<str>,
        /// The column with the common name.
        read: Box<str>,
        /// One of its values.
        number: Box<str>,
    },
    /// A column has the name of a time, or dates of another form, and its values cannot be read as times by themselves.
    #[error(
        "the column `{name}` may hold times ({value}). Pass --time-column {name}, \
         with --time-format if they are dates of another form, or --time-column none if the order of the lines is the order of time"
    )]
    UnreadTime {
        /// The column.
        name: String,
        /// One of its values.
        value: String,
    },
    /// A key of JSON lines appears late, and would have had a role.
    #[error("line {line}: the key `{key}` appears here for the first time and {}", late_key(role, flag, key, read.as_deref()))]
    LateKey {
        /// The first line that has the key.
        line: u64,
        /// The key.
        key: Box<str>,
        /// `a user`, `an item` or `a time`.
        role: &'static str,
        /// The flag that names the key of this role.
        flag: &'static str,
        /// The key that was read for this role until then.
        read: Option<Box<str>>,
    },
    /// Several columns have one name, which a role or a flag needs.
    #[error("two columns have the name `{0}`, so that none of them can be named: rename one in the file")]
    Duplicate(String),
    /// The format has no columns.
    #[error("{form} have no named columns, which {flag} needs")]
    Unnamed {
        /// The format.
        form: Form,
        /// The flag.
        flag: &'static str,
    },
    /// `--columns` is given for a format with names of its own.
    #[error("{0} names its columns itself: leave out --columns")]
    Named(Form),
    /// A Parquet column is nested or of a type that has no use.
    #[error("the column `{name}` is {kind}, which cannot be used as {role}")]
    Type {
        /// The column.
        name: String,
        /// Its type.
        kind: String,
        /// The role.
        role: &'static str,
    },
}

/// What a late key changes, and the flags that decide.
fn late_key(role: &str, flag: &str, key: &str, read: Option<&str>) -> String {
    match read {
        Some(read) => format!(
            "is a better name of {role} than `{read}`, which the lines before it have. Pass {flag} {key}, or {flag} {read}"
        ),
        None => format!(
            "looks like {role}, which the lines before it lack. Pass {flag} {key}, or {flag} none if the order of the lines \
             is the order of time"
        ),
    }
}

/// More bad lines than the policy allows.
#[derive(Clone, Debug, PartialEq)]
pub struct TooManyBadLines {
    /// The first of them.
    pub first: BadLine,
    /// Number of bad lines.
    pub bad: u64,
    /// Number of lines that were read.
    pub lines: u64,
    /// Whether the file was read to its end.
    pub ended: bool,
    /// What is allowed.
    pub policy: BadLinePolicy,
}

impl fmt::Display for TooManyBadLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooManyBadLines { first, bad, lines, ended, policy } = self;
        let read = if *ended { "" } else { "the first " };
        let (unit, share) = (first.unit, *bad as f64 / *lines as f64);
        let verb = if *bad == 1 { "is" } else { "are" };
        write!(f, "{first}. {bad} of {read}{lines} {unit}s ({}) {verb} bad", percent(share))?;
        match policy {
            BadLinePolicy::Skip { max_share } => write!(
                f,
                ", more than the {} that --max-bad-share allows: check that the file and its columns are the right ones",
                percent(*max_share)
            ),
            BadLinePolicy::Stop if share <= BadLinePolicy::MAX_SHARE => {
                write!(f, ": correct {}, or pass --skip-bad-lines", if *bad == 1 { "it" } else { "them" })
            }
            BadLinePolicy::Stop => write!(f, ": check that the file and its columns are the right ones"),
        }
    }
}

/// A share in percent with two digits.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 10.0 || percent == percent.round() { format!("{percent:.0} %") } else { format!("{percent:.2} %") }
}
