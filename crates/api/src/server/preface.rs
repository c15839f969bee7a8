use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::http::Version;
use canet_serving::metrics::Disconnect;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::age::Age;
use super::frame_budget::FrameBudget;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that recognises HTTP/2 by the first bytes it reads. It then tells the connection's [`Age`], and fails if the client
/// exceeds its [`FrameBudget`].
///
/// hyper-util recognises HTTP/2 too but tells nobody before the first request. A client of HTTP/2 may connect long before
/// that, as gRPC clients do, and owes no request in time.
pub(super) struct Preface<S> {
    stream: S,
    age: Age,
    /// Counts a connection that is closed for its frames.
    activity: Activity,
    version: Seen,
}

/// What the bytes so far tell of the version.
enum Seen {
    /// They are the first ones of the preface, so many.
    Preface(usize),
    Http1,
    Http2(FrameBudget),
}

impl<S> Preface<S> {
    pub(super) fn new(stream: S, age: Age, activity: Activity) -> Preface<S> {
        Preface { stream, age, activity, version: Seen::Preface(0) }
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// [`io::Error`] if the client exceeds its budget of frames.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        let frames = match self.version {
            Seen::Http1 => return Ok(()),
            Seen::Http2(_) => bytes,
            Seen::Preface(matched) => {
                let expected = &PREFACE[matched..];
                let length = bytes.len().min(expected.len());
                if length == 0 || bytes[..length] != expected[..length] {
                    self.version = Seen::Http1;
                } else if length < expected.len() {
                    self.version = Seen::Preface(matched + length);
                } else {
                    self.age.received(Version::HTTP_2);
                    self.version = Seen::Http2(FrameBudget::new(Instant::now()));
                }
                &bytes[length..]
            }
        };
        let Seen::Http2(budget) = &mut self.version else { return Ok(()) };
        if budget.receive(frames, Instant::now) {
            return Ok(());
        }
        self.activity.disconnects(Disconnect::Flood);
        Err(io::Error::other("the client sends too many frames that ask for nothing"))
    }

    /// Records what was written.
    fn send(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Seen::Http2(budget), Poll::Ready(Ok(bytes))) = (&mut self.version, written) {
            budget.send(*bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Preface<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let received = self.receive(&buffer.filled()[before..]);
        if received.is_err() {
            // A read that fails must have read nothing.
            buffer.set_filled(before);
        }
        Poll::Ready(received)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Preface<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.send(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.send(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::{Activity, Age, Preface};

    /// Whether a connection that receives these bytes, in reads of `length`, speaks HTTP/2.
    async fn is_http2(bytes: &[u8], length: usize) -> bool {
        let age = Age::new(None);
        let mut stream = Preface::new(bytes, age.clone(), Activity::new(None));
        let mut buffer = vec![0; length];
        while stream.read(&mut buffer).await.unwrap() > 0 {}
        age.is_http2()
    }

    #[tokio::test]
    async fn http2_is_recognised_however_its_preface_arrives() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for length in [1, 7, 24, 100] {
            assert!(is_http2(preface, length).await);
            assert!(!is_http2(&preface[..23], length).await);
            assert!(!is_http2(b"PRI * HTTP/1.0\r\n\r\nSM\r\n\r\n", length).await);
            assert!(!is_http2(b"GET / HTTP/1.1\r\n\r\n", length).await);
        }
    }

    #[tokio::test]
    async fn a_stream_of_pings_fails_and_a_body_that_looks_like_one_does_not() {
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let read = async |preface: &[u8]| {
            let bytes = [preface, &ping.repeat(2000)].concat();
            let mut stream = Preface::new(&bytes[..], Age::new(None), Activity::new(None));
            stream.read_to_end(&mut Vec::new()).await.is_ok()
        };
        assert!(!read(super::PREFACE).await);
        assert!(read(b"POST / HTTP/1.1\r\ncontent-length: 34000\r\n\r\n").await);
    }
}
