//! How long a client may take, and how many there may be.

use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::time::Duration;

use canet_api::{Access, BodyBudget, Connections, Timeouts};
use serde_json::json;

use super::raw::{RawReply, connect, exchange, post, read_to_close};
use super::server::{Process, Server};
use super::support::write_checkpoint;

/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);

/// Longer than a first request takes on a busy machine; a tenth of it is less than [`SHORT`].
const OLD: Duration = Duration::from_secs(2);

fn impatient(timeouts: Timeouts) -> Server {
    Server::behind(Access::default(), Connections { timeouts, ..Connections::default() })
}

#[test]
fn a_body_that_does_not_arrive_is_refused() {
    let server = impatient(Timeouts { body: SHORT, ..Timeouts::default() });
    let request = post("/recommend", br#"{"history":[101]}"#);
    let mut stream = connect(server.client.address);
    stream.write_all(&request[..request.len() - 4]).unwrap();
    let reply = RawReply::parse(&read_to_close(&mut stream)).unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &problem["code"]), (408, &json!("request_timeout")));
    assert_eq!(reply.header("connection"), Some("close"));
}

#[test]
fn bodies_beyond_the_room_for_them_are_refused_and_others_are_not() {
    let connections = Connections { body_budget: BodyBudget::new(64 << 10), ..Connections::default() };
    let server = Server::behind(Access::default(), connections);
    let address = server.client.address;
    let large = post("/recommend", format!("{{\"history\":[101]{}}}", " ".repeat(40 << 10)).as_bytes());
    let mut first = connect(address);
    first.write_all(&large[..large.len() - 1]).unwrap();
    // As soon as most of it has come; whoever is refused is heard to the end.
    let refused = loop {
        let reply = exchange(address, &large).unwrap();
        if reply.status != 200 {
            break reply;
        }
    };
    let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, &problem["code"]), (429, &json!("overloaded")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(exchange(address, &post("/recommend", br#"{"history":[101]}"#)).unwrap().status, 200);

    first.write_all(&large[large.len() - 1..]).unwrap();
    assert_eq!(RawReply::parse(&read_to_close(&mut first)).unwrap().status, 200);
    // What was held is given back, by those who left too.
    let mut leaving = connect(address);
    leaving.write_all(&large[..large.len() - 1]).unwrap();
    while exchange(address, &large).unwrap().status == 200 {}
    drop(leaving);
    while exchange(address, &large).unwrap().status != 200 {}
}

#[test]
fn a_connection_that_asks_for_nothing_is_closed() {
    let server = impatient(Timeouts { head: SHORT, ..Timeouts::default() });
    // Nothing, what may become HTTP/2, half a head.
    for sent in ["", "PRI * HT", "POST /recommend HTTP/1.1\r\nhost: can"] {
        let mut stream = connect(server.client.address);
        stream.write_all(sent.as_bytes()).unwrap();
        assert!(read_to_close(&mut stream).is_empty(), "{sent:?}");
    }
    // Nor is a second request waited for after the first.
    let health = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // Where something holds the test up its connection is closed before it has asked: it asks on another one.
    let answered = (0..20).find_map(|_| exchange(server.client.address, health)).unwrap();
    assert_eq!(answered.status, 200);
}

#[test]
fn a_client_that_reads_no_answer_loses_its_connection() {
    let timeouts = Timeouts { body: Duration::from_secs(1), ..Timeouts::default() };
    let server = Server::behind(Access::default(), Connections { max_open: 1, timeouts, ..Connections::default() });
    let row = json!({"history": [101], "k": 40, "exclude_seen": false, "route": "smallest", "timeout_ms": 60_000});
    let body = json!({"requests": vec![row; 1024]}).to_string();
    let head = "POST /recommend/batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length:";
    let request = format!("{head} {}\r\n\r\n{body}", body.len());
    let mut stuck = connect(server.client.address);
    stuck.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    // Answers of 2 MB each, more than the system keeps for a connection; then it breaks, and so does sending.
    let sent = (0..20).map_while(|_| stuck.write_all(request.as_bytes()).ok()).count();
    assert!(sent > 0);
    // Its place is free.
    let health = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(server.client.address, health).unwrap().status, 200);
}

#[test]
fn an_old_connection_ends_with_what_it_was_asked() {
    let server = Server::behind(Access::default(), Connections { max_age: Some(OLD), ..Connections::default() });
    // Over HTTP/1.1 the answer says so: a connection that was just closed could swallow the next request.
    let health = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut stream = connect(server.client.address);
    stream.write_all(health).unwrap();
    let mut first = Vec::new();
    while !first.ends_with(b"alive\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        first.extend(byte);
    }
    std::thread::sleep(OLD + SHORT);
    stream.write_all(health).unwrap();
    let last = RawReply::parse(&read_to_close(&mut stream)).unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));

    // Over HTTP/2 a frame does, here to a client that sent nothing but its settings.
    let mut stream = connect(server.client.address);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("GOAWAY comes before the end");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).unwrap();
        if head[3] == 7 {
            break;
        }
    }
}

#[test]
fn connections_beyond_the_most_wait_for_a_place() {
    let server = Server::behind(Access::default(), Connections { max_open: 1, ..Connections::default() });
    let health = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut first = connect(server.client.address);
    first.write_all(health).unwrap();
    assert!(first.read(&mut [0; 512]).unwrap() > 0);

    let mut second = connect(server.client.address);
    second.write_all(health).unwrap();
    second.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(second.read(&mut [0; 512]).unwrap_err().kind(), ErrorKind::WouldBlock);
    second.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    drop(first);
    assert!(second.read(&mut [0; 512]).unwrap() > 0);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Server::start();
    let head = |filler: &str| format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{filler}\r\n");
    let long = format!("x: {}\r\n", "y".repeat(70_000));
    let many = "x: y\r\n".repeat(200);
    for filler in [long, many] {
        let reply = exchange(server.client.address, head(&filler).as_bytes());
        assert!(reply.is_none_or(|reply| reply.status == 431));
    }
    let fits = format!("x: {}\r\n", "y".repeat(30_000));
    assert_eq!(exchange(server.client.address, head(&fits).as_bytes()).unwrap().status, 200);
}

#[test]
fn a_low_limit_on_open_files_leaves_descriptors_for_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("small");
    write_checkpoint(&model, 9);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 140; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_canet")]);
    let server = Process::serve_by(limited, &model, &[]);
    // More than the descriptors that the server has left. Those that find no place wait in the system's queue.
    let idle: Vec<_> = (0..127).map(|_| connect(server.client.address)).collect();
    write_checkpoint(&model, 10);
    server.signal("HUP");
    server.log_line("version=2");
    drop(idle);
    assert_eq!(server.client.get("/healthz").status, 200);
}
