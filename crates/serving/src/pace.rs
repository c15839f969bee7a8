use canet_model::use_one_thread_here;

/// How much of the machine a load may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nothing else runs: all of it.
    Alone,
    /// Requests are served meanwhile: one thread, which gives way to theirs.
    BesideLive,
}

/// Of a thread beside live ones: about a tenth of a normal thread's share where both want the same core.
const NICE: libc::c_int = 10;

impl Pace {
    /// Binds the calling thread, for good.
    pub(crate) fn keep(self) {
        if self == Pace::BesideLive {
            use_one_thread_here();
            #[expect(unsafe_code, reason = "a call of the C library")]
            // SAFETY: it takes a number and touches no memory of ours. On Linux it is for the calling thread alone, and
            // a thread may always lower its priority.
            let _ = unsafe { libc::nice(NICE) };
        }
    }
}

/// Gives memory that was freed back to the system: allocators keep what small and large blocks share pages with, and after a
/// generation that is a good part of it. Ours holds what Rust allocates, the C library's what LibTorch does.
pub(crate) fn return_freed_memory() {
    #[expect(unsafe_code, reason = "a call of the allocator")]
    // SAFETY: it takes the allocator's own locks and touches free memory alone.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "a call of the C library")]
        // SAFETY: as above.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
