use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{sleep, sleep_until};

/// The requests of one connection that are not answered yet.
#[derive(Clone)]
pub(super) struct Open(Arc<Mutex<State>>);

struct State {
    requests: usize,
    /// When a request last began or ended.
    changed: Instant,
}

impl Open {
    /// Of a connection that begins now.
    pub(super) fn new() -> Open {
        Open(Arc::new(Mutex::new(State { requests: 0, changed: Instant::now() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that is open until what comes back drops.
    pub(super) fn request(&self) -> OpenRequest {
        let mut state = self.state();
        *state = State { requests: state.requests + 1, changed: Instant::now() };
        OpenRequest(self.clone())
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
        *state = State { requests: state.requests - 1, changed: Instant::now() };
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
