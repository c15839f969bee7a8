use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{sleep, sleep_until};

/// How long nothing may happen on a connection of a server that stops, before it ends.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// What one connection still owes: the requests that are not answered yet, and answers on their way.
#[derive(Clone)]
pub(super) struct Open(Arc<Mutex<State>>);

struct State {
    requests: usize,
    /// When a request last began or ended.
    changed: Instant,
    /// Writes that were done.
    writes: u64,
    /// Whether a write waits for its client.
    is_stalled: bool,
}

impl Open {
    /// Of a connection that begins now.
    pub(super) fn new() -> Open {
        let state = State { requests: 0, changed: Instant::now(), writes: 0, is_stalled: false };
        Open(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that is open until what comes back drops.
    pub(super) fn request(&self) -> OpenRequest {
        let mut state = self.state();
        (state.requests, state.changed) = (state.requests + 1, Instant::now());
        OpenRequest(self.clone())
    }

    /// A write was done, or found no room.
    pub(super) fn wrote(&self, is_done: bool) {
        let mut state = self.state();
        state.writes += u64::from(is_done);
        state.is_stalled = !is_done;
    }

    /// Waits until no request is open and no answer on its way, for `patience` to twice as long. An answer that is all
    /// handed over may still wait for its client to read, or over HTTP/2 to give it a window.
    pub(super) async fn quiet(&self, patience: Duration) {
        let mut last = None;
        loop {
            let now = {
                let state = self.state();
                (state.requests == 0 && !state.is_stalled).then_some(state.writes)
            };
            if now.is_some() && now == last {
                return;
            }
            last = now;
            sleep(patience).await;
        }
    }

    /// Waits until none has been open for so long.
    pub(super) async fn idle(&self, patience: Duration) {
        loop {
            let (is_none_open, changed) = {
                let state = self.state();
                (state.requests == 0, state.changed)
            };
            if !is_none_open {
                // One that ends meanwhile is found in time: from then on as long is waited.
                sleep(patience).await;
            } else if changed.elapsed() < patience {
                sleep_until((changed + patience).into()).await;
            } else {
                return;
            }
        }
    }
}

/// One of [`Open`].
pub(super) struct OpenRequest(Open);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.0.state();
        (state.requests, state.changed) = (state.requests - 1, Instant::now());
    }
}

/// An answer's body, whose request is open until all of it is taken.
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) _request: OpenRequest,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
