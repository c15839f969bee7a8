//! HTTP/1.1 by hand, for what no client library would send.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use tokio::net::TcpSocket;

use super::server::HANGS;

/// An answer as its bytes came.
#[derive(Debug)]
pub(crate) struct RawReply {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl RawReply {
    /// The first answer in what a connection sent before it closed; `None` where there is no whole head.
    pub(crate) fn parse(bytes: &[u8]) -> Option<RawReply> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut reply = RawReply { status, head, body: bytes[end + 4..].to_vec() };
        // What follows answers whatever the server took for a second request.
        if let Some(length) = reply.header("content-length").and_then(|length| length.parse().ok()) {
            reply.body.truncate(length);
        }
        Some(reply)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANGS)).unwrap();
    stream
}

/// Holds a port on which nobody listens, so that no other test is given it: that of `address`, or any where it is 0.
pub(crate) fn nobody_at(address: SocketAddr) -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    // Connections of a server that was there may linger.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What comes until the server closes the connection. A connection that it resets is closed too.
///
/// # Panics
/// Where nothing comes for too long.
pub(crate) fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("after {} bytes: {error}", bytes.len()),
    }
    bytes
}

/// Sends bytes on a connection of their own; they should ask to close it.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Option<RawReply> {
    let mut stream = connect(address);
    // The server may refuse before it has read all.
    let _ = stream.write_all(request);
    RawReply::parse(&read_to_close(&mut stream))
}

/// A POST of JSON that closes its connection.
pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
