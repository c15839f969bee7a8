use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

use crate::attached::Attachment;

/// Once the server stops, a connection ends after this time without activity.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// Tracks the open requests and the writes of one connection.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<State>>);

struct State {
    open_requests: usize,
    /// When a request last began or ended.
    changed: Instant,
    /// How many writes succeeded.
    writes: u64,
    /// Whether a write waits for the client.
    is_stalled: bool,
}

impl Activity {
    /// Tracks a connection that begins now.
    pub(super) fn new() -> Activity {
        let state = State { open_requests: 0, changed: Instant::now(), writes: 0, is_stalled: false };
        Activity(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a request. It is open until the returned guard drops.
    pub(super) fn request(&self) -> OpenRequest {
        let mut state = self.state();
        (state.open_requests, state.changed) = (state.open_requests + 1, Instant::now());
        OpenRequest(self.clone())
    }

    /// Records a write that succeeded, or one that found the socket's buffer full.
    pub(super) fn wrote(&self, is_done: bool) {
        let mut state = self.state();
        state.writes += u64::from(is_done);
        state.is_stalled = !is_done;
    }

    /// Waits until no request was open and nothing was written for `period` to twice as long.
    ///
    /// A finished answer may still wait for its client to read or, over HTTP/2, to open its window. So writes count too.
    pub(super) async fn quiet(&self, period: Duration) {
        let mut last = None;
        loop {
            let now = {
                let state = self.state();
                (state.open_requests == 0 && !state.is_stalled).then_some(state.writes)
            };
            if now.is_some() && now == last {
                return;
            }
            last = now;
            sleep(period).await;
        }
    }

    /// Waits until no request was open for `period`.
    pub(super) async fn idle(&self, period: Duration) {
        loop {
            let (is_none_open, changed) = {
                let state = self.state();
                (state.open_requests == 0, state.changed)
            };
            if !is_none_open {
                // The last request may end during this sleep. The next round then sleeps for the rest of the period.
                sleep(period).await;
            } else if changed.elapsed() < period {
                sleep_until((changed + period).into()).await;
            } else {
                return;
            }
        }
    }
}

/// A request that is open until this drops. It accompanies the answer's body.
pub(super) struct OpenRequest(Activity);

impl Attachment for OpenRequest {}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        (state.open_requests, state.changed) = (state.open_requests - 1, Instant::now());
    }
}
