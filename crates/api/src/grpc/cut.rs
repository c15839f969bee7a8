use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tonic::Status;

use crate::server::{Held, Receiving};
use crate::{Problem, body};
use canet_serving::Recommender;

/// How long a message may still take to come when the server drains: a call may begin just then.
const LAST_MESSAGE: Duration = Duration::from_millis(200);

/// What stands before a message.
const PREFIX: usize = 5;

/// Refuses a call whose message does not arrive within the time and the room that the listener gives a body.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    let Some(Receiving { patience, held }) = request.extensions().get().cloned() else {
        return next.run(request).await;
    };
    let cut = async move {
        tokio::time::sleep(patience).await;
        Some(body::too_slow(patience))
    };
    next.run(request.map(|body| Body::new(CutBody { held: Some(held), ..CutBody::new(body, cut) }))).await
}

/// Ends a call whose client may send for ever, once the server drains and nothing that was sent is left to answer:
/// else its connection would keep the server from stopping.
pub(super) async fn at_drain(State(recommender): State<Arc<Recommender>>, request: Request, next: Next) -> Response {
    let cut = async move {
        let mut changes = recommender.changes();
        while !recommender.is_draining() && changes.changed().await.is_ok() {}
        tokio::time::sleep(LAST_MESSAGE).await;
        None
    };
    next.run(request.map(|body| Body::new(CutBody::new(body, cut)))).await
}

/// A request's body that ends before its client ends it: with a fault, or as if all were sent.
struct CutBody {
    body: Body,
    /// Looked at while nothing of the body is there.
    cut: Pin<Box<dyn Future<Output = Option<Problem>> + Send>>,
    is_cut: bool,
    /// Where the body is one message: what is held of it until the call is answered.
    held: Option<Arc<Held>>,
    received: usize,
}

impl CutBody {
    fn new(body: Body, cut: impl Future<Output = Option<Problem>> + Send + 'static) -> CutBody {
        CutBody { body, cut: Box::pin(cut), is_cut: false, held: None, received: 0 }
    }

    /// Why no more is received, of which `bytes` have come.
    fn refused(&mut self, bytes: usize) -> Option<Problem> {
        let held = self.held.as_ref()?;
        self.received = self.received.saturating_add(bytes);
        // One message cannot be: tonic looks at its length first. It would read and drop others without an end.
        if self.received > body::LIMIT + PREFIX {
            return Some(body::too_large());
        }
        (!held.take(bytes)).then(body::no_room)
    }
}

impl HttpBody for CutBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_cut {
            return Poll::Ready(None);
        }
        let fault = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
                match self.refused(bytes) {
                    None => return Poll::Ready(frame),
                    refused => refused,
                }
            }
            Poll::Pending => ready!(self.cut.as_mut().poll(context)),
        };
        self.is_cut = true;
        // tonic finds the status in the error and answers with it.
        Poll::Ready(fault.map(|problem| Err(axum::Error::new(Status::from(problem)))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_cut || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
