use std::io;

use super::{LoadError, Unready};
use crate::metrics::Reloaded;
use canet_model::checkpoint::Fault;

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
    /// The watch found a version that served before, whose files were written again without a change.
    #[error("version {version} served before and has not changed: name it with POST /admin/reload to return to it")]
    Left {
        /// The version.
        version: u64,
    },
    /// No thread could be started.
    #[error("cannot start a thread for the reload: {0}")]
    Thread(#[from] io::Error),
    /// The thread panicked; standard error has the message.
    #[error("the reload failed by a panic")]
    BrokeOff,
}

impl ReloadError {
    /// The outcome that `reload_total` counts.
    pub(super) fn counted(&self) -> Reloaded {
        match self {
            ReloadError::InProgress | ReloadError::Conflict(_) => Reloaded::Busy,
            ReloadError::Left { .. } => Reloaded::Unchanged,
            ReloadError::Load(LoadError::Regression(_)) => Reloaded::Regression,
            ReloadError::Load(error) => match error.fault() {
                Fault::Missing => Reloaded::Missing,
                Fault::Incomplete => Reloaded::Incomplete,
                Fault::Rejected => Reloaded::Rejected,
                Fault::StoreUnavailable | Fault::Server => Reloaded::Failed,
            },
            ReloadError::Unready(_) | ReloadError::Thread(_) | ReloadError::BrokeOff => Reloaded::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use canet_domain::HistoryError;
    use canet_model::checkpoint::CheckpointError;
    use canet_model::{ForwardError, OpenError};

    use super::{Conflict, LoadError, ReloadError, Unready};
    use crate::Regression;
    use crate::metrics::Reloaded;

    fn opening(error: CheckpointError) -> ReloadError {
        LoadError::from(OpenError::from(error)).into()
    }

    fn warm_up(error: ForwardError) -> ReloadError {
        LoadError::from(error).into()
    }

    #[test]
    fn every_error_is_counted_by_who_is_at_fault() {
        for (error, counted) in [
            (ReloadError::InProgress, Reloaded::Busy),
            (Conflict::NoCandidate.into(), Reloaded::Busy),
            (ReloadError::Left { version: 2 }, Reloaded::Unchanged),
            (opening(CheckpointError::NoModel { path: "m".into() }), Reloaded::Missing),
            (opening(CheckpointError::MissingFile { path: "m/1/items.tsv".into() }), Reloaded::Incomplete),
            (opening(CheckpointError::NotAFile { path: "m/1/items.tsv".into() }), Reloaded::Rejected),
            (
                opening(CheckpointError::Origin { address: "s3://shop/m".to_owned(), reason: "403".to_owned() }),
                Reloaded::Failed,
            ),
            (
                LoadError::from(OpenError::Load(canet_model::LoadError::Device("out of memory".into()))).into(),
                Reloaded::Failed,
            ),
            (LoadError::from(Regression::Unmeasured { version: 2, live: 1 }).into(), Reloaded::Regression),
            (LoadError::NoOther { path: "m".into(), candidate: 1 }.into(), Reloaded::Rejected),
            (
                LoadError::NoRoute { model: "m".to_owned(), name: "h1-l1".to_owned(), routes: Vec::new() }.into(),
                Reloaded::Rejected,
            ),
            (LoadError::from(HistoryError::Empty).into(), Reloaded::Rejected),
            (warm_up(ForwardError::NotFinite("the scores")), Reloaded::Rejected),
            (warm_up(ForwardError::Device("out of memory".into())), Reloaded::Failed),
            (warm_up(ForwardError::Shape { columns: 3, values: 4 }), Reloaded::Failed),
            (Unready::Draining.into(), Reloaded::Failed),
            (io::Error::from(io::ErrorKind::WouldBlock).into(), Reloaded::Failed),
            (ReloadError::BrokeOff, Reloaded::Failed),
        ] {
            assert_eq!(error.counted(), counted, "{error}");
        }
    }
}
