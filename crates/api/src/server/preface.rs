use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::age::Age;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that recognises HTTP/2 by the first bytes it reads, and then tells the connection's [`Age`].
///
/// hyper-util recognises HTTP/2 too but tells nobody before the first request. A client of HTTP/2 may connect long before
/// that, as gRPC clients do, and owes no request in time.
pub(super) struct Preface<S> {
    stream: S,
    age: Age,
    /// Bytes of the preface that have come. `None` once the version is known.
    matched: Option<usize>,
}

impl<S> Preface<S> {
    pub(super) fn new(stream: S, age: Age) -> Preface<S> {
        Preface { stream, age, matched: Some(0) }
    }

    /// Compares the next bytes with the preface.
    fn compare(&mut self, bytes: &[u8]) {
        let Some(matched) = self.matched else { return };
        let expected = &PREFACE[matched..];
        let length = bytes.len().min(expected.len());
        self.matched = (length > 0 && bytes[..length] == expected[..length]).then_some(matched + length);
        if self.matched == Some(PREFACE.len()) {
            self.age.received(Version::HTTP_2);
            self.matched = None;
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
        self.compare(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Preface<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
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

    use super::{Age, Preface};

    /// Whether a connection that receives these bytes, in reads of `length`, speaks HTTP/2.
    async fn is_http2(bytes: &[u8], length: usize) -> bool {
        let age = Age::new(None);
        let mut stream = Preface::new(bytes, age.clone());
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
}
