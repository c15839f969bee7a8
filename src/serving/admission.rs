use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bounds what waits for the device: one row is one unit of work, whether it came alone or in a batch.
#[derive(Clone, Debug)]
pub struct Admission {
    limit: usize,
    queued: Arc<AtomicUsize>,
}

/// A place in the queue; dropping it frees the place, however the row ended.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} rows wait already: try again later")]
pub struct QueueFull {
    /// Rows that may wait.
    pub limit: usize,
}

impl Admission {
    /// At most `limit` rows wait.
    pub fn new(limit: usize) -> Admission {
        Admission { limit, queued: Arc::default() }
    }

    /// A place for one row.
    ///
    /// # Errors
    /// [`QueueFull`] where every place is taken.
    pub fn admit(&self) -> Result<Permit, QueueFull> {
        let one_more = |queued: usize| (queued < self.limit).then_some(queued + 1);
        // Relaxed: the count orders nothing but itself.
        match self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Permit(Arc::clone(&self.queued))),
            Err(_) => Err(QueueFull { limit: self.limit }),
        }
    }

    /// Rows that wait.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
