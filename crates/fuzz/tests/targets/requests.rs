//! Bodies and paths over HTTP. An answer is compared with what the request asks for, read by `serde_json` alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, Uri};
use canet_fuzz::{Outcome, Seed};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::server::{FIRST, ITEMS, Reply, Server, keys};
use super::{fuzz, target};

/// Texts of requests, and what breaks them.
pub(crate) const TOKENS: [&str; 44] = [
    "null",
    "true",
    "{}",
    "[]",
    "[[]]",
    "\"\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\u{feff}",
    "\u{202e}",
    ",",
    ":",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    "\"101\"",
    "\"140\"",
    "102,",
    "\"x\"",
    "\"history\":",
    "\"history_start\":",
    "\"k\":",
    "\"k\":0",
    "\"k\":40",
    "\"exclude\":",
    "\"exclude_seen\":false",
    "\"candidates\":[\"103\",\"104\"]",
    "\"route\":\"full\"",
    "\"route\":\"smallest\"",
    "\"route\":\"auto\"",
    "\"budget\":0.5",
    "\"timeout_ms\":1",
    "\"user\":\"ann\"",
    "\"filter\":{\"category\":[\"shoes\"]}",
    "\"not\":",
    "\"category\":[\"shirts\",\"sale\"]",
    "\"brand\":\"b1\"",
    "\"max_per\":{\"category\":1}",
    "\"max_per\":{\"brand\":2}",
    "/**/",
    "1e1",
];

/// The ids of a list, as the server should read them. Numbers stand for their digits.
fn ids(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().map(|id| match id {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    texts.collect()
}

/// Whether a filter keeps an item.
fn keeps(filter: &Value, keys: &BTreeMap<&str, Vec<String>>) -> bool {
    let Some(terms) = filter.as_object() else { return true };
    terms.iter().all(|(key, wanted)| match (key.as_str(), wanted) {
        ("not", Value::Array(filters)) => !filters.iter().any(|filter| keeps(filter, keys)),
        ("not", filter) => !keeps(filter, keys),
        (_, Value::Array(values)) => {
            ids(&json!(values)).iter().any(|value| keys.get(key.as_str()).is_some_and(|own| own.contains(value)))
        }
        (_, value) => {
            ids(&json!([value])).iter().any(|value| keys.get(key.as_str()).is_some_and(|own| own.contains(value)))
        }
    })
}

/// Checks an answer against its request, without the server's code.
fn assert_answers(request: &Value, answer: &Value) {
    let shown = || format!("{answer} to {request}");
    let ranked = answer["items"].as_array().unwrap_or_else(|| panic!("no items: {}", shown()));
    let items: Vec<u32> = ranked
        .iter()
        .map(|item| item["item"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{}", shown())))
        .collect();
    let k = request["k"].as_f64().unwrap_or(10.0);
    assert!(items.len() as f64 <= k, "more than k items: {}", shown());
    let distinct: BTreeSet<u32> = items.iter().copied().collect();
    assert_eq!(distinct.len(), items.len(), "an item stands twice: {}", shown());
    let scores: Vec<f64> = ranked.iter().map(|item| item["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "scores rise: {}", shown());
    let excluded: BTreeSet<String> = match request["exclude_seen"] {
        Value::Bool(false) => ids(&request["exclude"]).into_iter().collect(),
        _ => ids(&request["exclude"]).into_iter().chain(ids(&request["history"])).collect(),
    };
    let candidates: Option<BTreeSet<String>> =
        request["candidates"].is_array().then(|| ids(&request["candidates"]).into_iter().collect());
    let allowed = |id: u32| {
        let text = id.to_string();
        !excluded.contains(&text)
            && candidates.as_ref().is_none_or(|candidates| candidates.contains(&text))
            && keeps(&request["filter"], &keys(id))
    };
    for id in &items {
        assert!((FIRST..FIRST + ITEMS).contains(id), "{id} is no item: {}", shown());
        assert!(allowed(*id), "{id} is not allowed: {}", shown());
    }
    let limits = request["max_per"].as_object().filter(|limits| !limits.is_empty());
    for (key, most) in limits.into_iter().flatten() {
        let mut counts = BTreeMap::new();
        for value in items.iter().flat_map(|id| keys(*id).remove(key.as_str()).unwrap_or_default()) {
            *counts.entry(value).or_insert(0.0) += 1.0;
        }
        let most = most.as_f64().unwrap_or(f64::INFINITY);
        assert!(counts.values().all(|count| *count <= most), "more than max_per: {}", shown());
    }
    if limits.is_none() {
        let possible = (FIRST..FIRST + ITEMS).filter(|id| allowed(*id)).count();
        assert_eq!(items.len(), possible.min(k as usize), "items are missing: {}", shown());
    }
    let (flops, full) =
        (answer["compute"]["flops"].as_u64().unwrap(), answer["compute"]["full_flops"].as_u64().unwrap());
    assert!(flops <= full * 2, "{}", shown());
}

/// What became of an input whose answer, if there is one, is not looked at.
fn accepted_or_refused(reply: &Reply, seed: &Seed) -> Outcome {
    if reply.status == 200 {
        return Outcome::Accepted;
    }
    assert_problem(reply, &shown(seed));
    Outcome::Refused(String::from_utf8_lossy(&reply.body).into_owned())
}

/// Checks a problem document.
fn assert_problem(reply: &Reply, shown: &str) {
    let problem: Value =
        serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}: {shown}"));
    let is_expected = matches!(reply.status.as_u16(), 400 | 404 | 405 | 409 | 413 | 415 | 422)
        // A client may ask for less time than an answer takes.
        || (reply.status == StatusCode::GATEWAY_TIMEOUT && shown.contains("timeout_ms"));
    assert!(is_expected, "{}: {problem}: {shown}", reply.status);
    assert!(problem["code"].is_string() || problem["error"].is_string(), "{problem}: {shown}");
    assert!(reply.body.len() < 8192, "an answer of {} bytes to {shown}", reply.body.len());
}

fn shown(seed: &Seed) -> String {
    format!("{}: {}", seed.name, seed.bytes.escape_ascii())
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn recommend() {
    let server = Server::new();
    let target = target("recommend").tokens(&TOKENS);
    fuzz(&target, 1500, |seed| {
        let reply = server.send("POST", "/recommend", &[JSON], &seed.bytes);
        if reply.status != 200 {
            assert_problem(&reply, &shown(seed));
            return Outcome::Refused(String::from_utf8_lossy(&reply.body).into_owned());
        }
        // What the server reads, every reader of JSON can read, but for ids that are integers of more than 300 digits: to this
        // reader they are floats.
        let request = match serde_json::from_slice(&seed.bytes) {
            Err(error) if error.to_string().starts_with("number out of range") => return Outcome::Accepted,
            request => request.unwrap(),
        };
        assert_answers(&request, &serde_json::from_slice(&reply.body).unwrap());
        Outcome::Accepted
    });
    server.assert_ready();
}

/// The rows of a batch, each of which may be wrong.
#[derive(serde::Deserialize)]
struct Rows<'a> {
    #[serde(borrow)]
    requests: Vec<&'a RawValue>,
}

#[test]
fn batch() {
    let server = Server::new();
    let target = target("batch").tokens(&TOKENS).tokens(&["\"requests\":", "{\"history\":[101]},"]);
    fuzz(&target, 800, |seed| {
        let reply = server.send("POST", "/recommend/batch", &[JSON], &seed.bytes);
        if reply.status != 200 {
            assert_problem(&reply, &shown(seed));
            return Outcome::Refused(String::from_utf8_lossy(&reply.body).into_owned());
        }
        let rows: Rows<'_> = serde_json::from_slice(&seed.bytes).unwrap();
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        let results = answer["results"].as_array().unwrap();
        assert_eq!(rows.requests.len(), results.len(), "{answer}");
        for (row, result) in rows.requests.iter().zip(results) {
            match result["code"].as_str() {
                None => assert_answers(&serde_json::from_str(row.get()).unwrap(), result),
                Some(code) => assert!(
                    ["invalid_request", "invalid_json", "deadline_exceeded"].contains(&code),
                    "{result} to {row}"
                ),
            }
        }
        Outcome::Accepted
    });
    server.assert_ready();
}

/// Names, types and shapes of the protocol.
const TENSORS: [&str; 18] = [
    "\"inputs\":",
    "\"outputs\":[{\"name\":\"items\"}]",
    "\"parameters\":",
    "\"name\":\"history\"",
    "\"name\":\"k\"",
    "\"name\":\"user\"",
    "\"name\":\"history_start\"",
    "\"datatype\":\"BYTES\"",
    "\"datatype\":\"INT64\"",
    "\"datatype\":\"FP32\"",
    "\"shape\":[1]",
    "\"shape\":[0]",
    "\"shape\":[2,0]",
    "\"shape\":[9223372036854775807,2]",
    "\"data\":[\"[101]\"]",
    "\"binary_data_size\":",
    "\"binary_data\":true",
    "\"binary_data_output\":true",
];

const INFER: &str = "/v2/models/small/infer";

/// Checks the tensors of an answer: their data have as many values as their shape says.
fn assert_tensors(answer: &Value) {
    for output in answer["outputs"].as_array().unwrap() {
        let shape: Vec<u64> = output["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).collect();
        if let Some(data) = output["data"].as_array() {
            assert_eq!(data.len() as u64, shape.iter().product::<u64>(), "{output}");
        }
        if output["name"] == "items" {
            let width = shape[1] as usize;
            for row in output["data"].as_array().into_iter().flat_map(|data| data.chunks(width.max(1))) {
                // Missing items are empty.
                let items: Vec<&str> = row.iter().filter_map(Value::as_str).filter(|id| !id.is_empty()).collect();
                assert_eq!(items.iter().collect::<BTreeSet<_>>().len(), items.len(), "{answer}");
            }
        }
    }
}

#[test]
fn infer() {
    let server = Server::new();
    let target = target("infer").tokens(&TOKENS).tokens(&TENSORS);
    fuzz(&target, 1500, |seed| {
        let reply = server.send("POST", INFER, &[JSON], &seed.bytes);
        if reply.status != 200 {
            assert_problem(&reply, &shown(seed));
            return Outcome::Refused(String::from_utf8_lossy(&reply.body).into_owned());
        }
        // An answer of binary data has its JSON first.
        if !reply.headers.contains_key("inference-header-content-length") {
            assert_tensors(&serde_json::from_slice(&reply.body).unwrap());
        }
        Outcome::Accepted
    });
    server.assert_ready();
}

/// The first line of an input is the length of the JSON part, which has a header of its own. Binary tensors follow the JSON.
#[test]
fn infer_with_binary_data() {
    let server = Server::new();
    let target = target("infer-binary").tokens(&TENSORS);
    fuzz(&target, 800, |seed| {
        let (length, body) = seed.bytes.split_at(seed.bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0));
        let Ok(length) = HeaderValue::from_bytes(length) else { return Outcome::Refused("no header".to_owned()) };
        let request = Request::post(INFER).header("inference-header-content-length", length);
        let body = body.strip_prefix(b"\n").unwrap_or(body).to_vec();
        let reply = server.hand(request.body(Body::from(body)).unwrap());
        accepted_or_refused(&reply, seed)
    });
    server.assert_ready();
}

#[test]
fn packed_bodies() {
    let server = Server::new();
    let body = br#"{"history":["101","102","103"],"k":5,"exclude":["110"],"route":"full"}"#;
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    // A stream without compression has a valid form of few bytes.
    let zstd = zstd::encode_all(&body[..], 3).unwrap();
    let target = target("packed").seed("body.gzip", gzip).seed("body.deflate", deflate).seed("body.zstd", zstd);
    fuzz(&target, 1000, |seed| {
        let coding = seed.name.rsplit('.').next().unwrap();
        let reply = server.send("POST", "/recommend", &[JSON, ("content-encoding", coding)], &seed.bytes);
        accepted_or_refused(&reply, seed)
    });
    server.assert_ready();
}

/// The name of an input says where it is sent: `reload.json` to `/admin/reload`.
#[test]
fn operators_bodies() {
    let server = Server::new();
    let target = target("operators").tokens(&["null", "{}", "\"version\":", "\"share\":", "1", "2", "0.5", ","]);
    fuzz(&target, 300, |seed| {
        let path = format!("/admin/{}", seed.name.trim_start_matches("found-").split('.').next().unwrap());
        let reply = server.send("POST", &path, &[JSON], &seed.bytes);
        server.withdraw_candidate();
        accepted_or_refused(&reply, seed)
    });
    server.assert_ready();
}

#[test]
fn paths_and_queries() {
    let server = Server::new();
    let target =
        target("paths").tokens(&["%00", "%ff", "%2e%2e/", "?q=", "&", "=", "q=", "%", "+", "//", "/v2/models/", "é"]);
    fuzz(&target, 1000, |seed| {
        let Ok(uri) = Uri::try_from(seed.bytes.as_slice()) else { return Outcome::Refused("no URI".to_owned()) };
        let reply = server.hand(Request::get(uri).body(Body::empty()).unwrap());
        if !reply.status.is_success() && reply.status != StatusCode::TEMPORARY_REDIRECT {
            assert_problem(&reply, &shown(seed));
            return Outcome::Refused(String::from_utf8_lossy(&reply.body).into_owned());
        }
        Outcome::Accepted
    });
    server.assert_ready();
}
