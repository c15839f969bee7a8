use std::path::{Path, PathBuf};

use canet_data::DataError;
use canet_domain::{CatalogueError, HistoryError};
use canet_model::checkpoint::CheckpointError;
use canet_model::{ConfigError, ForwardError, LoadError, WeightsError};

use crate::stage::Stage;

/// Why a training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration of the model is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Two tables that are to be tied have different widths.
    #[error("--tie-embeddings needs equal widths: the largest --embedding must equal the largest --hidden")]
    Untieable,
    /// The data are too few.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The directory has an unfinished training that differs from the job.
    #[error("{path} has an unfinished training with {differences}: {remedy}, or --restart to discard it")]
    OtherTraining {
        /// The directory.
        path: PathBuf,
        /// What differs, with the unfinished training's values and the given ones.
        differences: String,
        /// How to continue the unfinished training.
        remedy: &'static str,
    },
    /// The directory cannot be a model's.
    #[error("--out {0}")]
    Out(#[source] CheckpointError),
    /// Another process trains in the directory.
    #[error("another process trains in {path}: wait for it, or give another --out")]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The saved state of a training is invalid.
    #[error("{path} is not the state of a training ({reason}): give --restart to discard it")]
    State {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The gradients of several steps in a row, or the weights or scores after an epoch, were not finite.
    #[error(
        "training diverged in epoch {epoch} of the stage {}, its weights are no finite numbers any more: try a lower {}, with \
         --restart",
        stage.name(),
        match stage {
            Stage::Settle | Stage::Newest => "--settle-lr",
            Stage::Joint | Stage::Supernet | Stage::Router => "--lr or a longer --warmup-steps",
        }
    )]
    Diverged {
        /// The stage.
        stage: Stage,
        /// Number of the epoch, from 1.
        epoch: u64,
    },
    /// The directory of the training could not be made.
    #[error("{path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The state of the training could not be saved.
    #[error(
        "{path} cannot be saved: {source}: make room, and run the same command again, which continues after the last save"
    )]
    Save {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The system could not read or write a file or a directory.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// LibTorch failed, usually for lack of memory.
    #[error("LibTorch: {0} (if memory ran out, try a smaller --batch-size)")]
    Torch(#[from] tch::TchError),
    /// The forward pass that ranks held-out users failed.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A held-out user has no history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The backend could not load the weights.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The items do not form a valid catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The checkpoint could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl TrainError {
    /// The same error, or [`TrainError::Diverged`] if weights or scores that are not finite caused it.
    pub(crate) fn or_diverged(self, (stage, epoch): (Stage, u64)) -> TrainError {
        use WeightsError::{NotFinite, TooLarge};
        let diverged = match &self {
            TrainError::Forward(error) => matches!(error, ForwardError::NotFinite(_)),
            TrainError::Load(LoadError::Weights(error))
            | TrainError::Checkpoint(CheckpointError::Weights { source: error, .. }) => {
                matches!(error, NotFinite { .. } | TooLarge { .. })
            }
            _ => false,
        };
        if diverged { TrainError::Diverged { stage, epoch } } else { self }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> TrainError {
        TrainError::Io { path: path.to_owned(), source }
    }
}
