use super::admission::QueueFull;

/// Why a row has no answer. Each is an expected outcome but [`Refusal::Internal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue is full.
    #[error("the server is overloaded: {0}")]
    Overloaded(#[from] QueueFull),
    /// The deadline passed before the answer was there.
    #[error("the deadline passed before the request could be answered")]
    DeadlineExceeded,
    /// No model is ready.
    #[error("{0}")]
    Unavailable(#[from] Unready),
    /// The device failed on the batch; what exactly is in the log.
    #[error("the model could not be run on this request")]
    Internal,
}

/// Why no request can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The first model is being loaded.
    #[error("the model is being loaded")]
    Loading,
    /// The server is about to stop; what was accepted is still answered.
    #[error("the server is stopping")]
    Draining,
    /// A thread that owns the device has died, or the device fails on every batch: only a restart helps.
    #[error("the model cannot be run any more: the server must be restarted")]
    Dead,
}
