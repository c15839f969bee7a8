//! Connections on which nothing is asked do not keep their places, nor hold up the end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use canet::api::{Access, Connections, Patience};

use super::raw::connect;
use super::server::Server;

/// Long enough for a first request on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1);

/// Types of HTTP/2's frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A client of HTTP/2 that has sent its settings and these frames, and acknowledges nothing.
fn http2(address: SocketAddr, frames: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    let settings = frame(SETTINGS, 0, 0, &[]);
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings.as_slice(), frames].concat()).unwrap();
    stream
}

/// A whole request for `/healthz`: GET, http, its path, and the end of the stream.
fn healthz() -> Vec<u8> {
    frame(HEADERS, 0x5, 1, b"\x82\x86\x41\x05canet\x44\x08/healthz")
}

/// The head of a request to `/recommend` with JSON: POST, http, its path and content type; then what of its body
/// is not the last.
fn recommend(body: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, 0x4, 1, b"\x83\x86\x41\x05canet\x44\x0a/recommend\x0f\x10\x10application/json");
    [head, frame(DATA, 0, 1, body)].concat()
}

/// Reads up to a head or a farewell: its frame's type and payload.
fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("GOAWAY comes before the end");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        if matches!(head[3], HEADERS | GOAWAY) {
            return (head[3], payload);
        }
    }
}

/// `:status: 200`, as HPACK has it.
const OK: u8 = 0x88;

#[test]
fn over_http2_a_connection_without_an_open_request_ends_and_one_with_goes_on() {
    let patience = Patience { head: PATIENCE, ..Patience::default() };
    let server = Server::behind(Access::default(), Connections { patience, ..Connections::default() });
    let body = br#"{"history":[101]}"#;
    let mut busy = http2(server.client.address, &recommend(&body[..4]));
    let mut idle = http2(server.client.address, &healthz());
    let (kind, head) = next(&mut idle);
    assert_eq!((kind, head[0]), (HEADERS, OK));
    assert_eq!(next(&mut idle).0, GOAWAY);

    // The other one has been open for longer, and is answered before it is told to go.
    busy.write_all(&frame(DATA, 1, 1, &body[4..])).unwrap();
    let (kind, head) = next(&mut busy);
    assert_eq!((kind, head[0]), (HEADERS, OK));
    assert_eq!(next(&mut busy).0, GOAWAY);
}
