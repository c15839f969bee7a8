//! Clients of HTTP/2 that open no window for their answer, or hardly any.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use canet_api::{self, Access, ApiKeys, Connections, Hosts, Timeouts, Tls, TlsFiles};
use tokio::sync::watch;

use super::grpc_client;
use super::http2::{DATA, Frame, GOAWAY, HEADERS, OK, RST_STREAM, frame, get, open, post, settings, window_update};
use super::idle::{LONG, listen, runtime};
use super::raw::connect;
use super::server::{Server, retry};
use super::tls::{authority, config, connect_to, identity};

/// How long a client may leave an answer untaken.
const STALL: Duration = Duration::from_secs(1);

/// A page of 1 MB that every server has.
const LARGE: &str = "/docs/openapi-explorer.js";

/// CANCEL, the reason of a reset.
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Serves over HTTP/2 with a short patience.
fn impatient(tls: Option<Tls>) -> Server {
    let timeouts = Timeouts { body: STALL, ..Timeouts::default() };
    Server::behind(Access::default(), Connections { timeouts, tls, ..Connections::default() })
}

/// The next frame of a stream.
fn next(stream: &mut impl Read, id: u32) -> Frame {
    let mut frames = std::iter::from_fn(|| Frame::read(stream).unwrap());
    frames.find(|frame| frame.stream == id).expect("the connection stays open")
}

/// Leaves `stalled` without a window. Its stream must be reset, and the connection must go on.
fn loses_its_stream_alone(stream: &mut (impl Read + Write), stalled: &[u8]) {
    open(stream, &[settings(0), stalled.to_vec()]);
    let head = next(stream, 1);
    assert_eq!((head.kind, head.payload[0], head.ends_stream()), (HEADERS, OK, false));
    let reset = next(stream, 1);
    assert_eq!((reset.kind, &*reset.payload), (RST_STREAM, &CANCEL[..]));
    stream.write_all(&[get(3, LARGE), window_update(3, 7)].concat()).unwrap();
    assert_eq!(next(stream, 3).payload[0], OK);
    assert_eq!(next(stream, 3).payload.len(), 7);
}

#[test]
fn a_stream_without_a_window_is_reset() {
    let server = impatient(None);
    for path in [LARGE, "/healthz", "/metrics"] {
        loses_its_stream_alone(&mut connect(server.client.address), &get(1, path));
    }
    assert!(server.metric("disconnects_total{reason=\"stalled\"}") >= 3.0);
}

#[test]
fn a_stream_without_a_window_is_reset_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let [certificates, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    let authority = authority("test");
    let own = identity(&authority);
    std::fs::write(&certificates, own.certificate.pem()).unwrap();
    std::fs::write(&key, own.key.serialize_pem()).unwrap();
    let server = impatient(Some(Tls::load(TlsFiles { certificates, key, client_authorities: None }).unwrap()));
    let mut stream = connect_to(server.client.address, config(&authority, None));
    loses_its_stream_alone(&mut stream, &get(1, LARGE));
}

#[test]
fn a_grpc_call_without_a_window_is_reset() {
    let server = Server::start();
    let runtime = runtime();
    let (_stop, stopped) = watch::channel(());
    let timeouts = Timeouts { body: STALL, ..Timeouts::default() };
    let app = canet_api::grpc::app(&server.recommender, &ApiKeys::default(), &Hosts::Any).unwrap();
    let (address, _) = listen(&runtime, app, Connections { timeouts, ..Connections::default() }, stopped);
    let mut stream = connect(address);
    let call = post(1, "/canet.v1.Recommender/GetModel", "application/grpc");
    open(&mut stream, &[settings(0), call, frame(DATA, 1, 1, &grpc_client::frame(&[]))]);
    assert_eq!(next(&mut stream, 1).kind, HEADERS);
    let reset = next(&mut stream, 1);
    assert_eq!((reset.kind, &*reset.payload), (RST_STREAM, &CANCEL[..]));
}

#[test]
fn a_large_answer_that_stops_on_its_way_is_reset() {
    let server = impatient(None);
    let mut stream = connect(server.client.address);
    open(&mut stream, &[settings(40_000), get(1, LARGE)]);
    let mut received = 0;
    let last = loop {
        let frame = next(&mut stream, 1);
        if frame.kind == RST_STREAM {
            break frame;
        }
        received += if frame.kind == DATA { frame.payload.len() } else { 0 };
    };
    assert_eq!((received, &*last.payload), (40_000, &CANCEL[..]));
}

#[test]
fn a_slow_client_gets_its_answer() {
    // A twentieth of the patience for each part, and more than all of it for the whole.
    const PAUSE: Duration = Duration::from_millis(200);
    let timeouts = Timeouts { body: 20 * PAUSE, ..Timeouts::default() };
    let server = Server::behind(Access::default(), Connections { timeouts, ..Connections::default() });
    let whole = server.client.get(LARGE).text.len();
    let step = u32::try_from(whole.div_ceil(25)).unwrap();
    let received = retry(|| {
        let mut stream = connect(server.client.address);
        open(&mut stream, &[settings(0), get(1, LARGE)]);
        let (mut received, mut granted) = (0, 0);
        let (mut part_began, mut slowest) = (Instant::now(), Duration::ZERO);
        loop {
            if received == granted {
                std::thread::sleep(PAUSE);
                granted += step as usize;
                stream.write_all(&[window_update(0, step), window_update(1, step)].concat()).unwrap();
                slowest = slowest.max(part_began.elapsed());
                part_began = Instant::now();
            }
            let frame = next(&mut stream, 1);
            if frame.kind == RST_STREAM {
                // If something holds the test up for the patience, the reset is right. Then it asks again.
                slowest = slowest.max(part_began.elapsed());
                assert!(slowest >= 10 * PAUSE, "after {received} bytes, of which each part took at most {slowest:?}");
                return None;
            }
            received += if frame.kind == DATA { frame.payload.len() } else { 0 };
            if frame.ends_stream() {
                return Some(received);
            }
        }
    });
    assert_eq!(received, whole);
}

#[test]
fn a_small_answer_that_stops_on_its_way_ends_the_connection() {
    let server = impatient(None);
    let mut stream = connect(server.client.address);
    // The answer has one byte more. hyper hands such an answer over and cannot reset it any more.
    open(&mut stream, &[settings(5), get(1, "/healthz")]);
    let mut kinds = Vec::new();
    while let Some(frame) = Frame::read(&mut stream).unwrap() {
        kinds.push(frame.kind);
    }
    assert!(kinds.contains(&DATA) && kinds.contains(&GOAWAY), "{kinds:?}");
    assert_eq!(server.metric("disconnects_total{reason=\"stalled\"}"), 1.0);
}

#[test]
fn a_stalled_answer_does_not_hold_up_the_stop() {
    let server = Server::start();
    let runtime = runtime();
    let timeouts = Timeouts { handshake: LONG, first: LONG, head: LONG, body: LONG };
    let (stop, stopped) = watch::channel(());
    let app = canet_api::app(&server.recommender, Access::default());
    let (address, ended) = listen(&runtime, app, Connections { timeouts, ..Connections::default() }, stopped);
    let mut stalled: Vec<TcpStream> = [(0, LARGE), (5, "/healthz"), (20_000, LARGE)]
        .map(|(window, path)| {
            let mut stream = connect(address);
            open(&mut stream, &[settings(window), get(1, path)]);
            assert_eq!(next(&mut stream, 1).payload[0], OK);
            stream
        })
        .into();
    stop.send_replace(());
    // Long before the patience with a client's answer is over.
    runtime.block_on(ended).unwrap();
    for stream in &mut stalled {
        while Frame::read(stream).is_ok_and(|frame| frame.is_some()) {}
    }
}
