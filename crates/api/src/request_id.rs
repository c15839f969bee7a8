use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Where a call's id is read and written.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over: it goes into logs.
const MAX_LEN: usize = 128;

/// The id that the client gave, or a new one where there is none or it is not 1 to 128 printable ASCII characters.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    let usable = |id: &&HeaderValue| (1..=MAX_LEN).contains(&id.len()) && id.to_str().is_ok();
    headers.get(HEADER).filter(usable).cloned().unwrap_or_else(make)
}

/// The process's random number and a count: unique without a random number a call.
fn make() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let id = format!("{:016x}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
