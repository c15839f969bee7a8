use std::io;
use std::path::PathBuf;

use canet_domain::Catalogue;

use super::{BadLine, Form, Skipped};

/// Why a data set cannot be read. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The path does not exist.
    #[error("{}: no such file; check the path, or run `make data` for MovieLens-100K", .0.display())]
    Missing(PathBuf),
    /// The file or directory cannot be read, or its gzip stream is damaged.
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
        Form::EXTENSIONS.map(|(extension, _)| format!(".{extension}")).join(", ")
    )]
    NoneInDirectory(PathBuf),
    /// The directory has several interaction files.
    #[error("{}: the directory holds several data files ({}); give the path of one", path.display(), found.join(", "))]
    SeveralInDirectory {
        /// The directory.
        path: PathBuf,
        /// The files' names.
        found: Vec<String>,
    },
    /// The file is empty or blank.
    #[error("{}: the file is empty", .0.display())]
    Empty(PathBuf),
    /// The header lacks a column.
    #[error("{}: the header has no column `{column}`, which {form} needs (it has: {found})", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The file's format.
        form: Form,
        /// The column.
        column: &'static str,
        /// The header's columns.
        found: String,
    },
    /// The file has a header of an unknown format.
    #[error(
        "{}: the first line looks like a header, but of no known form: use RecBole's `user_id:token` header with tabs, \
         a CSV header `user,item,timestamp`, or lines `user item ...` without a header",
        .0.display()
    )]
    UnknownHeader(PathBuf),
    /// A line cannot be used.
    #[error("{0}; correct it, or pass --skip-bad-lines")]
    BadLine(BadLine),
    /// The file has no usable interaction.
    #[error("{}: no interactions ({skipped})", path.display())]
    NoInteractions {
        /// The file.
        path: PathBuf,
        /// The lines that were skipped.
        skipped: Skipped,
    },
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
    /// There are more items or users than dense ids.
    #[error("{}: more than {max} items or users", .0.display(), max = Catalogue::MAX_ITEMS)]
    TooMany(PathBuf),
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
