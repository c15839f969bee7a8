//! How many CPU threads a computation may take.

use std::cell::Cell;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Sets the threads that one LibTorch operation may use on the CPU; a build without LibTorch has nothing to set. A native
/// forward is [made](super::Target::new) with its own.
pub fn set_threads(threads: u16) {
    #[cfg(feature = "libtorch")]
    super::libtorch::set_threads(threads);
    #[cfg(not(feature = "libtorch"))]
    let _ = threads;
}

/// Bounds what the calling thread computes to that thread alone, for good, whatever the forward; all other threads keep
/// theirs.
pub fn use_one_thread_here() {
    ALONE.set(true);
    #[cfg(feature = "libtorch")]
    super::libtorch::use_one_thread_here();
}

/// How many of `most` threads the calling one may compute with.
pub(super) fn allowed_here(most: usize) -> usize {
    if ALONE.get() { 1 } else { most }
}
