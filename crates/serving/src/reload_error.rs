use std::io;

use super::{LoadError, Unready};
use crate::metrics::Reloaded;

/// Why an order does not fit what serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// There is no candidate to promote or withdraw.
    #[error("there is no candidate: start one with POST /admin/candidate")]
    NoCandidate,
    /// Another version is the candidate.
    #[error("version {running} is the candidate, not version {asked}: promote or withdraw it first")]
    OtherCandidate {
        /// The candidate.
        running: u64,
        /// The version of the order.
        asked: u64,
    },
    /// The version that is to replace the live one is the candidate.
    #[error("version {version} is the candidate: promote it with POST /admin/promote, or withdraw it first")]
    IsCandidate {
        /// The version of the order.
        version: u64,
    },
    /// The version that is to become the candidate is the live one.
    #[error("version {version} is the live one: name another version as the candidate")]
    IsLive {
        /// The version of the order.
        version: u64,
    },
}

/// Why an order changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Another reload is running.
    #[error("a model is being loaded already: try again when it serves")]
    InProgress,
    /// The order does not fit what serves.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The checkpoint could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server is stopping or its executors have died.
    #[error(transparent)]
    Unready(#[from] Unready),
    /// No thread could be started.
    #[error("cannot start a thread for the reload: {0}")]
    Thread(#[from] io::Error),
    /// The thread panicked; standard error has the message.
    #[error("the reload failed by a panic")]
    BrokeOff,
}

impl ReloadError {
    /// Whether the store that holds the model does not answer or refuses.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, ReloadError::Load(error) if error.is_unavailable())
    }

    /// The outcome that `reload_total` counts.
    pub(super) fn counted(&self) -> Reloaded {
        match self {
            ReloadError::InProgress | ReloadError::Conflict(_) => Reloaded::Busy,
            ReloadError::Load(LoadError::Regression(_)) => Reloaded::Regression,
            ReloadError::Load(error) if error.is_missing() => Reloaded::Missing,
            ReloadError::Load(error) if error.is_incomplete() => Reloaded::Incomplete,
            ReloadError::Load(error) if error.checkpoint_at_fault() => Reloaded::Rejected,
            ReloadError::Load(_) | ReloadError::Unready(_) | ReloadError::Thread(_) | ReloadError::BrokeOff => {
                Reloaded::Failed
            }
        }
    }
}
