//! The memory that bodies share.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use canet_api::{Access, BodyBudget, Connections};
use tokio::net::TcpSocket;

use super::raw::{RawReply, exchange, post, read_to_close};
use super::server::Server;

/// A connection from an address of loopback, which is a peer of its own.
fn connect_from(runtime: &tokio::runtime::Runtime, peer: &str, server: SocketAddr) -> TcpStream {
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{peer}:0").parse().unwrap()).unwrap();
        socket.connect(server).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Half-sent bodies of one peer fill its part of the room, and nobody else's.
#[test]
fn half_sent_bodies_of_one_peer_leave_room_for_all_others() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connections = Connections { body_budget: BodyBudget::new(8 << 20), ..Connections::default() };
    let server = Server::behind(Access::default(), connections);
    let address = server.client.address;
    let large = post("/recommend", format!("{{\"history\":[101]{}}}", " ".repeat((1 << 20) - 20)).as_bytes());
    // More than the whole room. Those that find no room are read to their end and answered.
    let mut half_sent: Vec<TcpStream> = (0..12).map(|_| connect_from(&runtime, "127.0.0.2", address)).collect();
    for stream in &mut half_sent {
        stream.write_all(&large[..large.len() - 1]).unwrap();
    }
    let whole = |peer: &str, request: &[u8]| {
        let mut stream = connect_from(&runtime, peer, address);
        stream.write_all(request).unwrap();
        RawReply::parse(&read_to_close(&mut stream)).unwrap().status
    };
    // The peer has its part once another of its bodies is refused.
    while whole("127.0.0.2", &large) == 200 {}
    for _ in 0..20 {
        assert_eq!(whole("127.0.0.3", &large), 200);
        assert_eq!(whole("127.0.0.2", &post("/recommend", b"{\"history\":[101]}")), 200);
    }
    let statuses = half_sent.iter_mut().map(|stream| {
        stream.write_all(&large[large.len() - 1..]).unwrap();
        RawReply::parse(&read_to_close(stream)).unwrap().status
    });
    let taken = statuses.filter(|status| *status == 200).count();
    // Seven eighths of the room are for large bodies, and a peer may hold as much as it leaves.
    assert!((2..=4).contains(&taken), "{taken}");
    assert_eq!(exchange(address, &large).unwrap().status, 200);
}
