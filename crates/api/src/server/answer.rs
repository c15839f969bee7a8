use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use hyper::body::Buf;

use super::activity::{OpenRequest, Unwritten};
use super::stalled_stream::{self, Waits};

/// Largest piece of an answer that the transport gets at one time, in bytes. An HTTP/2 frame is as large by default.
const PIECE: usize = 16 << 10;

/// The body of an answer, in pieces that know when they are written.
///
/// hyper hands everything that it has of an HTTP/2 answer to the stream's buffer as soon as the client's window takes one
/// byte, and then forgets the answer. So a large answer goes piece by piece: hyper keeps the body, and the server can
/// still reset the stream, as long as the client has not taken all but the last piece.
pub(super) struct AnswerBody {
    body: Body,
    /// What is left of a frame that was cut.
    rest: Bytes,
    request: OpenRequest,
    /// Bytes in the buffer of the HTTP/2 stream. `None` before a second piece is needed, and over HTTP/1, where hyper
    /// bounds its buffer itself.
    buffered: Option<Arc<Buffered>>,
    has_begun: bool,
    is_http2: bool,
}

impl AnswerBody {
    /// The body of a `request`'s answer.
    pub(super) fn new(body: Body, mut request: OpenRequest, is_http2: bool) -> AnswerBody {
        request.computes(false);
        AnswerBody { body, rest: Bytes::new(), request, buffered: None, has_begun: false, is_http2 }
    }

    /// Cuts the next piece off.
    fn piece(&mut self) -> Piece {
        let is_last_of_frame = self.rest.len() <= PIECE;
        let bytes = if is_last_of_frame { std::mem::take(&mut self.rest) } else { self.rest.split_to(PIECE) };
        if self.is_http2 && self.buffered.is_none() && (self.has_begun || !is_last_of_frame) {
            self.buffered = Some(Arc::default());
        }
        self.has_begun = true;
        let share = self.buffered.as_ref().map(|buffered| buffered.add(bytes.len()));
        Piece { bytes, _unwritten: self.request.unwritten(), _share: share }
    }
}

impl HttpBody for AnswerBody {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let me = &mut *self;
        if me.buffered.as_ref().is_some_and(|buffered| buffered.is_full(context)) {
            return Poll::Pending;
        }
        if me.rest.is_empty() {
            let polled = Pin::new(&mut me.body).poll_frame(context);
            let is_pending = polled.is_pending();
            me.request.computes(is_pending);
            if is_pending {
                stalled_stream::now_waits(Waits::ForServer);
            }
            match ready!(polled) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => me.rest = data,
                    Err(frame) => return Poll::Ready(frame.into_trailers().ok().map(|all| Ok(Frame::trailers(all)))),
                },
            }
        }
        stalled_stream::now_waits(Waits::ForClient);
        Poll::Ready(Some(Ok(Frame::data(me.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// A piece of an answer. It drops when it is written, or when its stream ends.
pub(super) struct Piece {
    bytes: Bytes,
    _unwritten: Unwritten,
    _share: Option<Share>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.bytes.copy_to_bytes(count)
    }
}

/// Counts the bytes of one answer that wait in the stream's buffer.
#[derive(Default)]
struct Buffered {
    bytes: AtomicUsize,
    written: AtomicWaker,
}

impl Buffered {
    fn add(self: &Arc<Buffered>, bytes: usize) -> Share {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Share { buffered: Arc::clone(self), bytes }
    }

    /// Whether a whole piece waits. If so, the task wakes once it is written.
    fn is_full(&self, context: &Context<'_>) -> bool {
        let is_full = || self.bytes.load(Ordering::Acquire) >= PIECE;
        if !is_full() {
            return false;
        }
        self.written.register(context.waker());
        // It may have been written in between.
        is_full()
    }
}

/// The bytes of one piece in [`Buffered`].
struct Share {
    buffered: Arc<Buffered>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.buffered.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.buffered.written.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use axum::body::{Body, HttpBody};
    use hyper::body::Buf;

    use super::{AnswerBody, PIECE, Piece};
    use crate::server::activity::Activity;

    fn body(bytes: usize, is_http2: bool) -> (Activity, AnswerBody) {
        let activity = Activity::new(None);
        let bytes: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
        let request = activity.request();
        (activity, AnswerBody::new(Body::from(bytes), request, is_http2))
    }

    fn next(body: &mut AnswerBody) -> Option<Piece> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => Some(frame?.unwrap().into_data().ok().unwrap()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn pieces_make_up_the_answer() {
        for length in [0, 1, PIECE, PIECE + 1, 5 * PIECE] {
            for is_http2 in [false, true] {
                let (activity, mut body) = body(length, is_http2);
                assert_eq!(body.size_hint().exact(), Some(length as u64));
                let mut received = Vec::new();
                while let Some(mut piece) = next(&mut body) {
                    let bytes = piece.remaining();
                    assert!(bytes <= PIECE);
                    received.extend(piece.copy_to_bytes(bytes));
                }
                assert!(body.is_end_stream());
                assert_eq!(received.len(), length);
                assert!(received.iter().enumerate().all(|(index, byte)| usize::from(*byte) == index % 251));
                drop(body);
                assert!(activity.rank().is_some());
            }
        }
    }

    #[test]
    fn over_http2_a_large_answer_waits_for_its_client() {
        let (activity, mut body) = body(2 * PIECE + 1, true);
        let mut first = next(&mut body).unwrap();
        assert!(next(&mut body).is_none());
        first.advance(PIECE - 1);
        assert!(next(&mut body).is_none());
        drop(first);
        let second = next(&mut body).unwrap();
        drop(second);
        assert!(!body.is_end_stream());
        let last = next(&mut body).unwrap();
        assert!(body.is_end_stream() && last.remaining() == 1);
        drop(body);
        assert!(activity.rank().is_none());
        drop(last);
        assert!(activity.rank().is_some());
    }

    #[test]
    fn a_small_answer_is_given_at_once() {
        let (_, mut body) = body(PIECE, true);
        let piece = next(&mut body).unwrap();
        assert!(body.is_end_stream() && piece.remaining() == PIECE && piece._share.is_none());
    }
}
