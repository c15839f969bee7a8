//! gRPC messages that do not arrive, and calls that their clients keep open. Written by hand over HTTP/1.1, in which a
//! body can stop anywhere.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use canet_api::proto::canet::v1 as proto;
use canet_api::{self, ApiKeys, BodyBudget, Connections, Hosts, Timeouts};
use prost::Message;

use super::grpc_client::frame;
use super::raw::{RawReply, connect, read_to_close};
use super::server::Server;

/// The services of `server` behind a listener.
fn listen(server: &Server, connections: Connections) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let router = canet_api::grpc::app(&server.recommender, &ApiKeys::default(), &Hosts::Any).unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(canet_api::serve(listener, router, connections, std::future::pending()));
    (runtime, address)
}

/// Begins a call whose message is sent in chunks, and sends the first of them with the head.
fn begin(address: SocketAddr, method: &str, first: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    let head = format!(
        "POST /{method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\nte: trailers\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    // A chunk of nothing would be the last one.
    let first = if first.is_empty() {
        Vec::new()
    } else {
        [format!("{:x}\r\n", first.len()).as_bytes(), first, b"\r\n"].concat()
    };
    stream.write_all(&[head.as_bytes(), &first].concat()).unwrap();
    stream
}

#[test]
fn a_message_that_does_not_arrive_is_refused() {
    let server = Server::start();
    let timeouts = Timeouts { body: Duration::from_millis(300), ..Timeouts::default() };
    let (_runtime, address) = listen(&server, Connections { timeouts, ..Connections::default() });
    let message = proto::RecommendRequest { history: vec!["101".to_owned()], ..Default::default() };
    let message = frame(&message.encode_to_vec());
    for method in ["canet.v1.Recommender/Recommend", "grpc.health.v1.Health/Check"] {
        for sent in [0, message.len() - 1] {
            let mut stream = begin(address, method, &message[..sent]);
            let reply = RawReply::parse(&read_to_close(&mut stream)).unwrap();
            // DEADLINE_EXCEEDED
            assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("4")), "{method} {sent}: {reply:?}");
            assert!(reply.header("grpc-message").unwrap().contains("did%20not%20arrive%20within"), "{reply:?}");
        }
    }
    assert!((server.client.calls("grpc", "DEADLINE_EXCEEDED") - 2.0).abs() < 1e-9);
}

/// What a call of this one message ends with.
fn ended(address: SocketAddr, message: &[u8]) -> RawReply {
    let mut stream = begin(address, "canet.v1.Recommender/Recommend", message);
    // The server may have refused before.
    let _ = stream.write_all(b"0\r\n\r\n");
    let mut answer = Vec::new();
    while RawReply::parse(&answer).is_none() {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes).unwrap() {
            0 => panic!("no answer: {}", String::from_utf8_lossy(&answer)),
            read => answer.extend_from_slice(&bytes[..read]),
        }
    }
    RawReply::parse(&answer).unwrap()
}

#[test]
fn messages_beyond_the_room_for_bodies_are_refused_until_there_is_some() {
    let server = Server::start();
    let timeouts = Timeouts { body: Duration::from_secs(3600), ..Timeouts::default() };
    let connections = Connections { body_budget: BodyBudget::new(64 << 10), timeouts, ..Connections::default() };
    let (_runtime, address) = listen(&server, connections);
    let message = proto::RecommendRequest { history: vec!["x".repeat(40 << 10)], ..Default::default() };
    let message = frame(&message.encode_to_vec());
    let half_sent = || begin(address, "canet.v1.Recommender/Recommend", &message[..message.len() - 1]);
    // One that meets another message in the room may be the one that is refused, and then holds nothing.
    let mut waiting = vec![half_sent()];
    let refused = loop {
        let reply = ended(address, &message);
        // An answer without a status in its head is one.
        if reply.header("grpc-status").is_some() {
            break reply;
        }
        waiting.push(half_sent());
    };
    // RESOURCE_EXHAUSTED
    assert_eq!((refused.header("grpc-status"), refused.header("retry-after")), (Some("8"), Some("1")), "{refused:?}");
    drop(waiting);
    while ended(address, &message).header("grpc-status").is_some() {}

    // Nor are messages received without an end that follow the one of a call.
    let endless = vec![0; 64 << 10];
    let mut stream = begin(address, "canet.v1.Recommender/Recommend", &endless[..5]);
    let chunk = [format!("{:x}\r\n", endless.len()).as_bytes(), &endless, b"\r\n"].concat();
    while stream.write_all(&chunk).is_ok() {}
    let reply = RawReply::parse(&read_to_close(&mut stream)).unwrap();
    assert_eq!(reply.header("grpc-status"), Some("8"), "{reply:?}");
}

#[test]
fn a_reflection_stream_that_its_client_keeps_open_ends_with_the_drain() {
    let server = Server::start();
    // A body may take far longer than the test where nothing cuts it.
    let (_runtime, address) = listen(&server, Connections::default());
    for version in ["v1", "v1alpha"] {
        // `list_services`, which is the field 7, of anything.
        let list = frame(&[0x3a, 1, b'*']);
        let method = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let mut stream = begin(address, &method, &list);
        let mut answer = Vec::new();
        while !contains(&answer, b"canet.v1.Recommender") {
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&bytes[..read]);
        }
        // The second stream begins when the server drains already: what is asked is answered all the same.
        server.recommender.drain();
        // The last chunk: an end, not a connection that broke. HTTP/1.1 keeps the status for itself.
        let rest = read_to_close(&mut stream);
        assert!(rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn a_silent_reflection_stream_ends_and_frees_its_connection() {
    let server = Server::start();
    let timeouts = Timeouts { body: Duration::from_millis(300), ..Timeouts::default() };
    let (_runtime, address) = listen(&server, Connections { timeouts, ..Connections::default() });
    for version in ["v1", "v1alpha"] {
        let method = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let mut stream = begin(address, &method, &[]);
        let reply = read_to_close(&mut stream);
        assert!(reply.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply));
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
