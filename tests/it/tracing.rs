//! What the log says of a call, and the trace that it is part of.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

use super::raw::nobody_at;
use super::server::{Client, HANGS, Process, Reply, canet, numbered, run};
use super::support::{draft, script, small_config};

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

/// A collector in Python, with the ecosystem's own reading of the protocol.
struct Collector {
    process: Child,
    /// The spans that come.
    lines: Receiver<String>,
}

impl Collector {
    fn start() -> (Collector, String) {
        let mut process = script("collector.py").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = output.next().unwrap().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || output.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        (Collector { process, lines }, format!("http://127.0.0.1:{port}"))
    }

    /// Waits for the next span.
    fn span(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(HANGS).unwrap()).unwrap()
    }

    /// The spans that nobody waited for, after which the collector ends.
    fn rest(mut self) -> Vec<String> {
        drop(self.process.stdin.take());
        let rest = self.lines.iter().collect();
        assert!(self.process.wait().unwrap().success());
        rest
    }
}

#[test]
fn spans_reach_a_collector_as_the_answers_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    let (collector, endpoint) = Collector::start();
    // The spans come before the stop, at which the server waits two seconds for them and no longer.
    let mut binary = canet(&[]);
    binary.env("OTEL_BSP_SCHEDULE_DELAY", "50").env("OTEL_EXPORTER_OTLP_TIMEOUT", HANGS.as_millis().to_string());
    let mut server = Process::serve_by(binary, &root, &["--otlp-endpoint", &endpoint]);

    let id = |reply: &Reply, part: usize| reply.header("traceparent").split('-').nth(part).unwrap().to_owned();
    let called = recommend(&server.client, &format!("00-{TRACE}-{CALLER}-01"));
    let alone = server.client.recommend(&json!({"history": [101], "route": "smallest"}));
    // Its caller does not record the trace.
    let unrecorded = recommend(&server.client, &format!("00-{TRACE}-{CALLER}-00"));
    assert_eq!((id(&unrecorded, 1), id(&unrecorded, 3)), (TRACE.to_owned(), "00".to_owned()));
    server.client.get("/nowhere");
    let spans: Vec<Value> = (0..3).map(|_| collector.span()).collect();
    server.signal("TERM");
    assert!(server.wait().success());
    assert!(collector.rest().is_empty());
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["POST /recommend", "POST /recommend", "GET *"]);
    for (span, reply, parent, route) in
        [(&spans[0], &called, CALLER, "h12-l4-e10"), (&spans[1], &alone, "", "h4-l1-e6")]
    {
        assert_eq!(span["traceId"], json!(id(reply, 1)));
        assert_eq!(span["spanId"], json!(id(reply, 2)));
        assert_eq!(span["parentSpanId"], json!(parent));
        assert_eq!(span["kind"], json!("SPAN_KIND_SERVER"));
        assert_eq!(span["attributes"]["route"], json!(route));
        assert_eq!(span["attributes"]["status"], json!(200));
        assert!(span["attributes"]["forward_ms"].as_f64().unwrap() > 0.0, "{span}");
        assert_eq!(span["resource"]["service.name"], json!("canet"));
    }
    assert_eq!(id(&called, 1), TRACE);
    assert_eq!(spans[2]["attributes"]["status"], json!(404));
}

#[test]
fn a_collector_that_is_not_there_costs_no_request_and_one_that_cannot_be_is_bad_usage() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    let (_port, nobody) = nobody_at(([127, 0, 0, 1], 0).into());
    let mut server = Process::serve(&root, &["--otlp-endpoint", &format!("http://{nobody}")]);
    assert_eq!(recommend(&server.client, &format!("00-{TRACE}-{CALLER}-01")).status, 200);
    server.signal("TERM");
    assert!(server.wait().success());

    let model = root.to_str().unwrap();
    for endpoint in ["no address", "https://collector.example:4317"] {
        let (code, stderr) = run(&mut canet(&["serve", "--model", model, "--otlp-endpoint", endpoint]));
        assert_eq!(code, Some(64), "{stderr}");
        assert!(stderr.contains(endpoint) && stderr.contains("http://127.0.0.1:4317"), "{stderr}");
        assert!(!stderr.contains("feature"), "{stderr}");
    }
}
