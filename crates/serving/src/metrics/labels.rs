//! What a label can say, where that depends on no model: an enum for each such label. The value is the variant's name in
//! snake case.

use strum::{AsRefStr, VariantArray};

/// A stage of a row, as `stage_duration_seconds` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// Waiting for the device.
    Queue,
    /// In the router's micro-batch.
    Router,
    /// In the batch of its route.
    Forward,
}

/// Why a row was not answered, as `rejected_total` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Rejected {
    /// The queue was full.
    Overloaded,
    /// The deadline passed.
    Deadline,
    /// The client left, or another row failed the whole inference call.
    Cancelled,
    /// No model was ready.
    Unavailable,
    /// The device failed on the row's batch.
    Failed,
    /// The router's logits or the scores of the row were NaN or infinite.
    NotFinite,
    /// Answers that clients have not read yet left no room for the row's answer.
    Unread,
}

/// Why a batch had no more rows, as `batch_release_total` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Released {
    /// It has as many rows as a batch may have.
    Full,
    /// No further row waited.
    Drained,
}

/// Why a row reused no history, as `history_cache_misses_total` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum CacheMiss {
    /// Its history was unknown.
    History,
    /// Its history was known at another width alone.
    Slice,
}

/// What became of an answer for the answer log, as `answer_log_total` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum AnswerLogged {
    /// It is written.
    Written,
    /// Too many answers waited to be written.
    Dropped,
    /// It could not be written.
    Failed,
}

/// Why the server closed a connection or reset a stream, as `disconnects_total` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Disconnect {
    /// The connection was idle and made room for another one.
    Room,
    /// The client has too many connections.
    ClientLimit,
    /// No request came in time.
    NoRequest,
    /// The client did not take its answer.
    Stalled,
    /// The client sent too many HTTP/2 frames that ask for nothing.
    Flood,
}

/// How a reload ended, as `reload_total` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reloaded {
    /// The new generation serves.
    Served,
    /// The checkpoint is at fault.
    Rejected,
    /// Files of the checkpoint are missing or end early, as while it is copied.
    Incomplete,
    /// The recorded accuracy is too far below the live version's.
    Regression,
    /// There is no such checkpoint.
    Missing,
    /// Another reload was running, or the order did not fit the candidate.
    Busy,
    /// The watch found a version again that an operator had left.
    Unchanged,
    /// The device or the store of the model failed, or the server is stopping.
    Failed,
}

/// How a reading of the catalogue file ended, as `catalogue_reload_total` labels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum CatalogueReloaded {
    /// Its contents serve.
    Served,
    /// Its contents are wrong.
    Rejected,
    /// It could not be read.
    Failed,
}
