//! How much one call may send and ask for.

use super::Problem;

/// Largest request body in bytes.
pub(crate) const MAX_BODY: usize = 1 << 20;

/// Most requests in one call.
pub(crate) const MAX_ROWS: usize = 1024;

/// Most ids in one list of a request.
const MAX_IDS: usize = 100_000;

/// Most items that one request, or all requests of a batch together, may ask for. The answer is then about 25 MB.
pub(crate) const MAX_RANKED: u64 = 1 << 18;

/// Longest timeout that a request may state.
pub(crate) const MAX_TIMEOUT_MS: u64 = 60_000;

/// Most earlier items that a request may say it left out.
pub(crate) const MAX_HISTORY_START: u64 = 1_000_000_000;

/// Longest user id in bytes.
pub(crate) const MAX_USER: usize = 256;

/// Most input tensors of an inference call, and most outputs that it names. The model has fewer: a call with one too
/// many should get an error that names the tensor.
const MAX_TENSORS: usize = 64;

/// # Errors
/// 422 if one call has more than [`MAX_ROWS`] requests.
pub(crate) fn check_rows(rows: usize) -> Result<(), Problem> {
    if rows <= MAX_ROWS {
        return Ok(());
    }
    Err(Problem::invalid("requests", format!("{rows} requests are too many for one call: at most {MAX_ROWS}")))
}

/// # Errors
/// 422 if the list `name` has more than [`MAX_IDS`] ids.
pub(crate) fn check_ids(name: &'static str, ids: usize) -> Result<(), Problem> {
    if ids <= MAX_IDS {
        return Ok(());
    }
    Err(Problem::invalid(name, format!("`{name}` has {ids} ids: at most {MAX_IDS}")))
}

/// # Errors
/// 422 if a call has more than [`MAX_TENSORS`] of `name`, which is `inputs` or `outputs`.
pub(crate) fn check_tensors(name: &'static str, count: usize) -> Result<(), Problem> {
    if count <= MAX_TENSORS {
        return Ok(());
    }
    Err(Problem::invalid(name, format!("{count} {name} are too many for one call: at most {MAX_TENSORS}")))
}

/// The largest `k` of one request for a catalogue of `items`.
pub(crate) fn max_k(items: usize) -> usize {
    items.min(usize::try_from(MAX_RANKED).unwrap_or(usize::MAX))
}
