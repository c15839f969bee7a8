//! How long a client may take, and how many there may be.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::process::Command;
use std::time::{Duration, Instant};

use canet_api::{Access, BodyBudget, Connections, Timeouts};
use serde_json::json;

use super::http2::{self, Frame};
use super::idle::runtime;
use super::raw::{RawReply, connect, exchange, post, read_to_close};
use super::server::{HANGS, Process, Server, metric, retry};
use super::support::write_checkpoint;

/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);

/// Longer than a first request takes, unless something holds the test up.
const OLD: Duration = Duration::from_secs(2);

/// The age below which no connection is [`OLD`]: the server varies it by a tenth.
const YOUNG: Duration = Duration::from_millis(1800);

/// Timeouts that no held-up test runs into. A half-sent body must go on within a third of its own.
fn patient() -> Timeouts {
    let hour = Duration::from_secs(3600);
    Timeouts { handshake: hour, first: hour, head: hour, body: hour }
}

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
fn an_unread_body_ends_its_connection_and_the_answer_says_so() {
    let server = Server::start();
    let address = server.client.address;
    let head = |start: &str, headers: &str| format!("{start} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n");
    for (start, headers, status) in [
        ("POST /nowhere", "content-length: 17", 404),
        ("POST /nowhere", "transfer-encoding: chunked", 404),
        ("PUT /recommend", "content-length: 17", 405),
        ("POST /recommend", "content-encoding: lzma\r\ncontent-length: 17", 415),
    ] {
        let mut stream = connect(address);
        stream.write_all(head(start, headers).as_bytes()).unwrap();
        let reply = RawReply::parse(&read_to_close(&mut stream)).unwrap();
        assert_eq!((reply.status, reply.header("connection")), (status, Some("close")), "{start} {headers}");
    }
    let mut stream = connect(address);
    let recommend = head("POST /recommend", "content-type: application/json\r\ncontent-length: 17");
    stream.write_all(format!("{recommend}{}", r#"{"history":[101]}"#).as_bytes()).unwrap();
    stream.write_all(head("POST /nowhere", "content-length: 0").as_bytes()).unwrap();
    stream.write_all(HEALTH).unwrap();
    let answers = String::from_utf8(read_to_close(&mut stream)).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 3, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
}

#[test]
fn bodies_beyond_the_room_for_them_are_refused_and_others_are_not() {
    // No half-sent body is refused for its pace.
    let timeouts = Timeouts { body: Duration::from_secs(3600), ..Timeouts::default() };
    let connections = Connections { body_budget: BodyBudget::new(64 << 10), timeouts, ..Connections::default() };
    let server = Server::behind(Access::default(), connections);
    let address = server.client.address;
    let large = post("/recommend", format!("{{\"history\":[101]{}}}", " ".repeat(40 << 10)).as_bytes());
    let half_sent = || {
        let mut stream = connect(address);
        stream.write_all(&large[..large.len() - 1]).unwrap();
        stream
    };
    // A half-sent body that meets another one in the room may be the one that is refused, and then holds nothing. So
    // there is one more until one stays.
    let mut waiting = vec![half_sent()];
    let refused = loop {
        let reply = exchange(address, &large).unwrap();
        if reply.status != 200 {
            break reply;
        }
        waiting.push(half_sent());
    };
    let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, &problem["code"]), (429, &json!("overloaded")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(exchange(address, &post("/recommend", br#"{"history":[101]}"#)).unwrap().status, 200);

    let statuses = waiting.iter_mut().map(|stream| {
        stream.write_all(&large[large.len() - 1..]).unwrap();
        RawReply::parse(&read_to_close(stream)).unwrap().status
    });
    assert_eq!(statuses.filter(|status| *status == 200).count(), 1, "the room holds one of them");
    // What was held is given back, by those who left too.
    let mut leaving = vec![half_sent()];
    while exchange(address, &large).unwrap().status == 200 {
        leaving.push(half_sent());
    }
    drop(leaving);
    while exchange(address, &large).unwrap().status != 200 {}
}

#[test]
fn a_connection_that_asks_for_nothing_is_closed() {
    let server = impatient(Timeouts { first: SHORT, ..Timeouts::default() });
    let answer = (0..20).find_map(|_| {
        // It says at once that it speaks HTTP/2, and then owes no request in time.
        let mut http2 = connect(server.client.address);
        http2::open(&mut http2, &[http2::settings(100)]);
        // Nothing, what may become HTTP/2, half a head.
        for sent in ["", "PRI * HT", "POST /recommend HTTP/1.1\r\nhost: can"] {
            let mut stream = connect(server.client.address);
            stream.write_all(sent.as_bytes()).unwrap();
            assert!(read_to_close(&mut stream).is_empty(), "{sent:?}");
        }
        // If something holds the test up, the connection is closed before its preface comes. Then it tries again.
        http2.write_all(&http2::get(1, "/healthz")).ok()?;
        std::iter::from_fn(|| Frame::read(&mut http2).ok()?).find(|frame| frame.stream == 1)
    });
    assert_eq!(answer.unwrap().payload[0], http2::OK);
    assert!(server.metric("disconnects_total{reason=\"no_request\"}") >= 3.0);
}

#[test]
fn a_connection_that_asks_for_nothing_more_is_closed() {
    let server = impatient(Timeouts { head: SHORT, ..Timeouts::default() });
    let health = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // If something holds the test up, its connection is closed before it has asked. Then it asks on another one.
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
    let stalled = retry(|| {
        let mut stuck = connect(server.client.address);
        stuck.set_write_timeout(Some(HANGS)).unwrap();
        // Answers of 2 MB each, more than the system keeps for a connection; then it breaks, and so does sending.
        let _ = (0..20).try_for_each(|_| stuck.write_all(request.as_bytes()));
        // Its place is free.
        assert_eq!(exchange(server.client.address, HEALTH).unwrap().status, 200);
        // If something holds the test up while it sends, the server refuses a body. Then another connection sends.
        Some(server.metric("disconnects_total{reason=\"stalled\"}")).filter(|stalled| *stalled > 0.0)
    });
    assert_eq!(stalled, 1.0);
}

#[test]
fn an_old_connection_ends_with_what_it_was_asked() {
    let server = Server::behind(Access::default(), Connections { max_age: Some(OLD), ..Connections::default() });
    // Over HTTP/1.1 the answer says so: a connection that was just closed could swallow the next request.
    let mut stream = retry(|| {
        let began = Instant::now();
        let mut stream = connect(server.client.address);
        let says_so = ask_for_health(&mut stream).is_none_or(|reply| reply.header("connection") == Some("close"));
        // If something holds the test up, the connection is old before its first answer. Then it asks on another one.
        assert!(!says_so || began.elapsed() >= YOUNG, "a connection ended at {:?}", began.elapsed());
        (!says_so).then_some(stream)
    });
    let last = retry(|| {
        let reply = ask_for_health(&mut stream).expect("an answer comes before the end");
        assert_eq!(reply.status, 200);
        reply.header("connection").map(str::to_owned)
    });
    assert_eq!(last, "close");
    assert!(read_to_close(&mut stream).is_empty());

    // Over HTTP/2 a frame does, here to a client that sent nothing but its settings.
    retry(|| {
        let began = Instant::now();
        let mut stream = connect(server.client.address);
        http2::open(&mut stream, &[http2::settings(100)]);
        // A connection that is old before its first bytes come is closed without a frame.
        let is_in_time = began.elapsed() < YOUNG;
        let is_told = std::iter::from_fn(|| Frame::read(&mut stream).ok()?).any(|frame| frame.kind == http2::GOAWAY);
        assert!(is_told || !is_in_time, "the connection ended without a word");
        is_told.then_some(())
    });
}

/// Asks on a connection that stays open. `None` if the connection ends before the answer.
fn ask_for_health(stream: &mut TcpStream) -> Option<RawReply> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"alive\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        answer.extend(byte);
    }
    RawReply::parse(&answer)
}

#[test]
fn a_client_that_sends_frames_and_asks_for_nothing_loses_its_connection_and_one_that_asks_does_not() {
    let server = Server::start();
    let ping = http2::frame(http2::PING, 0, 0, &[7; 8]);
    let mut asking = connect(server.client.address);
    http2::open(&mut asking, &[http2::settings(1000)]);
    for request in 0..1000 {
        let stream = 2 * request + 1;
        let around = [http2::get(stream, "/healthz"), ping.clone(), http2::window_update(0, 100)];
        asking.write_all(&around.concat()).unwrap();
        let mut frames = std::iter::from_fn(|| Frame::read(&mut asking).unwrap());
        assert!(frames.any(|frame| frame.stream == stream && frame.ends_stream()), "request {request}");
    }
    assert_eq!(server.metric("disconnects_total{reason=\"flood\"}"), 0.0);

    let mut flooding = connect(server.client.address);
    http2::open(&mut flooding, &[http2::settings(1000)]);
    // The server may close the connection before all is sent.
    let _ = flooding.write_all(&ping.repeat(5000));
    read_to_close(&mut flooding);
    assert_eq!(server.metric("disconnects_total{reason=\"flood\"}"), 1.0);
    asking.write_all(&http2::get(2001, "/healthz")).unwrap();
    let mut frames = std::iter::from_fn(|| Frame::read(&mut asking).unwrap());
    assert!(frames.any(|frame| frame.stream == 2001 && frame.ends_stream()));
}

/// A connection with an open request: the last byte of its body is missing.
fn busy(server: &Server) -> (TcpStream, u8) {
    let request = post("/recommend", br#"{"history":[101]}"#);
    let before = server.metric("requests_in_flight");
    let mut stream = connect(server.client.address);
    stream.write_all(&request[..request.len() - 1]).unwrap();
    retry(|| (server.metric("requests_in_flight") > before).then_some(()));
    (stream, request[request.len() - 1])
}

fn finish((mut stream, last): (TcpStream, u8)) {
    stream.write_all(&[last]).unwrap();
    assert_eq!(RawReply::parse(&read_to_close(&mut stream)).unwrap().status, 200);
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[test]
fn idle_connections_make_room_and_busy_ones_stay() {
    let connections = Connections { max_open: 4, timeouts: patient(), ..Connections::default() };
    let server = Server::behind(Access::default(), connections);
    let busy = busy(&server);
    // More than there are places for.
    let mut silent: Vec<TcpStream> = (0..20).map(|_| connect(server.client.address)).collect();
    assert!(read_to_close(&mut silent[0]).is_empty());
    assert_eq!(exchange(server.client.address, HEALTH).unwrap().status, 200);
    // There were 22 connections. The last one closed itself, and the server closed those that are not left. If one is
    // slow to leave, the server asks another one too. So one to three are left, and the busy one is among them.
    let left = retry(|| {
        let scrape = server.recommender.metrics().render().unwrap();
        let [left, room] = ["connections", "disconnects_total{reason=\"room\"}"].map(|series| metric(&scrape, series));
        (left + room == 21.0).then_some(left)
    });
    assert!((1.0..=3.0).contains(&left), "{left} connections are left");
    finish(busy);
}

#[test]
fn new_connections_wait_while_all_others_are_busy() {
    let connections = Connections { max_open: 2, timeouts: patient(), ..Connections::default() };
    let server = Server::behind(Access::default(), connections);
    let (one, two) = (busy(&server), busy(&server));
    let mut waiting = connect(server.client.address);
    waiting.write_all(HEALTH).unwrap();
    waiting.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(waiting.read(&mut [0; 512]).unwrap_err().kind(), ErrorKind::WouldBlock);
    waiting.set_read_timeout(Some(HANGS)).unwrap();
    finish(one);
    assert_eq!(RawReply::parse(&read_to_close(&mut waiting)).unwrap().status, 200);
    finish(two);
}

#[test]
fn one_client_cannot_take_every_place() {
    let max_per_client = NonZeroUsize::new(2);
    let connections = Connections { max_per_client, timeouts: patient(), ..Connections::default() };
    let server = Server::behind(Access::default(), connections);
    let (one, two) = (busy(&server), busy(&server));
    // Both of its connections are busy, so a third one is closed.
    assert!(exchange(server.client.address, HEALTH).is_none());
    assert_eq!(server.metric("disconnects_total{reason=\"client_limit\"}"), 1.0);
    finish(one);
    retry(|| exchange(server.client.address, HEALTH).filter(|reply| reply.status == 200));
    finish(two);
}

#[test]
fn at_the_stop_connections_of_the_systems_queue_are_answered() {
    let server = Server::start();
    let runtime = runtime();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(HEALTH).unwrap();
            stream
        })
        .collect();
    // It stops before it has accepted anything.
    let router = canet_api::app(&server.recommender, Access::default());
    runtime.block_on(canet_api::serve(listener, router, Connections::default(), std::future::ready(())));
    for stream in &mut waiting {
        assert_eq!(RawReply::parse(&read_to_close(stream)).unwrap().status, 200);
    }
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
