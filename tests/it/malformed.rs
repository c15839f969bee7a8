//! Thousands of requests that are wrong in ways nobody thought of, while good ones are answered.
//!
//! `CANET_TEST_MALFORMED=10000 cargo test --release malformed -- --nocapture` sends more of them, and prints how long
//! good requests took before and meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use canet_api::{Access, Connections, Timeouts};
use rand::seq::SliceRandom;
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::raw::{RawReply, exchange, post};
use super::server::{Client, ROOMY, Server, numbered, retry};
use super::support::{BrokenPart, draft, forwards, item, overflowing, rng, small_config};

/// The codes that a wrong request may be answered with.
const CODES: [&str; 7] = [
    "invalid_json",
    "not_found",
    "method_not_allowed",
    "request_timeout",
    "too_large",
    "unsupported_media_type",
    "invalid_request",
];

const WORKERS: u64 = 4;

/// How long the server waits for a head or a body that does not come.
const PATIENCE: Duration = Duration::from_millis(500);

/// A request that a good client would send.
fn good(rng: &mut ChaCha8Rng) -> (&'static str, Value) {
    let ids =
        |rng: &mut ChaCha8Rng| -> Vec<u32> { (0..rng.gen_range(0..20)).map(|_| rng.gen_range(90..150)).collect() };
    let request = json!({
        "history": ids(rng), "k": rng.gen_range(1..=40), "exclude": ids(rng), "candidates": ids(rng), "route": "auto",
    });
    match rng.gen_range(0..4) {
        0 => ("/recommend/batch", json!({"requests": [request, {"history": ids(rng)}]})),
        _ => ("/recommend", request),
    }
}

/// Values that fit nowhere.
fn odd(rng: &mut ChaCha8Rng) -> String {
    let depth = rng.gen_range(1..3000);
    let choices = [
        "null".to_owned(),
        "-1".to_owned(),
        "1e308".to_owned(),
        "1e999".to_owned(),
        "-0.0".to_owned(),
        "18446744073709551616".to_owned(),
        "9".repeat(depth),
        "[".repeat(depth),
        "[".repeat(depth) + &"]".repeat(depth),
        "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth),
        "\"\\ud800\"".to_owned(),
        "\"\\u0000\"".to_owned(),
        format!("\"{}\"", "\u{202e}é".repeat(depth)),
        "{\"k\":1,\"k\":2}".to_owned(),
        "tru".to_owned(),
        "NaN".to_owned(),
    ];
    choices.choose(rng).unwrap().clone()
}

/// Whether what was sent is still HTTP, so that the answer must be one of the table.
struct Malformed {
    bytes: Vec<u8>,
    is_http: bool,
}

fn malformed(rng: &mut ChaCha8Rng) -> Malformed {
    let (path, body) = good(rng);
    let mut text = body.to_string().into_bytes();
    let http = |bytes| Malformed { bytes, is_http: true };
    let broken = |bytes| Malformed { bytes, is_http: false };
    match rng.gen_range(0..8) {
        // Bytes of the body are changed, dropped or added: bad UTF-8 among them.
        0 | 1 => {
            for _ in 0..rng.gen_range(1..6) {
                let place = rng.gen_range(0..text.len());
                match rng.gen_range(0..3) {
                    0 => text[place] = rng.r#gen(),
                    1 => drop(text.drain(place..(place + rng.gen_range(1..9)).min(text.len()))),
                    _ => text.insert(place, rng.r#gen()),
                }
                if text.is_empty() {
                    break;
                }
            }
            http(post(path, &text))
        }
        // A value of another kind, anywhere.
        2 | 3 => {
            let text = String::from_utf8(text).unwrap();
            let places: Vec<usize> = text.match_indices(':').map(|(place, _)| place + 1).collect();
            let place = *places.choose(rng).unwrap();
            http(post(path, format!("{}{},{}", &text[..place], odd(rng), &text[place..]).as_bytes()))
        }
        4 => http(post(path, odd(rng).as_bytes())),
        // Another path, method or content type.
        5 => {
            let text = String::from_utf8(post(path, &text)).unwrap();
            let (from, to) = *[
                ("POST", "BREW"),
                ("POST", "DELETE"),
                ("/recommend", "/recommend/%00%ff"),
                ("/recommend", "/../admin/reload"),
                ("application/json", "text/html"),
                ("application/json", "application/json\u{1}"),
                ("host: localhost", "host: localhost\r\nx-request-id: \u{7f}\r\ntraceparent: 00-zz"),
            ]
            .choose(rng)
            .unwrap();
            let is_http = !to.contains(['\u{1}', '\u{7f}']);
            Malformed { bytes: text.replacen(from, to, 1).into_bytes(), is_http }
        }
        // Garbage in the head.
        6 => {
            let mut bytes = post(path, &text);
            let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
            for _ in 0..rng.gen_range(1..5) {
                bytes[rng.gen_range(0..head)] = rng.r#gen();
            }
            broken(bytes)
        }
        // No HTTP at all, and lengths that lie.
        _ => match rng.gen_range(0..3) {
            0 => {
                let mut bytes = vec![0; rng.gen_range(1..2000)];
                rng.fill_bytes(&mut bytes);
                bytes.extend_from_slice(b"\r\n\r\n");
                broken(bytes)
            }
            1 => broken(
                b"POST /recommend HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{"
                    .to_vec(),
            ),
            _ => broken(
                b"POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-length: 18446744073709551616\r\n\r\n{}".to_vec(),
            ),
        },
    }
}

fn assert_refused(sent: &Malformed, reply: Option<&RawReply>) {
    let shown = String::from_utf8_lossy(&sent.bytes);
    let shown: String = shown.chars().take(600).collect();
    let Some(reply) = reply else {
        assert!(!sent.is_http, "closed without an answer: {shown}");
        return;
    };
    // What was changed may still be right.
    if reply.status == 200 {
        return;
    }
    assert!((400..500).contains(&reply.status), "{reply:?} to {shown}");
    if sent.is_http {
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?} to {shown}");
    }
    if reply.header("content-type") == Some("application/problem+json") {
        let problem: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
        assert!(CODES.contains(&problem["code"].as_str().unwrap()), "{problem} to {shown}");
    }
}

fn attack(address: SocketAddr, seed: u64, count: u64) {
    let mut rng = rng(seed);
    for _ in 0..count {
        let sent = malformed(&mut rng);
        // Who was held up between connecting and sending is refused for that alone, and sends again.
        let reply = retry(|| {
            let began = Instant::now();
            let reply = exchange(address, &sent.bytes);
            let held_up = sent.is_http && reply.is_none() && began.elapsed() >= PATIENCE;
            (!held_up).then_some(reply)
        });
        assert_refused(&sent, reply.as_ref());
    }
}

/// Good requests on a connection of their own until `done`, at least a few: how long each took.
fn load(address: SocketAddr, done: impl Fn(usize) -> bool) -> Vec<Duration> {
    let client = Client::new(address);
    let mut took = Vec::new();
    let mut previous = Instant::now();
    while took.len() < 50 || !done(took.len()) {
        let started = Instant::now();
        let body = json!({"history": [101, 102, 103], "route": "full"}).to_string();
        let sent = client.try_send("POST", "/recommend", &[("content-type", "application/json")], body.as_bytes());
        // Who was held up for that long is refused for that alone, as in `attack`. The server counts from its last
        // answer, which it gave after the previous request.
        let held_up = previous.elapsed() >= PATIENCE;
        previous = started;
        match sent {
            Ok(reply) if reply.status == 200 => took.push(started.elapsed()),
            Ok(reply) => assert!(held_up && reply.status == 408, "{reply:?}"),
            Err(error) => assert!(held_up, "{error}"),
        }
    }
    took.sort_unstable();
    took
}

fn quantile(sorted: &[Duration], quantile: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * quantile) as usize]
}

#[test]
fn malformed_requests_get_problems_while_good_ones_are_answered() {
    let count = std::env::var("CANET_TEST_MALFORMED").map_or(2000, |count| count.parse().unwrap());
    let timeouts = Timeouts { first: PATIENCE, head: PATIENCE, body: PATIENCE, ..Timeouts::default() };
    let server = Server::behind(Access::default(), Connections { timeouts, ..Connections::default() });
    let address = server.client.address;
    let before = load(address, |sent| sent as u64 >= count / 4);
    let attacked = AtomicBool::new(false);
    let meanwhile = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..WORKERS).map(|seed| scope.spawn(move || attack(address, seed, count / WORKERS))).collect();
        let loaded = scope.spawn(|| load(address, |_| attacked.load(Ordering::Relaxed)));
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        // Before anything can fail: the load ends by it.
        attacked.store(true, Ordering::Relaxed);
        let meanwhile = loaded.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
        meanwhile
    });
    for (when, took) in [("before", &before), ("meanwhile", &meanwhile)] {
        let (p50, p99) = (quantile(took, 0.5), quantile(took, 0.99));
        println!("{count} malformed requests, good ones {when}: {} with p50 {p50:?}, p99 {p99:?}", took.len());
    }
    assert_eq!(server.client.recommend(&json!({"history": [101]})).status, 200);
    // No handler panicked: each panic would be a 500.
    assert_eq!(server.client.calls("http", "500"), 0.0);
}

/// An item of the checkpoint makes NaN. No call is answered as if nothing were wrong, on any backend.
#[test]
fn a_history_whose_scores_are_not_finite_is_a_counted_error() {
    for part in [BrokenPart::Backbone, BrokenPart::Router] {
        let broken = numbered(overflowing(draft(small_config(), 11), item(40), part));
        for (name, forward) in forwards(&broken.config, &broken.weights) {
            let server = Server::with(broken.clone(), forward.into(), ROOMY);
            let client = &server.client;
            let bad = json!({"history": [101, 140, 102]});
            let reply = client.recommend(&bad);
            let body = reply.json();
            assert_eq!((reply.status, &body["code"]), (500, &json!("internal")), "{name}, {part:?}: {body}");
            assert!(body["detail"].as_str().unwrap().contains("not finite"), "{body}");
            let batch = client.post("/recommend/batch", &json!({"requests": [bad, {"history": [101, 102]}]})).json();
            assert_eq!(batch["results"][0]["code"], json!("internal"), "{name}, {part:?}: {batch}");
            assert_eq!(batch["results"][1]["items"].as_array().unwrap().len(), 10, "{name}, {part:?}: {batch}");
            assert_eq!(client.metric("rejected_total{reason=\"not_finite\"}"), 2.0, "{name}, {part:?}");
            let named = client.recommend(&json!({"history": [101, 140], "route": "smallest"}));
            assert_eq!(named.status, if part == BrokenPart::Router { 200 } else { 500 }, "{name}: {named:?}");
        }
    }
}
