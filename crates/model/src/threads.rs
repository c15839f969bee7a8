//! How many CPU threads a computation may take.

use std::cell::Cell;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Bounds every forward that the calling thread runs from here on to that thread alone. Other threads keep theirs.
pub fn use_one_thread_here() {
    ALONE.set(true);
}

/// How many of `most` threads the calling thread may compute with.
#[inline]
pub fn threads_allowed_here(most: usize) -> usize {
    if ALONE.get() { 1 } else { most }
}
