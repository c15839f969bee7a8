use super::scheduler::{QueueFull, RejectReason};

/// Why a row has no answer. All but [`Refusal::Internal`] and [`Refusal::NotFinite`] are expected outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue is full.
    #[error("the server is overloaded: {0}")]
    Overloaded(#[from] QueueFull),
    /// The deadline passed before the answer was ready.
    #[error("the deadline passed before the request could be answered")]
    DeadlineExceeded,
    /// No model is ready.
    #[error("{0}")]
    Unavailable(#[from] Unready),
    /// The device failed on the batch; the log has the error.
    #[error("the model could not be run on this request")]
    Internal,
    /// The model computed NaN or infinity for this row. Other rows of its batch have their answers.
    #[error("the model's scores for this history are not finite numbers: the checkpoint is at fault")]
    NotFinite,
}

/// Why no request can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The first model is being loaded.
    #[error("the model is being loaded")]
    Loading,
    /// The server is about to stop; it still answers accepted requests.
    #[error("the server is stopping")]
    Draining,
    /// A thread that owns the device has died, or the device fails on every batch: only a restart helps.
    #[error("the model cannot be run any more: the server must be restarted")]
    Dead,
}

impl From<RejectReason> for Refusal {
    fn from(reason: RejectReason) -> Refusal {
        match reason {
            RejectReason::Full(full) => Refusal::Overloaded(full),
            // Only a panic and a lost device close the queue while requests still arrive.
            RejectReason::Closed => Refusal::Unavailable(Unready::Dead),
        }
    }
}
