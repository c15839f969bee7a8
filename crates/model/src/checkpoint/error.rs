use std::io;
use std::path::PathBuf;

use super::{CalibrationError, ProbesError, TensorsError};
use crate::{ConfigError, WeightsError};
use canet_domain::CatalogueError;

/// Why a checkpoint cannot be written, found or read. Every message names the file and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refused an operation on a file.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// No such model directory.
    #[error("{path}: no such model directory; check the path, or make one with `canet train` or `canet import`")]
    NoModel {
        /// The path asked for.
        path: PathBuf,
    },
    /// A file where a directory is needed.
    #[error("{path}: not a directory; a model is a directory of numbered versions, as models/ml-100k")]
    NotADirectory {
        /// The path asked for.
        path: PathBuf,
    },
    /// The directory of one version instead of the model's.
    #[error("{path}: this is one version of a model; give the model's directory{}", advice(root, version))]
    IsVersion {
        /// The path asked for.
        path: PathBuf,
        /// The directory above it.
        root: Option<PathBuf>,
        /// Its name, where that is a version.
        version: Option<u64>,
    },
    /// A directory whose name cannot name a model.
    #[error("{path}: the last part of the path names the model and must be readable text")]
    NoName {
        /// The path asked for.
        path: PathBuf,
    },
    /// A model directory without any version.
    #[error("{path}: holds no version; expected numbered directories such as {path}/1")]
    NoVersions {
        /// The model's directory.
        path: PathBuf,
    },
    /// A directory that holds models instead of versions.
    #[error("{path}: holds models, not versions; name one of them, as {example}")]
    HoldsModels {
        /// The path asked for.
        path: PathBuf,
        /// A model in it.
        example: PathBuf,
    },
    /// A version that is not there.
    #[error("{path}: there is no version {version}; there are {available:?}")]
    NoVersion {
        /// The model's directory.
        path: PathBuf,
        /// The version asked for.
        version: u64,
        /// Those that exist.
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
    /// A directory, a pipe or the like where a file is needed.
    #[error("{path}: not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// More bytes than such a file can have.
    #[error("{path}: {size} bytes, at most {limit} are possible for this configuration")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// A file that is not the one that was written.
    #[error("{path}: sha256 is {found}, canet.json says {expected}; the file was damaged or changed, copy it again")]
    Digest {
        /// The file.
        path: PathBuf,
        /// The digest of its bytes.
        found: String,
        /// The digest in the manifest.
        expected: String,
    },
    /// A layout of another version of this program.
    #[error("{path}: `format` is {found}, this program reads {supported}; use the program that wrote it", supported = super::Manifest::FORMAT)]
    Format {
        /// The manifest.
        path: PathBuf,
        /// The format it names.
        found: u32,
    },
    /// A manifest that is not what this program writes.
    #[error("{path}: {source}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },
    /// A metric that is no number.
    #[error("{path}: `metrics.{metric}` is not a finite number")]
    Metric {
        /// The manifest.
        path: PathBuf,
        /// The metric's name.
        metric: String,
    },
    /// A configuration that cannot be a model.
    #[error("{path}: config: {source}")]
    Config {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A calibration that does not fit the configuration.
    #[error("{path}: {source}")]
    Calibration {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: CalibrationError,
    },
    /// A tensor file that does not hold what it should.
    #[error("{path}: {source}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TensorsError,
    },
    /// Weights that do not fit the configuration or are not finite.
    #[error("{path}: {source}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: WeightsError,
    },
    /// A line of a text file that cannot be used.
    #[error("{path}: line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Ids that do not make the catalogue.
    #[error("{path}: {source}")]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CatalogueError,
    },
    /// As many ids as the configuration has items are needed.
    #[error("{path}: {found} item ids, `config.items` says {expected}")]
    ItemCount {
        /// The file.
        path: PathBuf,
        /// Ids found.
        found: usize,
        /// Items of the configuration.
        expected: usize,
    },
    /// Popularity counts that are none.
    #[error("{path}: `popularity` holds {value} at place {place}: counts are 0 or more, and 0 for the padding")]
    Popularity {
        /// The file.
        path: PathBuf,
        /// Place in the tensor.
        place: usize,
        /// The value.
        value: i64,
    },
    /// Probes that the model cannot have answered.
    #[error("{path}: {source}")]
    Probes {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ProbesError,
    },
}

impl CheckpointError {
    /// For `map_err`: the system refused to `action` the path.
    pub(super) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> CheckpointError {
        let path = path.into();
        move |source| CheckpointError::Io { path, action, source }
    }
}

/// What to type instead of a version's directory.
fn advice(root: &Option<PathBuf>, version: &Option<u64>) -> String {
    match (root, version) {
        (Some(root), Some(version)) => format!(", {}, and --version {version}", root.display()),
        (Some(root), None) => format!(", {}", root.display()),
        (None, _) => String::new(),
    }
}
