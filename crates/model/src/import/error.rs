use std::io;
use std::path::{Path, PathBuf};

use canet_domain::{CatalogueError, HistoryError};
use zip::result::ZipError;

use super::PickleError;
use crate::{ConfigError, ForwardError, JsonError, LoadError};

/// Why files of another program cannot be imported. Every message names the file and the fault.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The system refused to read a file.
    #[error("{path}: cannot read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is larger than `args.json` allows.
    #[error("{path}: {size} bytes, at most {limit} are possible for this args.json")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The `args.json` is not one that the authors' program writes.
    #[error("{path}: {source}; expected the args.json that the authors' training writes beside its checkpoint")]
    Arguments {
        /// The file.
        path: PathBuf,
        /// The field at fault and the reason.
        source: JsonError,
    },
    /// The arguments do not make a valid configuration.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The field at fault, under its name in [`ModelConfig`](crate::ModelConfig), and the reason.
        source: ConfigError,
    },
    /// The file is not a state dict.
    #[error(
        "{path}: neither a zip archive of torch.save nor safetensors; save the state dict with PyTorch 1.6 or newer"
    )]
    NotTorch {
        /// The file.
        path: PathBuf,
    },
    /// The archive is damaged.
    #[error("{path}: {source}; copy it again")]
    Archive {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ZipError,
    },
    /// The file has the wrong byte order.
    #[error("{path}: not written in little-endian order; save it again on a little-endian machine")]
    ByteOrder {
        /// The file.
        path: PathBuf,
    },
    /// The pickle asks for more than tensors.
    #[error("{path}: refused: {source}; save model.state_dict() alone")]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The request that was refused.
        source: PickleError,
    },
    /// The pickle is not a checkpoint of RecBole.
    #[error("{path}: refused: {source}; give the .pth that RecBole's trainer saved")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The request that was refused.
        source: PickleError,
    },
    /// Tensors are missing or unknown.
    #[error("{path}: not {model}: missing {}, unknown {}", listed(missing), listed(unknown))]
    Names {
        /// The file.
        path: PathBuf,
        /// The model that was expected.
        model: &'static str,
        /// Names of missing tensors.
        missing: Vec<String>,
        /// Names of unknown tensors.
        unknown: Vec<String>,
    },
    /// A tensor does not have the shape that the arguments or other tensors imply.
    #[error("{path}: `{name}` has shape {found:?}, in {model} it has {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The model that was expected.
        model: &'static str,
        /// The name in the file.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it must have.
        expected: Vec<usize>,
    },
    /// A tensor cannot be read.
    #[error("{path}: `{name}` {reason}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The name in the file.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The file of item ids is not text.
    #[error("{path}: not UTF-8 text; expected one item id a line")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The item ids do not make a catalogue.
    #[error("{path}: {source}")]
    Items {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: CatalogueError,
    },
    /// The number of item ids is not the number of items.
    #[error("{path}: {found} lines, the model has {expected} items")]
    ItemCount {
        /// The file.
        path: PathBuf,
        /// Number of lines.
        found: usize,
        /// Number of items of the model.
        expected: usize,
    },
    /// RecBole's configuration asks for what is not computed, or lacks what is needed.
    #[error("{path}: `{setting}` is {reason}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// RecBole's name of the setting.
        setting: &'static str,
        /// Its value and what to do.
        reason: String,
    },
    /// The data have another number of items than the model, so that they do not give the order of its items.
    #[error(
        "{path}: {found} items, the model has {expected}; select the interactions that RecBole trained on (--where, \
         --min-interactions), or give the ids in RecBole's order with --items"
    )]
    RecBoleItems {
        /// The data.
        path: PathBuf,
        /// Number of items in the data.
        found: usize,
        /// Number of items of the model.
        expected: usize,
    },
    /// The backend cannot load the weights to record the probes.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device failed while the probes were recorded.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A history for the probes is empty.
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

/// Most names that a message lists.
const LISTED: usize = 8;

/// A list of names for a message. A configuration of many layers has thousands.
fn listed(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(LISTED));
    if rest.is_empty() { format!("{shown:?}") } else { format!("{shown:?} and {} more", rest.len()) }
}

#[cfg(test)]
mod tests {
    use super::ImportError;

    #[test]
    fn many_names_are_counted() {
        let missing = (0..5000).map(|number| format!("layer.{number}")).collect();
        let (path, model, unknown) = ("a.pt".into(), "the model", vec!["odd".to_owned()]);
        let error = ImportError::Names { path, model, missing, unknown }.to_string();
        assert!(error.contains("\"layer.7\"] and 4992 more, unknown [\"odd\"]"), "{error}");
        assert!(error.len() < 400, "{error}");
    }
}
