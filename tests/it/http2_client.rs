//! A client of HTTP/2 that can keep its window shut.

use std::io::{self, Read, Write};

use super::http2::{
    DATA, Frame, GOAWAY, HEADERS, OK, PING, PREFACE, RST_STREAM, SETTINGS, frame, settings, window_update,
};

/// Flags of frames.
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// A setting.
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// The window that every stream and every connection begins with.
const DEFAULT_WINDOW: u32 = (1 << 16) - 1;

/// The largest payload of a frame.
const FRAME: usize = 1 << 14;

/// Whether nothing comes on the frame's stream any more.
pub(crate) fn is_last(frame: &Frame) -> bool {
    frame.kind == RST_STREAM || frame.ends_stream()
}

/// A connection to a server.
pub(crate) struct Http2<S> {
    stream: S,
    next: u32,
    /// Most open streams that the server allows.
    pub(crate) allowed: usize,
}

impl<S: Read + Write> Http2<S> {
    /// Opens a connection. Until [`Http2::widen`], the server may send `window` bytes of each answer.
    pub(crate) fn open(mut stream: S, window: u32) -> io::Result<Http2<S>> {
        stream.write_all(&[PREFACE, settings(window).as_slice()].concat())?;
        stream.flush()?;
        let mut connection = Http2 { stream, next: 1, allowed: usize::MAX };
        // The server's own settings come first.
        connection.frame()?;
        // Several answers share the connection's window.
        if let Some(more) = window.checked_sub(DEFAULT_WINDOW).filter(|more| *more > 0) {
            connection.widen(0, more)?;
        }
        Ok(connection)
    }

    /// Sends a GET. Returns its stream.
    pub(crate) fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> io::Result<u32> {
        self.head("GET", path, fields, END_STREAM)
    }

    /// Sends a POST. Returns its stream.
    pub(crate) fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> io::Result<u32> {
        self.post_with(path, &[("content-type", content_type), ("te", "trailers")], body)
    }

    /// Sends a POST with these fields in its head. Returns its stream.
    pub(crate) fn post_with(&mut self, path: &str, fields: &[(&str, &str)], body: &[u8]) -> io::Result<u32> {
        let stream = self.head("POST", path, fields, 0)?;
        let mut parts = body.chunks(FRAME).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_STREAM } else { 0 };
            self.send(&frame(DATA, flags, stream, part))?;
        }
        Ok(stream)
    }

    /// Sends the head of a POST alone. Returns its stream.
    pub(crate) fn begin(&mut self, path: &str, content_type: &str) -> io::Result<u32> {
        self.head("POST", path, &[("content-type", content_type), ("te", "trailers")], 0)
    }

    /// Sends a part of a body that is not the last one.
    pub(crate) fn part(&mut self, stream: u32, body: &[u8]) -> io::Result<()> {
        body.chunks(FRAME).try_for_each(|part| self.send(&frame(DATA, 0, stream, part)))
    }

    fn head(&mut self, method: &str, path: &str, fields: &[(&str, &str)], flags: u8) -> io::Result<u32> {
        let pseudo = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)];
        let block: Vec<u8> = pseudo.iter().chain(fields).flat_map(|(name, value)| literal(name, value)).collect();
        let stream = self.next;
        self.next += 2;
        self.send(&frame(HEADERS, END_HEADERS | flags, stream, &block))?;
        Ok(stream)
    }

    /// Lets the server send `bytes` more of the answer on `stream`, or of all answers together on stream 0.
    pub(crate) fn widen(&mut self, stream: u32, bytes: u32) -> io::Result<()> {
        self.send(&window_update(stream, bytes))
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame)?;
        self.stream.flush()
    }

    /// The next frame. Pings and settings are acknowledged, so that the server takes the client for a live one.
    pub(crate) fn frame(&mut self) -> io::Result<Frame> {
        let received = Frame::read(&mut self.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let Frame { kind, flags, payload, .. } = &received;
        match *kind {
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    if u16::from_be_bytes([setting[0], setting[1]]) == MAX_CONCURRENT_STREAMS {
                        self.allowed = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]) as usize;
                    }
                }
                self.send(&frame(SETTINGS, ACK, 0, &[]))?;
            }
            PING if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, payload))?,
            _ => {}
        }
        Ok(received)
    }

    /// The body of the answer on `stream` if its status is 200 and the window takes it.
    pub(crate) fn answer(&mut self, stream: u32) -> io::Result<Option<Vec<u8>>> {
        let (mut body, mut is_ok) = (Vec::new(), None);
        loop {
            let frame = self.frame()?;
            if frame.kind == GOAWAY {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                DATA => body.extend_from_slice(&frame.payload),
                // Trailers come later and are no status.
                HEADERS => _ = is_ok.get_or_insert(frame.payload.first() == Some(&OK)),
                _ => {}
            }
            if is_last(&frame) {
                let is_whole = is_ok == Some(true) && frame.kind != RST_STREAM;
                return Ok(is_whole.then_some(body));
            }
        }
    }
}

/// A field as a literal that enters no table (RFC 7541, 6.2.2), without Huffman coding.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        // Longer lengths take further bytes.
        assert!(length < 0x7f, "{text}");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], string(name), string(value)].concat()
}
