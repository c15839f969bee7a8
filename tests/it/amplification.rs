//! The server refuses a small body that would need much memory before it allocates that memory.

use std::io::Write;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::grpc_client::frame;
use super::raw::{RawReply, connect, exchange, post, read_to_close};
use super::server::{Process, numbered};
use super::support::{draft, small_config};

/// The most bytes that a server may need for one call with a body of 1 MiB. Parsed as a whole, the bodies of this test
/// take from 95 to 365 MB.
const MOST: u64 = 8 << 20;

/// A body of 1 MiB with as many copies of `part` as fit.
fn filled(start: &str, part: &str, end: &str) -> String {
    let count = ((1 << 20) - start.len() - end.len()) / (part.len() + 1);
    [start, &vec![part; count].join(","), end].concat()
}

/// Calls a method over HTTP/1.1.
fn grpc(address: SocketAddr, method: &str, message: &[u8]) -> RawReply {
    let body = frame(message);
    let head = format!(
        "POST /{method} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/grpc\r\n\
         te: trailers\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = connect(address);
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    RawReply::parse(&read_to_close(&mut stream)).unwrap()
}

#[test]
fn a_refusal_costs_no_more_than_what_was_sent() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 5)).write(&root).unwrap();
    let server = Process::serve(&root, &["--backend", "native", "--threads", "1"]);
    let infer = "/v2/models/small/infer";
    let input = r#"{"inputs":[{"name":"history","datatype":"BYTES","shape":[1],"data":["#;
    for (path, body, words) in [
        ("/recommend/batch", filled(r#"{"requests":["#, r#"{"":0}"#, "]}"), "149794 requests are too many"),
        (infer, filled(input, r#"{"":0}"#, "]}]}"), "must be a list of strings"),
        (infer, filled(r#"{"inputs":[],"parameters":{"a":["#, r#"{"":0}"#, "]}}"), r#"parameter \"a\" is unknown"#),
    ] {
        let reply = costing(&server, || exchange(server.client.address, &post(path, body.as_bytes())).unwrap());
        let text = String::from_utf8(reply.body).unwrap();
        assert!(reply.status == 422 && text.contains(words), "{path} {}: {text}", reply.status);
    }
    // A row may be a tree too; only that row is refused.
    let tree = filled(r#"{"requests":[{"history":[101]},{"more":["#, r#"{"":0}"#, "]}]}");
    let reply =
        costing(&server, || exchange(server.client.address, &post("/recommend/batch", tree.as_bytes())).unwrap());
    let results = serde_json::from_slice::<Value>(&reply.body).unwrap()["results"].clone();
    assert!(results[0]["items"].is_array());
    assert_eq!((&results[1]["code"], &results[1]["field"]), (&json!("invalid_request"), &json!("more")));

    let count = 524_280;
    let empty = |field: u8| [field << 3 | 2, 0].repeat(count);
    for (method, field, name) in [
        ("canet.v1.Recommender/RecommendBatch", 1, "requests"),
        ("canet.v1.Recommender/RecommendStream", 1, "requests"),
        ("inference.GRPCInferenceService/ModelInfer", 5, "inputs"),
        ("inference.GRPCInferenceService/ModelInfer", 6, "outputs"),
    ] {
        let reply = costing(&server, || grpc(server.grpc, method, &empty(field)));
        // INVALID_ARGUMENT
        assert_eq!(reply.header("grpc-status"), Some("3"), "{method}: {reply:?}");
        let words = format!("{count}%20{name}%20are%20too%20many%20for%20one%20call");
        assert!(reply.header("grpc-message").unwrap().contains(&words), "{method}: {reply:?}");
        assert!(reply.header("grpc-status-details-bin").is_some());
    }
}

/// Does `call` and checks how far the server's memory grew meanwhile.
fn costing(server: &Process, call: impl FnOnce() -> RawReply) -> RawReply {
    let before = server.forget_peak();
    let reply = call();
    // The kernel sums pages up per CPU and resets the peak to an approximate sum, so the next reading may be lower.
    let cost = server.peak().saturating_sub(before);
    assert!(cost < MOST, "{cost} bytes for {reply:?}");
    reply
}
