use std::path::{Path, PathBuf};

use canet_domain::{CatalogueError, HistoryError};
use canet_model::LoadError;
use canet_model::checkpoint::CheckpointError;
use canet_model::{ConfigError, ForwardError};

/// Why a training could not be done.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model's sizes are not sane.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Two tables that are to be one have two widths.
    #[error(
        "--tie-embeddings needs a greatest --embedding as wide as the greatest --hidden: items are read by one and scored by \
         the other"
    )]
    Untieable,
    /// No sequence has two items in its training part.
    #[error("the data has nothing to learn from: no user has two interactions before the two that are held out")]
    NothingToLearn,
    /// No user can be held out.
    #[error("the data has nobody to validate on: no user has three interactions or more")]
    NothingToValidate,
    /// An unfinished run of another kind is in the way.
    #[error(
        "{path} holds an unfinished run with other {what}: give the same flags to go on with it (those of stages that have not begun \
         may differ), or --restart to throw it away"
    )]
    OtherRun {
        /// Where.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// Another process trains there.
    #[error("another process trains in {path}: wait for it, or give another --out")]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// A saved state that cannot be used.
    #[error("{path} is not the state of a run ({reason}): --restart throws it away")]
    State {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Gradients that are not finite, step after step.
    #[error("training diverged in epoch {epoch}: try a lower --lr or a longer --warmup-steps")]
    Diverged {
        /// From 1.
        epoch: u64,
    },
    /// A file or directory.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// LibTorch failed: usually out of memory.
    #[error("LibTorch: {0} (if memory ran out, try a smaller --batch-size)")]
    Torch(#[from] tch::TchError),
    /// The held-out users could not be scored.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A held-out user without a history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The trained weights could not be loaded for scoring.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The items make no catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The checkpoint could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl TrainError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> TrainError {
        TrainError::Io { path: path.to_owned(), source }
    }
}
