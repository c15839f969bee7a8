use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Counts the generations that were replaced and are not freed yet.
#[derive(Clone, Default)]
pub(crate) struct Retired(Arc<(Mutex<usize>, Condvar)>);

/// One of them. It counts until this drops.
pub(crate) struct RetiredGuard(Retired);

impl Retired {
    pub(crate) fn enter(&self) -> RetiredGuard {
        *self.0.0.lock() += 1;
        RetiredGuard(self.clone())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        *self.0.0.lock() == 0
    }

    /// Waits until there is none.
    pub(crate) fn wait(&self) {
        let (count, changed) = &*self.0;
        let mut count = count.lock();
        changed.wait_while(&mut count, |count| *count > 0);
    }
}

impl Drop for RetiredGuard {
    fn drop(&mut self) {
        let (count, changed) = &*self.0.0;
        *count.lock() -= 1;
        changed.notify_all();
    }
}
