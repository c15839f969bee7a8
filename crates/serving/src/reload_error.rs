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
    #[error(
        "the call panicked, which is a bug: report the message on standard error. What served before still serves, and other versions may load"
    )]
    BrokeOff,
}

/// When a watch tries the files of a version again that it could not load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// At its next look.
    NextLook,
    /// After a pause, because a load costs much and the machine may need a while.
    Later,
    /// Once they change.
    OnceChanged,
}

impl ReloadError {
    /// When a watch tries the version again.
    pub(super) fn retry(&self) -> Retry {
        match self {
            ReloadError::InProgress => Retry::NextLook,
            ReloadError::Load(error) => match error.fault() {
                // A store is looked at seldom.
                Fault::StoreUnavailable => Retry::NextLook,
                Fault::Server => Retry::Later,
                Fault::Missing | Fault::Incomplete | Fault::Rejected => Retry::OnceChanged,
            },
            ReloadError::Thread(_) => Retry::Later,
            ReloadError::Conflict(_) | ReloadError::Unready(_) | ReloadError::Left { .. } | ReloadError::BrokeOff => {
                Retry::OnceChanged
            }
        }
    }

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

    use super::{Conflict, LoadError, ReloadError, Retry, Unready};
    use crate::Regression;
    use crate::metrics::Reloaded;

    fn opening(error: CheckpointError) -> ReloadError {
        LoadError::from(OpenError::from(error)).into()
    }

    fn warm_up(error: ForwardError) -> ReloadError {
        LoadError::from(error).into()
    }

    #[test]
    fn who_is_at_fault_decides_the_outcome_and_when_a_watch_tries_again() {
        let io = |number| CheckpointError::Io {
            path: "m/1/items.tsv".into(),
            action: "read",
            source: io::Error::from_raw_os_error(number),
        };
        for (error, counted, retry) in [
            (ReloadError::InProgress, Reloaded::Busy, Retry::NextLook),
            (Conflict::NoCandidate.into(), Reloaded::Busy, Retry::OnceChanged),
            (ReloadError::Left { version: 2 }, Reloaded::Unchanged, Retry::OnceChanged),
            (opening(CheckpointError::NoModel { path: "m".into() }), Reloaded::Missing, Retry::OnceChanged),
            (
                opening(CheckpointError::MissingFile { path: "m/1/items.tsv".into() }),
                Reloaded::Incomplete,
                Retry::OnceChanged,
            ),
            (
                opening(CheckpointError::NotAFile { path: "m/1/items.tsv".into() }),
                Reloaded::Rejected,
                Retry::OnceChanged,
            ),
            // No permission: the owner of the files can mend that. Too many open files: nobody need touch them.
            (opening(io(13)), Reloaded::Rejected, Retry::OnceChanged),
            (opening(io(24)), Reloaded::Failed, Retry::Later),
            (
                opening(CheckpointError::Origin { address: "s3://shop/m".to_owned(), reason: "403".to_owned() }),
                Reloaded::Failed,
                Retry::NextLook,
            ),
            (
                LoadError::from(OpenError::Load(canet_model::LoadError::Device("out of memory".into()))).into(),
                Reloaded::Failed,
                Retry::Later,
            ),
            (
                LoadError::from(Regression::Unmeasured { version: 2, live: 1 }).into(),
                Reloaded::Regression,
                Retry::OnceChanged,
            ),
            (LoadError::NoOther { path: "m".into(), candidate: 1 }.into(), Reloaded::Rejected, Retry::OnceChanged),
            (
                LoadError::NoRoute { model: "m".to_owned(), name: "h1-l1".to_owned(), routes: Vec::new() }.into(),
                Reloaded::Rejected,
                Retry::OnceChanged,
            ),
            (LoadError::from(HistoryError::Empty).into(), Reloaded::Rejected, Retry::OnceChanged),
            (warm_up(ForwardError::NotFinite("the scores")), Reloaded::Rejected, Retry::OnceChanged),
            (warm_up(ForwardError::Device("out of memory".into())), Reloaded::Failed, Retry::Later),
            (warm_up(ForwardError::Shape { columns: 3, values: 4 }), Reloaded::Failed, Retry::Later),
            (Unready::Draining.into(), Reloaded::Failed, Retry::OnceChanged),
            (io::Error::from(io::ErrorKind::WouldBlock).into(), Reloaded::Failed, Retry::Later),
            (ReloadError::BrokeOff, Reloaded::Failed, Retry::OnceChanged),
        ] {
            assert_eq!((error.counted(), error.retry()), (counted, retry), "{error}");
        }
    }
}
