use canet_model::use_one_thread_here;

/// How much of the machine a load may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All of it, because nothing else runs.
    Alone,
    /// One thread of low priority, because the server answers requests meanwhile.
    BesideLive,
}

/// The niceness beside live requests: about a tenth of a normal thread's share of a contended core.
const NICE: libc::c_int = 10;

impl Pace {
    /// Slows the calling thread to this pace for the rest of its life.
    pub(crate) fn keep(self) {
        if self == Pace::BesideLive {
            use_one_thread_here();
            #[expect(unsafe_code, reason = "a call of the C library")]
            // SAFETY: `nice` takes a number and touches no memory of the caller. On Linux it affects the calling thread
            // alone, and a thread may always lower its own priority.
            let _ = unsafe { libc::nice(NICE) };
        }
    }
}

/// Gives freed memory back to the system. Allocators keep pages that small and large blocks share, which is much memory
/// after a generation is freed. mimalloc holds what Rust allocated, the C library's allocator what LibTorch did.
pub(crate) fn return_freed_memory() {
    #[expect(unsafe_code, reason = "a call of the allocator")]
    // SAFETY: `mi_collect` takes the allocator's own locks and touches free memory alone.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a call of the C library")]
        // SAFETY: `malloc_trim` takes the allocator's own locks and touches free memory alone.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
