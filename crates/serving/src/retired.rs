use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Counts the generations that were replaced and are not freed yet.
#[derive(Clone, Default)]
pub(crate) struct Retired(Arc<(Mutex<usize>, Condvar)>);

/// One of them. It counts until this drops.
pub(crate) struct RetiredGuard(Retired);

impl Retired {
    pub(crate) fn enter(&self) -> RetiredGuard {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        RetiredGuard(self.clone())
    }

    /// Waits until there is none.
    pub(crate) fn wait(&self) {
        let (count, changed) = &*self.0;
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > 0 {
            count = changed.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for RetiredGuard {
    fn drop(&mut self) {
        let (count, changed) = &*self.0.0;
        *count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        changed.notify_all();
    }
}
