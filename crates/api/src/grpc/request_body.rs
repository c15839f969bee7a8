use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use tonic::Status;

use crate::allowance::Allowance;
use crate::attached::{Attached, Attachment, PolledFrame};
use crate::body_budget::{BodyAllowance, BodyPermit, over_budget, too_large};
use crate::limits::MAX_BODY;
use crate::{Problem, pace};
use canet_serving::Recommender;

/// How long a message may still take to arrive while the server drains. A call may begin just before.
const LAST_MESSAGE: Duration = Duration::from_millis(200);

/// Bytes of the header before each message.
const MESSAGE_HEADER: usize = 5;

/// How many messages the client of a call sends.
#[derive(Clone)]
pub(super) enum Messages {
    One,
    Endless(Arc<Recommender>),
}

impl Messages {
    /// Bounds the body of a call's request.
    ///
    /// One message must arrive within the allowance that the listener grants. Endless messages end after the timeout of that
    /// allowance: otherwise a silent stream would keep its connection's place from others. They also end shortly after the
    /// server begins to drain.
    pub(super) fn bound(&self, request: Request) -> Request {
        let bound = match self {
            Messages::One => {
                let Some(Allowance { body, .. }) = request.extensions().get() else { return request };
                let BodyAllowance { timeout, permit } = body.clone();
                let received = Arc::clone(&permit);
                let end = async move { Some(pace::too_slow(timeout, move || received.held()).await) };
                BodyBound::new(end, Some(permit))
            }
            Messages::Endless(recommender) => {
                let mut changes = recommender.changes();
                let recommender = Arc::clone(recommender);
                let drained = async move {
                    while !recommender.is_draining() && changes.changed().await.is_ok() {}
                    tokio::time::sleep(LAST_MESSAGE).await;
                };
                let timeout = request.extensions().get::<Allowance>().map(|allowance| allowance.body.timeout);
                let late = async move {
                    match timeout {
                        Some(timeout) => tokio::time::sleep(timeout).await,
                        None => std::future::pending().await,
                    }
                };
                let end = async move {
                    tokio::select! {
                        () = drained => None,
                        () = late => None,
                    }
                };
                BodyBound::new(end, None)
            }
        };
        request.map(|body| Body::new(Attached { body, attachment: bound }))
    }
}

/// Ends a request's body before its client does: with a problem, or as if everything had been sent.
struct BodyBound {
    /// Completes when the body must end. It is polled only while no frame is ready.
    end: Pin<Box<dyn Future<Output = Option<Problem>> + Send>>,
    is_over: bool,
    /// For a body of one message: holds its bytes until the call is answered.
    permit: Option<Arc<BodyPermit>>,
    received: usize,
}

impl BodyBound {
    fn new(end: impl Future<Output = Option<Problem>> + Send + 'static, permit: Option<Arc<BodyPermit>>) -> BodyBound {
        BodyBound { end: Box::pin(end), is_over: false, permit, received: 0 }
    }

    /// Counts `bytes` more. Returns a problem if they are too many.
    fn refusal(&mut self, bytes: usize) -> Option<Problem> {
        let permit = self.permit.as_ref()?;
        self.received = self.received.saturating_add(bytes);
        // tonic refuses a message by its length. This bounds what follows the message, which tonic would read and drop
        // without an end.
        if self.received > MAX_BODY + MESSAGE_HEADER {
            return Some(too_large());
        }
        (!permit.take(bytes)).then(over_budget)
    }
}

impl Attachment for BodyBound {
    fn on_frame(&mut self, polled: PolledFrame, context: &mut Context<'_>) -> PolledFrame {
        let problem = match polled {
            Poll::Ready(frame) => {
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
                match self.refusal(bytes) {
                    None => return Poll::Ready(frame),
                    refusal => refusal,
                }
            }
            Poll::Pending => ready!(self.end.as_mut().poll(context)),
        };
        self.is_over = true;
        // tonic takes the status out of the error and answers with it.
        Poll::Ready(problem.map(|problem| Err(axum::Error::new(Status::from(problem)))))
    }

    fn is_over(&self) -> bool {
        self.is_over
    }
}
