/// Lets the C library's allocator, which LibTorch uses, keep up to 512 MiB that a step frees for the next step. Threads other
/// than the main one keep up to 64 MiB each.
///
/// By default it keeps twice the largest block that was freed before, and returns the rest to the system, which clears each
/// page before it gives it out again. Call this in a process that trains on a CPU.
pub fn keep_freed_memory() {
    // Larger blocks go back at once: 32 MiB is the upper limit that mallopt(3) names.
    #[cfg(target_env = "gnu")]
    for (option, value) in [(libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TRIM_THRESHOLD, 512 << 20)] {
        #[expect(unsafe_code, reason = "a call of the C library")]
        // SAFETY: `mallopt` takes the allocator's own lock, and touches its settings alone. If it refuses a value, the
        // setting stays as it was.
        let _ = unsafe { libc::mallopt(option, value) };
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Pages that the system gave the calling thread so far.
    fn page_faults() -> i64 {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        #[expect(unsafe_code, reason = "a call of the C library")]
        // SAFETY: `getrusage` writes the structure that it is given.
        let usage = unsafe {
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
            usage.assume_init()
        };
        usage.ru_minflt
    }

    #[test]
    fn freed_memory_serves_the_next_step_without_page_faults() {
        keep_freed_memory();
        // Rust's vectors in this test, as LibTorch's tensors, come from the C library.
        let step = || drop(black_box([(); 3].map(|()| vec![1_u8; 8 << 20])));
        step();
        let before = page_faults();
        (0..10).for_each(|_| step());
        let new = page_faults() - before;
        // By default, each step takes most of its 6,144 pages anew.
        assert!(new < 2048, "{new} page faults in ten steps");
    }
}
