use canet_model::use_one_thread_here;

/// How much of the machine work may take that answers no request: a load, a new catalogue file, a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// All of it, because nothing else runs.
    WholeMachine,
    /// One thread of low priority, because the server answers requests meanwhile.
    BesideLive,
}

/// The niceness beside live requests: about a tenth of a normal thread's share of a contended core.
const NICE: libc::c_int = 10;

impl Priority {
    /// Gives the calling thread this priority for the rest of its life.
    pub(crate) fn apply_to_thread(self) {
        if self == Priority::BesideLive {
            use_one_thread_here();
            #[expect(unsafe_code, reason = "a call of the C library")]
            // SAFETY: `nice` takes a number and touches no memory of the caller. On Linux it affects the calling thread
            // alone, and a thread may always lower its own priority.
            let _ = unsafe { libc::nice(NICE) };
        }
    }
}
