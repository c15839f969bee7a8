use std::io;
use std::path::PathBuf;

use canet_domain::CatalogueError;

use super::{CalibrationError, Manifest, ProbesError};
use crate::{ConfigError, JsonError, TensorFileError, WeightsError};

/// Why a checkpoint cannot be written, found or read. Every message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused an operation on a file.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operation.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The system refused an operation on the copy of a store's version.
    #[error("{path}: cannot {action} this copy of a version: {source}")]
    Copy {
        /// The file or directory.
        path: PathBuf,
        /// The operation.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The store that holds the model does not answer or refuses.
    #[error("{address}: {reason}")]
    Origin {
        /// The object or the model.
        address: String,
        /// The reason, and what to do.
        reason: String,
    },
    /// The model directory does not exist.
    #[error("{path}: no such model directory; check the path, or make one with `canet train` or `canet import`")]
    NoModel {
        /// The path that the caller gave.
        path: PathBuf,
    },
    /// The path is a file, not a directory.
    #[error("{path}: not a directory; a model is a directory of numbered versions, as models/ml-100k")]
    NotADirectory {
        /// The path that the caller gave.
        path: PathBuf,
    },
    /// The path is a version's directory instead of the model's.
    #[error("{path}: this is one version of a model; give the model's directory{}", advice(root, version))]
    IsVersion {
        /// The path that the caller gave.
        path: PathBuf,
        /// The directory above it, which is the model's.
        root: Option<PathBuf>,
        /// The version, if the directory's name is one.
        version: Option<u64>,
    },
    /// The directory's name cannot name a model.
    #[error("{path}: the last part of the path names the model and must be readable text")]
    NoName {
        /// The path that the caller gave.
        path: PathBuf,
    },
    /// The model directory has no version.
    #[error("{path}: holds no version; expected numbered directories such as {path}/1{}", not_versions(ignored))]
    NoVersions {
        /// The model's directory.
        path: PathBuf,
        /// Directories whose names are similar to versions.
        ignored: Vec<String>,
    },
    /// The directory holds models instead of versions.
    #[error("{path}: holds models, not versions; name one of them, as {example}")]
    HoldsModels {
        /// The path that the caller gave.
        path: PathBuf,
        /// One of the models.
        example: PathBuf,
    },
    /// The version does not exist.
    #[error("{path}: there is no version {version}; the model has {}", in_words(available))]
    NoVersion {
        /// The model's directory.
        path: PathBuf,
        /// The version that the caller gave.
        version: u64,
        /// The versions that exist.
        available: Vec<u64>,
    },
    /// No number is left for the next version.
    #[error("{path}: no number is left after the highest version; remove that directory")]
    VersionsExhausted {
        /// The model's directory.
        path: PathBuf,
    },
    /// A file of the checkpoint is missing.
    #[error("{path}: the file is missing; the checkpoint is incomplete, copy it again")]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file of the checkpoint is shorter than it says itself.
    #[error("{path}: the file ends early; the checkpoint is incomplete, copy it again")]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// The path is a directory, a pipe or the like, not a file.
    #[error("{path}: not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than the configuration allows.
    #[error("{path}: {size} bytes, at most {limit} are possible for this configuration")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is not the one that was written.
    #[error("{path}: sha256 is {found}, canet.json says {expected}; the file was damaged or changed, copy it again")]
    Digest {
        /// The file.
        path: PathBuf,
        /// The digest of its bytes.
        found: String,
        /// The digest in the manifest.
        expected: String,
    },
    /// The manifest has the layout of another version of this program.
    #[error("{path}: `format` is {found}, this program reads {supported}; use the program that wrote it", supported = Manifest::FORMAT)]
    Format {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The manifest does not fit its layout.
    #[error("{path}: {source}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The field at fault and the reason.
        source: JsonError,
    },
    /// A metric is not a number.
    #[error("{path}: `metrics.{metric}` is not a finite number")]
    Metric {
        /// The manifest.
        path: PathBuf,
        /// The metric's name.
        metric: String,
    },
    /// The configuration is invalid.
    #[error("{path}: config: {source}")]
    Config {
        /// The manifest.
        path: PathBuf,
        /// The reason.
        source: ConfigError,
    },
    /// The calibration does not fit the configuration.
    #[error("{path}: {source}")]
    Calibration {
        /// The manifest.
        path: PathBuf,
        /// The reason.
        source: CalibrationError,
    },
    /// A tensor file cannot be read or written, or holds other tensors.
    #[error("{path}: {source}{}", remedy(source))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: TensorFileError,
    },
    /// The weights do not fit the configuration, or are not finite.
    #[error("{path}: {source}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: WeightsError,
    },
    /// A line of a text file is invalid.
    #[error("{path}: line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The reason.
        reason: &'static str,
    },
    /// The ids do not make a catalogue.
    #[error("{path}: {source}")]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: CatalogueError,
    },
    /// The number of ids is not the configuration's number of items.
    #[error("{path}: {found} item ids, `config.items` says {expected}")]
    ItemCount {
        /// The file.
        path: PathBuf,
        /// Number of ids.
        found: usize,
        /// Number of items of the configuration.
        expected: usize,
    },
    /// A popularity count is negative, or the padding has one.
    #[error("{path}: `popularity` holds {value} at place {place}: counts are 0 or more, and 0 for the padding")]
    Popularity {
        /// The file.
        path: PathBuf,
        /// Index in the tensor.
        place: usize,
        /// The value.
        value: i64,
    },
    /// The probes do not fit the model, or their file is damaged.
    #[error("{path}: {source}")]
    Probes {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ProbesError,
    },
}

/// Who is at fault that a version of a model cannot be used. Every error has exactly one fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such model or version.
    Missing,
    /// Files of the version are missing or end early, as while somebody copies them.
    Incomplete,
    /// The version is at fault in another way: it is damaged or invalid, or nobody may read its files.
    Rejected,
    /// The store that holds the model does not answer or refuses, or the disk does not take a copy. The version may be good.
    StoreUnavailable,
    /// The device, the system or the program failed. The version may be good.
    Server,
}

impl CheckpointError {
    /// Who is at fault that a version cannot be used. If the file system refuses to read its files as they are, the version is:
    /// other versions may be readable. If the system fails to read them, it is.
    pub fn fault(&self) -> Fault {
        match self {
            CheckpointError::NoModel { .. }
            | CheckpointError::NoVersions { .. }
            | CheckpointError::HoldsModels { .. }
            | CheckpointError::NoVersion { .. } => Fault::Missing,
            CheckpointError::MissingFile { .. } | CheckpointError::Truncated { .. } => Fault::Incomplete,
            CheckpointError::Manifest { source, .. } => {
                if source.inner().is_eof() {
                    Fault::Incomplete
                } else {
                    Fault::Rejected
                }
            }
            CheckpointError::Copy { .. } | CheckpointError::Origin { .. } => Fault::StoreUnavailable,
            CheckpointError::Io { source, .. } => reading_fault(source),
            CheckpointError::Tensors { source: TensorFileError::Read(source), .. }
            | CheckpointError::Probes { source: ProbesError::File(TensorFileError::Read(source)), .. } => {
                reading_fault(source)
            }
            CheckpointError::NotADirectory { .. }
            | CheckpointError::IsVersion { .. }
            | CheckpointError::NoName { .. }
            | CheckpointError::VersionsExhausted { .. }
            | CheckpointError::NotAFile { .. }
            | CheckpointError::TooLarge { .. }
            | CheckpointError::Digest { .. }
            | CheckpointError::Format { .. }
            | CheckpointError::Metric { .. }
            | CheckpointError::Config { .. }
            | CheckpointError::Calibration { .. }
            | CheckpointError::Tensors { .. }
            | CheckpointError::Weights { .. }
            | CheckpointError::Line { .. }
            | CheckpointError::Catalogue { .. }
            | CheckpointError::ItemCount { .. }
            | CheckpointError::Popularity { .. }
            | CheckpointError::Probes { .. } => Fault::Rejected,
        }
    }

    /// For `map_err`: the system refused to `action` the path.
    pub(super) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> CheckpointError {
        let path = path.into();
        move |source| CheckpointError::Io { path, action, source }
    }

    /// For `map_err`: what the system refused was for the copy of a store's version.
    pub(super) fn of_copy(self) -> CheckpointError {
        match self {
            CheckpointError::Io { path, action, source } => CheckpointError::Copy { path, action, source },
            other => other,
        }
    }

    /// For `map_err`: the tensor file at the path is at fault.
    pub(super) fn tensors(path: impl Into<PathBuf>) -> impl FnOnce(TensorFileError) -> CheckpointError {
        let path = path.into();
        move |source| CheckpointError::Tensors { path, source }
    }
}

/// Who is at fault that a file cannot be read.
fn reading_fault(error: &io::Error) -> Fault {
    use io::ErrorKind::{
        InvalidData, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        UnexpectedEof, Unsupported,
    };
    match error.kind() {
        // It went after it was seen.
        NotFound => Fault::Incomplete,
        // Nothing but a change of the files mends these.
        InvalidData | InvalidFilename | InvalidInput | IsADirectory | NotADirectory | PermissionDenied
        | UnexpectedEof | Unsupported => Fault::Rejected,
        // Too many open files, a disk that fails, a file server that restarts.
        _ => Fault::Server,
    }
}

/// The arguments that name this version.
fn advice(root: &Option<PathBuf>, version: &Option<u64>) -> String {
    match (root, version) {
        (Some(root), Some(version)) => format!(", {}, and --version {version}", root.display()),
        (Some(root), None) => format!(", {}", root.display()),
        (None, _) => String::new(),
    }
}

/// The remedy for a damaged file.
fn remedy(error: &TensorFileError) -> &'static str {
    if matches!(error, TensorFileError::Header(_)) { "; copy it again" } else { "" }
}

/// `no version`, `version 2`, `versions 1, 2 and 5`. Of many it names the highest ones.
fn in_words(versions: &[u64]) -> String {
    const SHOWN: usize = 5;
    let more = if versions.len() > SHOWN { "…, " } else { "" };
    match &versions[versions.len().saturating_sub(SHOWN)..] {
        [] => "no version".to_owned(),
        [version] => format!("version {version}"),
        [rest @ .., last] => {
            let rest: Vec<String> = rest.iter().map(u64::to_string).collect();
            format!("versions {more}{} and {last}", rest.join(", "))
        }
    }
}

/// Says that some directories are no versions, and which names are.
pub(super) fn not_versions(ignored: &[String]) -> String {
    const SHOWN: usize = 5;
    if ignored.is_empty() {
        return String::new();
    }
    let names: Vec<String> = ignored.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    let more = if ignored.len() > SHOWN { " and others" } else { "" };
    format!(" (ignored: {}{more}; {VERSION_NAMES})", names.join(", "))
}

/// Which names are versions, for messages.
pub const VERSION_NAMES: &str = "a version's name is a whole number from 1, without leading zeros or other characters";

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::{CheckpointError, Fault, in_words};
    use crate::TensorFileError;
    use crate::json::parse;

    #[test]
    fn every_error_has_the_fault_of_whoever_can_mend_it() {
        let path = || PathBuf::from("small");
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let stale = || io::Error::from_raw_os_error(116);
        let manifest = |text: &str| {
            let source = parse::<Vec<u8>>(text.as_bytes()).unwrap_err();
            CheckpointError::Manifest { path: path(), source }
        };
        for (error, fault) in [
            (CheckpointError::NoModel { path: path() }, Fault::Missing),
            (CheckpointError::NoVersions { path: path(), ignored: Vec::new() }, Fault::Missing),
            (CheckpointError::HoldsModels { path: path(), example: path() }, Fault::Missing),
            (CheckpointError::NoVersion { path: path(), version: 3, available: vec![1, 2] }, Fault::Missing),
            (CheckpointError::MissingFile { path: path() }, Fault::Incomplete),
            (CheckpointError::Truncated { path: path() }, Fault::Incomplete),
            // A manifest that ends early may still be copied. Any other fault of it stays.
            (manifest("[1, 2"), Fault::Incomplete),
            (manifest("[1, true]"), Fault::Rejected),
            (
                CheckpointError::Origin { address: "s3://shop/small".into(), reason: "403".into() },
                Fault::StoreUnavailable,
            ),
            (CheckpointError::Io { path: path(), action: "read", source: refused() }, Fault::Rejected),
            (
                CheckpointError::Io { path: path(), action: "open", source: io::Error::from(io::ErrorKind::NotFound) },
                Fault::Incomplete,
            ),
            (CheckpointError::Tensors { path: path(), source: TensorFileError::Read(refused()) }, Fault::Rejected),
            (CheckpointError::Tensors { path: path(), source: TensorFileError::Read(stale()) }, Fault::Server),
            (CheckpointError::Probes { path: path(), source: TensorFileError::Read(stale()).into() }, Fault::Server),
            (CheckpointError::NotADirectory { path: path() }, Fault::Rejected),
            (CheckpointError::Format { path: path(), found: 9 }, Fault::Rejected),
        ] {
            assert_eq!(error.fault(), fault, "{error}");
        }
        // A disk that fails, too many open files in the system and in the process, and a file server that restarted.
        for number in [5, 23, 24, 116] {
            let source = io::Error::from_raw_os_error(number);
            let error = CheckpointError::Io { path: path(), action: "read", source };
            assert_eq!(error.fault(), Fault::Server, "{error}");
        }
    }

    #[test]
    fn versions_are_listed_as_a_person_would() {
        for (versions, words) in [
            (&[][..], "no version"),
            (&[2], "version 2"),
            (&[1, 2, 5], "versions 1, 2 and 5"),
            (&[1, 2, 3, 4, 5, 6, 9], "versions …, 3, 4, 5, 6 and 9"),
        ] {
            assert_eq!(in_words(versions), words);
        }
    }
}
