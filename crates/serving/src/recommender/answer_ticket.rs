use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::executor::RowScheduler;

/// A large answer's place in the queue, which it holds until this drops.
pub struct AnswerTicket {
    pub(super) scheduler: Arc<RowScheduler>,
    pub(super) build_permits: Arc<Semaphore>,
    pub(super) bytes: usize,
    pub(super) predicted: Duration,
    pub(super) took: Option<Duration>,
}

impl AnswerTicket {
    /// Waits until this answer may be built, which lasts as long as the returned permit. As many large answers are built at a
    /// time as the runtime has threads: more would only make small answers wait longer between them.
    pub async fn build_permit(&self) -> Option<OwnedSemaphorePermit> {
        // Nothing closes the semaphore.
        Arc::clone(&self.build_permits).acquire_owned().await.ok()
    }

    /// The answer is built. `took` leaves out the time in which other tasks had the thread.
    pub fn built(mut self, took: Duration) {
        self.took = Some(took);
    }
}

impl Drop for AnswerTicket {
    fn drop(&mut self) {
        self.scheduler.lock().built(self.predicted, self.took.map(|took| (self.bytes, took)));
    }
}
