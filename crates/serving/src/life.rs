use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::watch;

/// Batches that may fail in a row before the device is taken for lost: a moment's want of memory passes sooner.
const FAILURES: u32 = 16;

/// Whether the executors can still run a model, and who wants to hear of it.
#[derive(Default)]
pub(crate) struct Life {
    dead: AtomicBool,
    /// Batches that failed since the last one that did not, whichever executor ran them.
    failures: AtomicU32,
    /// Told whenever readiness may have changed.
    changed: watch::Sender<()>,
}

impl Life {
    /// Whether rows can be run; where they cannot, only a restart helps.
    pub(crate) fn is_alive(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
    }

    /// No row is run from here on.
    pub(crate) fn end(&self) {
        self.dead.store(true, Ordering::Release);
        self.changed();
    }

    /// Counts a batch that failed: whether it was one too many, which ends the life.
    pub(crate) fn failed(&self) -> bool {
        // At most once a batch, so that it does not come round.
        let ends = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= FAILURES;
        if ends {
            self.end();
        }
        ends
    }

    /// A batch of slices ran. One of the router says nothing of them, so it does not count.
    pub(crate) fn ran(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Readiness may have changed.
    pub(crate) fn changed(&self) {
        self.changed.send_replace(());
    }

    /// Hears of it whenever readiness may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
