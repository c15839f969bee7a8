//! Why a catalogue file cannot be used.

use std::fmt;
use std::path::PathBuf;

use super::ItemTable;
use crate::{DataError, LineFault, LineUnit};

/// Why a catalogue file cannot be used. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum ItemTableError {
    /// The file cannot be read, or its format is unknown.
    #[error(transparent)]
    File(#[from] DataError),
    /// A line, or a row of a Parquet file, is wrong.
    #[error("{}: {unit} {line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// What the number counts.
        unit: LineUnit,
        /// The number, from 1. Lines count the header.
        line: u64,
        /// What is wrong.
        fault: ItemFault,
    },
    /// No column holds ids.
    #[error("{}: no column is named `id` (columns: {found}). A catalogue file needs a header, or keys, with `id`", path.display())]
    NoId {
        /// The file.
        path: PathBuf,
        /// The columns.
        found: String,
    },
    /// A column cannot be used.
    #[error("{}: the column `{column}` {fault}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What is wrong and what to do.
        fault: KeyFault,
    },
    /// The file has no item.
    #[error("{}: the file has no item. An empty catalogue would hide no mistake, so it is refused", .0.display())]
    NoItems(PathBuf),
}

impl ItemTableError {
    /// Whether the file could not be read, rather than has wrong contents.
    pub fn is_io(&self) -> bool {
        matches!(self, ItemTableError::File(DataError::Read { .. }))
    }
}

/// What is wrong with a line of a catalogue file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ItemFault {
    /// As in interaction files.
    #[error(transparent)]
    Line(#[from] LineFault),
    /// An item has two lines.
    #[error("the item {0:?} stands in an earlier line too")]
    Repeated(String),
    /// `hidden` is no boolean.
    #[error("`hidden` is {0:?}, which is neither true nor false")]
    Hidden(String),
    /// A value is longer than the limit.
    #[error("a value of `{key}` has {bytes} bytes, more than {max}: leave the column out, or shorten its values", max = ItemTable::MAX_VALUE_BYTES)]
    LongValue {
        /// The key.
        key: String,
        /// The value's length in bytes.
        bytes: usize,
    },
    /// The item has more values of one key than the limit.
    #[error("the item has {count} values of `{key}`, more than {max}", max = ItemTable::MAX_VALUES_OF_ITEM)]
    ManyValues {
        /// The key.
        key: String,
        /// Number of values.
        count: usize,
    },
    /// A field stands in one object twice.
    #[error("`{0}` stands in the object twice: leave one out")]
    Twice(String),
    /// A field that must hold one value holds several.
    #[error("`{0}` is a list, where one value is needed")]
    List(String),
    /// There are more keys than the limit.
    #[error("`{0}` is one key more than {max}: leave out columns that nobody filters by", max = ItemTable::MAX_KEYS)]
    ManyKeys(String),
    /// The key's name has a meaning in filters.
    #[error("the key `{0}` {fault}", fault = KeyFault::Reserved)]
    Reserved(String),
    /// There are more items, or more values of all items, than 32 bits count.
    #[error("there are too many items or values")]
    TooMany,
}

/// Why a column cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// Two columns have one name.
    Twice,
    /// The name has a meaning in filters.
    Reserved,
    /// There are more keys than the limit.
    TooMany,
    /// The name is empty or longer than the limit.
    Name,
    /// The values are of a type that cannot be compared with a text.
    Type(&'static str),
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyFault::Twice => f.write_str("stands in the header twice: rename one"),
            KeyFault::Reserved => f.write_str("has a name that means the opposite of a filter: rename it"),
            KeyFault::TooMany => {
                write!(f, "is one key more than {}: leave out columns that nobody filters by", ItemTable::MAX_KEYS)
            }
            KeyFault::Name => write!(f, "needs a name of 1 to {} bytes", ItemTable::MAX_KEY_BYTES),
            KeyFault::Type(kind) => {
                write!(f, "is {kind}, which filters cannot compare: write it as text, or leave it out")
            }
        }
    }
}
