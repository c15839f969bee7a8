//! What the reloads of a server share: how many generations drain, and whether one is being built.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Counts the generations that no longer serve and are not freed yet.
#[derive(Clone, Default)]
pub(crate) struct Draining(Arc<(Mutex<usize>, Condvar)>);

/// One of them. It counts until this drops.
pub(crate) struct InDrain(Draining);

impl Draining {
    pub(crate) fn enter(&self) -> InDrain {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        InDrain(self.clone())
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

impl Drop for InDrain {
    fn drop(&mut self) {
        let (count, changed) = &*self.0.0;
        *count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        changed.notify_all();
    }
}

/// Marks the reload between its start and its swap, of which there is at most one. Dropping it ends the mark, also in a
/// panic.
pub(crate) struct Building(Arc<AtomicBool>);

impl Building {
    pub(crate) fn begin(building: &Arc<AtomicBool>) -> Option<Building> {
        (!building.swap(true, Ordering::AcqRel)).then(|| Building(Arc::clone(building)))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
