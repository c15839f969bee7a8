use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

/// The result of polling a body for its next frame.
pub(crate) type PolledFrame = Poll<Option<Result<Frame<Bytes>, axum::Error>>>;

/// Accompanies a body: it sees every frame, and drops when the body does.
pub(crate) trait Attachment: Unpin {
    /// Inspects or replaces what the body returned. It may return `Poll::Pending` only after registering a waker.
    fn on_frame(&mut self, polled: PolledFrame, _context: &mut Context<'_>) -> PolledFrame {
        polled
    }

    /// Whether the body ends here, whatever the sender still sends.
    fn is_over(&self) -> bool {
        false
    }
}

/// A body and its [`Attachment`]. It keeps the body's size hint, so that the length of an answer stays known.
pub(crate) struct Attached<A> {
    pub(crate) body: Body,
    pub(crate) attachment: A,
}

impl<A: Attachment> HttpBody for Attached<A> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        if self.attachment.is_over() {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.attachment.on_frame(polled, context)
    }

    fn is_end_stream(&self) -> bool {
        self.attachment.is_over() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
