use std::time::{Duration, Instant};

use canet_serving::Due;

/// When a call arrived, and when its client leaves, whatever its requests say, where its transport tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) arrived: Instant,
    pub(crate) leaves: Option<Instant>,
}

impl Arrival {
    /// A call that arrived just now over a transport that tells no more.
    pub(crate) fn now() -> Arrival {
        Arrival { arrived: Instant::now(), leaves: None }
    }

    /// Of a request whose client waits so long.
    pub(crate) fn due(self, timeout_ms: u64) -> Due {
        let deadline = self.arrived + Duration::from_millis(timeout_ms);
        Due { arrived: self.arrived, deadline: self.leaves.map_or(deadline, |leaves| deadline.min(leaves)) }
    }
}
