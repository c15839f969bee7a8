//! What the log says of a call, and the trace that it is part of.

use serde_json::{Value, json};

use super::server::{Client, Process, Reply, numbered};
use super::support::{draft, small_config};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn recommend(client: &Client, traceparent: &str) -> Reply {
    let headers = [("content-type", "application/json"), ("x-request-id", "mine"), ("traceparent", traceparent)];
    client.send("POST", "/recommend", &headers, br#"{"history": [101, 102], "route": "full"}"#)
}

/// The span of the next call that is answered.
fn span(server: &Process) -> Value {
    let line = server.log_line("answered");
    serde_json::from_str::<Value>(&line).unwrap()["span"].clone()
}

#[test]
fn a_call_is_one_span_with_its_route_its_times_and_its_callers_trace() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    let server = Process::serve(&root, &["--log", "canet=debug", "--log-format", "json"]);

    let reply = recommend(&server.client, &format!("00-{TRACE}-{CALLER}-01"));
    let passed: Vec<&str> = reply.header("traceparent").split('-').collect();
    assert_eq!((passed.len(), passed[0], passed[1], passed[3]), (4, "00", TRACE, "01"));
    assert!(passed[2].len() == 16 && passed[2] != CALLER, "{passed:?}");
    let found = span(&server);
    for (field, value) in [
        ("name", "request"),
        ("method", "POST"),
        ("path", "/recommend"),
        ("request_id", "\"mine\""),
        ("route", "h12-l4-e10"),
        ("trace_id", TRACE),
        ("parent_id", CALLER),
        ("span_id", passed[2]),
    ] {
        assert_eq!(found[field], json!(value), "{found}");
    }
    let milliseconds = |field: &str| found[field].as_f64().unwrap();
    assert!(milliseconds("queue_ms") > 0.0 && milliseconds("forward_ms") > 0.0);
    assert!(milliseconds("queue_ms") + milliseconds("forward_ms") <= milliseconds("total_ms"));

    let long = format!("cc-{TRACE}-{CALLER}-00-later");
    assert_eq!(recommend(&server.client, &long).header("traceparent").split('-').nth(1), Some(TRACE));
    assert_eq!(span(&server)["trace_id"], json!(TRACE));
    for bad in [
        "nonsense".to_owned(),
        format!("00-{TRACE}-{CALLER}"),
        format!("00-{TRACE}-{CALLER}-01-more"),
        format!("ff-{TRACE}-{CALLER}-01"),
        format!("00-{}-{CALLER}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{}-{CALLER}-01", TRACE.to_uppercase()),
    ] {
        let reply = recommend(&server.client, &bad);
        assert_eq!((reply.status, reply.headers.get("traceparent")), (200, None), "{bad}");
        assert_eq!(span(&server)["trace_id"], Value::Null);
    }
}
