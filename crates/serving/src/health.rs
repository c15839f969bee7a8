use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::watch;

/// After this many failed batches in a row the device counts as lost: a short lack of memory is over sooner.
const FAILURES: u32 = 16;

/// Whether the executors can still run a model.
#[derive(Default)]
pub(crate) struct Health {
    dead: AtomicBool,
    /// Batches that failed since the last one that ran, on any executor.
    failures: AtomicU32,
    /// Notified whenever readiness may have changed.
    changed: watch::Sender<()>,
}

impl Health {
    /// Whether rows can run; if not, only a restart helps.
    pub(crate) fn is_alive(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
    }

    /// From now on no row runs.
    pub(crate) fn end(&self) {
        self.dead.store(true, Ordering::Release);
        self.changed();
    }

    /// Counts a batch that failed. Returns whether it was one too many, which ends the service.
    pub(crate) fn failed(&self) -> bool {
        let ends = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= FAILURES;
        if ends {
            self.end();
        }
        ends
    }

    /// A batch of slices ran. A micro-batch of the router proves nothing about slices, so it does not count.
    pub(crate) fn ran(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Tells subscribers that readiness may have changed.
    pub(crate) fn changed(&self) {
        self.changed.send_replace(());
    }

    /// Subscribes to changes of readiness.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::{FAILURES, Health};

    #[test]
    fn only_failures_in_a_row_end_the_service() {
        let health = Health::default();
        (1..FAILURES).for_each(|_| assert!(!health.failed()));
        health.ran();
        (1..FAILURES).for_each(|_| assert!(!health.failed()));
        assert!(health.is_alive());
        assert!(health.failed() && !health.is_alive());
    }
}
