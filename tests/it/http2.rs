//! HTTP/2 by hand, for what no client library would send.

use std::io::{self, Read, Write};

/// Types of HTTP/2's frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// What a client sends first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `:status: 200`, as HPACK has it.
pub(crate) const OK: u8 = 0x88;

/// A frame as it is received.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The next frame. `None` if the connection has ended.
    pub(crate) fn read(stream: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload)?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Some(Frame { kind: head[3], flags: head[4], stream: id, payload }))
    }

    /// Whether it is the last of its stream.
    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & 1 == 1
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The client's settings: how many bytes of each answer the server may send before it is told to go on.
pub(crate) fn settings(initial_window: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4], &initial_window.to_be_bytes()[..]].concat())
}

/// Lets the server send more bytes of one answer, or on stream 0 of all answers together.
pub(crate) fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// A whole GET: its method, http, its host and path, and the end of the stream.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    frame(HEADERS, 0x5, stream, &[&b"\x82\x86\x41\x05canet\x44"[..], &[length], path.as_bytes()].concat())
}

/// The head of a POST; its body follows.
pub(crate) fn post(stream: u32, path: &str, content_type: &str) -> Vec<u8> {
    let [path_length, type_length] = [path, content_type].map(|text| u8::try_from(text.len()).unwrap());
    let path = [&b"\x83\x86\x41\x05canet\x44"[..], &[path_length], path.as_bytes()].concat();
    // A literal with the name's index in the static table, which does not fit one byte.
    let content_type = [&[0x0f, 0x10, type_length], content_type.as_bytes()].concat();
    frame(HEADERS, 0x4, stream, &[path, content_type].concat())
}

/// Sends the preface and these frames.
pub(crate) fn open(stream: &mut impl Write, frames: &[Vec<u8>]) {
    stream.write_all(&[PREFACE, frames.concat().as_slice()].concat()).unwrap();
}
