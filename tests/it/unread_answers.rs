//! Clients that ask for large answers and read nothing: over every transport the server holds a bounded memory and goes on
//! answering others.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use canet_api::proto::canet::v1 as proto;
use canet_domain::Catalogue;
use canet_model::ModelConfig;
use canet_model::checkpoint::CheckpointDraft;
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::grpc_client::frame as message;
use super::raw::{connect, exchange, post};
use super::server::{Process, retry};
use super::support::{draft, small_config};

/// Items of the catalogue.
const ITEMS: usize = 1000;

/// Rows of a call. Its answer takes about 18 MB in JSON, which is less than one answer may.
const ROWS: usize = 14;

/// Calls of which each asks for such an answer. Together they would take over 700 MB.
const CALLS: usize = 40;

/// The most bytes that they may make the server hold: the room for answers, and as much again for everything else.
const MOST: u64 = 2 * (64 << 20);

/// A model with long ids and titles, so that a few items make a large answer.
fn model() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("wordy");
    let ids: Vec<Box<str>> = (0..ITEMS).map(|id| format!("{id:0>200}").into()).collect();
    let titles: Vec<(Box<str>, Box<str>)> = ids.iter().map(|id| (id.clone(), "title".repeat(200).into())).collect();
    let catalogue = Catalogue::new(ids, vec![1; ITEMS]).unwrap().with_titles(titles);
    let draft = draft(ModelConfig { items: ITEMS, ..small_config() }, 5);
    CheckpointDraft { catalogue, ..draft }.write(&root).unwrap();
    (directory, root)
}

fn serve(root: &std::path::Path) -> Process {
    Process::serve(root, &["--backend", "native", "--threads", "1"])
}

/// A call for everything, for a user of whom nothing is known.
fn batch() -> Vec<u8> {
    json!({"requests": vec![json!({"history": [], "k": ITEMS}); ROWS]}).to_string().into_bytes()
}

/// How many calls over a transport ended so far.
fn ended(server: &Process, transport: &str) -> usize {
    let scrape = server.client.get("/metrics").text;
    let counts = scrape.lines().filter(|line| {
        line.starts_with("canet_requests_total{") && line.contains(&format!("transport=\"{transport}\""))
    });
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum()
}

/// What the server still does while clients hold the room for large answers.
fn still_serves(server: &Process) {
    assert_eq!(server.client.get("/healthz").status, 200);
    let reply = server.client.recommend(&json!({"history": [format!("{:0>200}", 7)], "k": 3}));
    assert_eq!((reply.status, reply.items().len()), (200, 3), "{reply:?}");
    assert!(server.client.metric("rejected_total{reason=\"unread\"}") > 0.0);
}

/// Waits until large answers are given again, which is when those that held the room are gone.
fn recovers(server: &Process) {
    let results = loop {
        let reply = exchange(server.client.address, &post("/recommend/batch", &batch())).unwrap();
        match reply.status {
            200 => break serde_json::from_slice::<Value>(&reply.body).unwrap()["results"].clone(),
            status => assert_eq!(status, 429, "{}", reply.head),
        }
    };
    let results = results.as_array().unwrap();
    assert_eq!(results.len(), ROWS);
    assert!(results.iter().all(|result| result["items"].as_array().map(Vec::len) == Some(ITEMS)));
}

#[test]
fn http1_clients_that_read_nothing_hold_a_bounded_memory() {
    let (_directory, root) = model();
    let server = serve(&root);
    let before = server.forget_peak();
    let mut clients: Vec<TcpStream> = Vec::new();
    let call = || {
        let mut client = connect(server.client.address);
        client.write_all(&post("/recommend/batch", &batch())).unwrap();
        client
    };
    // An answer that nobody reads holds its room for 30 s. If these calls take longer, more clients come.
    let refused = retry(|| {
        let before = ended(&server, "http");
        clients.extend(std::iter::repeat_with(call).take(CALLS));
        while ended(&server, "http") < before + CALLS {}
        exchange(server.client.address, &post("/recommend/batch", &batch())).filter(|reply| reply.status != 200)
    });
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{}", refused.head);
    assert_eq!(serde_json::from_slice::<Value>(&refused.body).unwrap()["code"], "overloaded");
    still_serves(&server);
    let cost = server.peak() - before;
    assert!(cost < MOST, "{cost} bytes");
    drop(clients);
    recovers(&server);
}

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const SETTINGS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that enters no table: the field of this index of HPACK's static table, or a field by its name.
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    match name {
        ":authority" => [vec![1], text(value)].concat(),
        ":path" => [vec![4], text(value)].concat(),
        _ => [vec![0], text(name), text(value)].concat(),
    }
}

/// One HTTP/2 connection whose window is 0. Each of its requests is answered, and no byte of an answer can be sent.
fn without_window(address: SocketAddr, path: &str, content_type: &str, body: &[u8]) -> TcpStream {
    let mut client = connect(address);
    // SETTINGS_INITIAL_WINDOW_SIZE
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    client.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings.as_slice()].concat()).unwrap();
    // POST, http
    let head = [
        vec![0x83, 0x86],
        header(":authority", "localhost"),
        header(":path", path),
        header("content-type", content_type),
        header("te", "trailers"),
    ];
    for stream in (1..).step_by(2).take(CALLS) {
        let request = [frame(HEADERS, 0x4, stream, &head.concat()), frame(DATA, 0x1, stream, body)].concat();
        client.write_all(&request).unwrap();
    }
    client
}

fn a_window_of_zero_holds_a_bounded_memory(calls: &[(bool, &str, &str, Vec<u8>)]) {
    let (_directory, root) = model();
    for (is_grpc, path, content_type, body) in calls {
        let server = serve(&root);
        let (address, transport) = if *is_grpc { (server.grpc, "grpc") } else { (server.client.address, "http") };
        let before = server.forget_peak();
        let client = without_window(address, path, content_type, body);
        // Over gRPC a call ends when its answer is sent, and a refused one at once. Few of these answers fit the room.
        while ended(&server, transport) < if *is_grpc { CALLS - 4 } else { CALLS } {}
        still_serves(&server);
        let cost = server.peak() - before;
        assert!(cost < MOST, "{path}: {cost} bytes");
        drop(client);
        recovers(&server);
    }
}

#[test]
fn an_http2_client_without_a_window_holds_a_bounded_memory() {
    a_window_of_zero_holds_a_bounded_memory(&[(false, "/recommend/batch", "application/json", batch())]);
}

#[test]
fn a_grpc_client_without_a_window_holds_a_bounded_memory() {
    let row = proto::RecommendRequest { k: Some(ITEMS as u64), ..proto::RecommendRequest::default() };
    let requests = vec![row; ROWS];
    let batch = proto::RecommendBatchRequest { requests: requests.clone() }.encode_to_vec();
    let stream = proto::RecommendStreamRequest { requests }.encode_to_vec();
    let grpc = |path, body: Vec<u8>| (true, path, "application/grpc", message(&body));
    a_window_of_zero_holds_a_bounded_memory(&[
        grpc("/canet.v1.Recommender/RecommendBatch", batch),
        grpc("/canet.v1.Recommender/RecommendStream", stream),
    ]);
}

#[test]
fn an_inference_client_without_a_window_holds_a_bounded_memory() {
    let rows = 90;
    let k = json!({"name": "k", "datatype": "INT64", "shape": [1], "data": [ITEMS]});
    let history = json!({"name": "history", "datatype": "BYTES", "shape": [rows], "data": vec!["[]"; rows]});
    let infer: Value = json!({"inputs": [history, k]});
    let body = infer.to_string().into_bytes();
    a_window_of_zero_holds_a_bounded_memory(&[(false, "/v2/models/wordy/infer", "application/json", body)]);
}
