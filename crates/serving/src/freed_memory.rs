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
