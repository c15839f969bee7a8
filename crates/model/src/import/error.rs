use std::io;
use std::path::{Path, PathBuf};

use zip::result::ZipError;

use super::PickleError;
use crate::{ConfigError, ForwardError, LoadError};
use canet_domain::{CatalogueError, HistoryError};

/// Why the authors' files cannot be imported. Every message names the file and what in it is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The system refused to read a file.
    #[error("{path}: cannot read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// More bytes than such a file can have.
    #[error("{path}: {size} bytes, at most {limit} are possible for this args.json")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// An `args.json` that the authors' program does not write.
    #[error("{path}: {source}; expected the args.json that the authors' training writes beside its checkpoint")]
    Arguments {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },
    /// Arguments that make no model.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, under the name that the field has here.
        source: ConfigError,
    },
    /// No state dict at all.
    #[error(
        "{path}: neither a zip archive of torch.save nor safetensors; save the state dict with PyTorch 1.6 or newer"
    )]
    NotTorch {
        /// The file.
        path: PathBuf,
    },
    /// A damaged archive.
    #[error("{path}: {source}; copy it again")]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ZipError,
    },
    /// Written on a machine of the other byte order.
    #[error("{path}: not written in little-endian order; save it again on a little-endian machine")]
    ByteOrder {
        /// The file.
        path: PathBuf,
    },
    /// A pickle that asks for more than tensors.
    #[error("{path}: refused: {source}; save model.state_dict() alone")]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        source: PickleError,
    },
    /// Tensors that are missing or that nothing reads.
    #[error("{path}: not the authors' model of this args.json: missing {missing:?}, unknown {unknown:?}")]
    Names {
        /// The file.
        path: PathBuf,
        /// Names that are needed.
        missing: Vec<String>,
        /// Names that are not known.
        unknown: Vec<String>,
    },
    /// A tensor of another shape than the arguments say.
    #[error("{path}: `{name}` has shape {found:?}, args.json makes it {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The authors' name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it must have.
        expected: Vec<usize>,
    },
    /// A tensor that cannot be read.
    #[error("{path}: `{name}` {reason}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The authors' name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Item ids that are not text.
    #[error("{path}: not UTF-8 text; expected one item id a line")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Item ids that do not make a catalogue.
    #[error("{path}: {source}")]
    Items {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CatalogueError,
    },
    /// As many item ids as items are needed.
    #[error("{path}: {found} lines, `num_item` in args.json is {expected}")]
    ItemCount {
        /// The file.
        path: PathBuf,
        /// Lines found.
        found: usize,
        /// Items of the model.
        expected: usize,
    },
    /// The weights cannot be loaded to record the probes.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The probes cannot be recorded.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The probes cannot be made.
    #[error(transparent)]
    Probe(#[from] HistoryError),
}

impl ImportError {
    /// For `map_err`: the system refused to read the path.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
        let path = path.to_owned();
        move |source| ImportError::Io { path, source }
    }
}
