//! The Open Inference Protocol in its JSON form: what clients may write, and how they are told what is wrong.

use std::sync::Arc;
use std::time::Duration;

use canet_serving::Limits;
use serde_json::{Value, json};

use super::server::{ROOMY, Reply, Server, numbered};
use super::support::{draft, reference, small_config};

const INFER: &str = "/v2/models/small/infer";

fn history(rows: &[&str]) -> Value {
    json!({"name": "history", "datatype": "BYTES", "shape": [rows.len()], "data": rows})
}

fn dense(shape: &Value, data: &Value) -> Value {
    json!({"name": "history", "datatype": "INT64", "shape": shape, "data": data})
}

fn output<'a>(body: &'a Value, name: &str) -> &'a Value {
    let outputs = body["outputs"].as_array().unwrap_or_else(|| panic!("{body}"));
    outputs.iter().find(|output| output["name"] == name).unwrap()
}

#[test]
fn rows_are_answered_as_requests_are() {
    let server = Server::start();
    let k = json!({"name": "k", "datatype": "INT64", "shape": [1], "data": [3]});
    let request = json!({"id": "mine", "inputs": [history(&["[101, \"102\"]", "[]"]), k]});
    let reply = server.client.post(INFER, &request);
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    let body = reply.json();
    assert_eq!([&body["model_name"], &body["model_version"], &body["id"]], ["small", "1", "mine"]);
    let rows = [json!([101, 102]), json!([])].map(|history| {
        let answer = server.client.recommend(&json!({"history": history, "k": 3})).json();
        let column = |name: &str| -> Vec<Value> {
            answer["items"].as_array().unwrap().iter().map(|item| item[name].clone()).collect()
        };
        (column("item"), column("score"), answer["route"]["name"].as_str().unwrap_or("cold_start").to_owned())
    });
    assert_eq!(output(&body, "items")["shape"], json!([2, 3]));
    assert_eq!(output(&body, "items")["data"], json!([&rows[0].0[..], &rows[1].0[..]].concat()));
    assert_eq!(output(&body, "route")["data"], json!([rows[0].2, rows[1].2]));
    let scores = output(&body, "scores");
    assert_eq!(scores["datatype"], "FP32");
    let expected = [&rows[0].1[..], &rows[1].1[..]].concat();
    for (found, expected) in scores["data"].as_array().unwrap().iter().zip(&expected) {
        assert!((found.as_f64().unwrap() - expected.as_f64().unwrap()).abs() < 1e-5);
    }
}

#[test]
fn an_idle_server_answers_a_call_of_more_rows_than_may_wait() {
    let draft = numbered(draft(small_config(), 11));
    let forward = reference(&draft.config, &draft.weights);
    // Less than any row takes.
    let limits = Limits { queue_limit: Duration::from_nanos(1), ..ROOMY };
    let server = Server::with(draft, Arc::new(forward), limits);
    let histories: Vec<String> = (0..512).map(|row| format!("[{}]", 101 + row % 40)).collect();
    let rows: Vec<&str> = histories.iter().map(String::as_str).collect();
    let request = json!({"inputs": [history(&rows)], "parameters": {"timeout_ms": 60_000}});
    let reply = server.client.post(INFER, &request);
    assert_eq!(reply.status, 200, "{reply:?}");
    // In their order: each fortieth is the same.
    let body = reply.json();
    let items = output(&body, "items")["data"].as_array().unwrap().clone();
    let answers: Vec<&[Value]> = items.chunks(10).collect();
    assert_eq!(answers.len(), 512);
    assert!(answers.iter().zip(&answers[40..]).all(|(one, other)| one == other));
    for row in [0, 7, 39] {
        assert_eq!(answers[row], server.client.recommend(&json!({"history": [101 + row]})).items());
    }
    assert_eq!(server.client.metric("rejected_total{reason=\"overloaded\"}"), 0.0);
}

#[test]
fn a_tensor_may_be_nested_and_what_is_missing_is_filled_up() {
    let server = Server::start();
    let flat = json!({"inputs": [dense(&json!([2, 3]), &json!([0, 1, 2, 40, 0, 39]))]});
    let nested = json!({"inputs": [dense(&json!([2, 3]), &json!([[0, 1, 2], [40, 0, 39]]))]});
    let named = json!({"inputs": [history(&["[101, 102]", "[140, 139]"])]});
    let outputs = [flat, nested, named].map(|request| server.client.post(INFER, &request).json()["outputs"].clone());
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);

    let k = json!({"name": "k", "datatype": "INT64", "shape": [1], "data": [40]});
    let body = server.client.post(INFER, &json!({"inputs": [history(&["[101, 102]"]), k]})).json();
    let column = |name: &str| output(&body, name)["data"].as_array().unwrap().clone();
    let (items, scores) = (column("items"), column("scores"));
    assert_eq!((items.len(), scores.len()), (40, 40));
    assert!(items[..38].iter().all(|item| item != "") && items[38..].iter().all(|item| item == ""));
    assert!(scores[38..].iter().all(|score| score.as_f64().unwrap() as f32 == f32::MIN));
    let none = server.client.post(INFER, &json!({"inputs": [history(&[])]})).json();
    assert_eq!(output(&none, "items")["shape"], json!([0, 10]));
}

#[test]
fn faults_are_told_as_the_protocol_has_it() {
    let server = Server::start();
    let error = |reply: &Reply, status: u16, words: &str| {
        assert_eq!((reply.status, reply.header("content-type")), (status, "application/json"), "{reply:?}");
        let body = reply.json();
        assert!(body["error"].as_str().is_some_and(|error| error.contains(words)), "{words:?} is not in {body}");
        assert_eq!(body.as_object().unwrap().len(), 1);
    };
    let good = history(&["[101]"]);
    let k = |data: Value| json!({"name": "k", "datatype": "INT64", "shape": [1], "data": data});
    for (inputs, words) in [
        (json!([]), "history"),
        (json!([{"name": "history", "datatype": "BYTES", "shape": [1]}]), "data"),
        (json!([{"name": "history", "datatype": "FP64", "shape": [1], "data": [1.5]}]), "FP64"),
        (json!([{"name": "history", "datatype": "BYTES", "shape": [2], "data": ["[]"]}]), "shape"),
        (json!([{"name": "history", "datatype": "BYTES", "shape": [-1], "data": ["[]"]}]), "shape"),
        (json!([{"name": "history", "datatype": "BYTES", "shape": [1, 1], "data": ["[]"]}]), "BYTES [B]"),
        (json!([{"name": "history", "datatype": "BYTES", "shape": ["x"], "data": ["[]"]}]), "inputs[0].shape[0]"),
        (json!([{"name": "history", "datatype": "BYTES", "shape": [1], "data": [7]}]), "strings"),
        (json!([{"name": "history", "datatype": "BYTES", "shape": [1_u64 << 62, 4], "data": []}]), "shape"),
        (json!([dense(&json!([1, 1]), &json!([41]))]), "dense id 41"),
        (json!([dense(&json!([1, 1]), &json!([-1]))]), "dense id -1"),
        (json!([dense(&json!([1, 1]), &json!([0.5]))]), "integers"),
        (json!([dense(&json!([1]), &json!([1]))]), "INT64 [B, L]"),
        (json!([history(&["101"])]), "history[0]"),
        (json!([history(&["[101]", "{"])]), "history[1]"),
        (json!([history(&["[[101]]"])]), "history[0]"),
        (json!([good, good]), "twice"),
        (json!([good, k(json!([0]))]), "`k` is 0"),
        (json!([good, k(json!([41]))]), "`k` is 41"),
        (json!([good, {"name": "k", "datatype": "INT64", "shape": [2], "data": [1, 2]}]), "[1]"),
        (json!([good, {"name": "speed", "datatype": "INT64", "shape": [1], "data": [1]}]), "speed"),
        (json!("history"), "inputs"),
    ] {
        error(&server.client.post(INFER, &json!({"inputs": inputs})), 422, words);
    }
    let with = |more: Value| {
        let mut body = json!({"inputs": [good]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.client.post(INFER, &body)
    };
    error(&with(json!({"outputs": [{"name": "what"}]})), 422, "what");
    error(&with(json!({"outputs": [{"name": "items"}, {"name": "items"}]})), 422, "twice");
    error(&with(json!({"outputs": [{"name": "items", "parameters": {"classification": 3}}]})), 422, "classification");
    error(&with(json!({"parameters": {"route": "h1-l1-e1"}})), 422, "h1-l1-e1");
    error(&with(json!({"parameters": {"timeout_ms": 1.5}})), 422, "timeout_ms");
    error(&with(json!({"parameters": {"timeout_ms": 0}})), 422, "timeout_ms");
    error(&with(json!({"parameters": {"colour": "red"}})), 422, "colour");
    error(&with(json!({"parameters": 5})), 422, "parameters");
    // Where there is no row too.
    let empty = |k: i64, parameters: Value| {
        let k = json!({"name": "k", "datatype": "INT64", "shape": [1], "data": [k]});
        server.client.post(INFER, &json!({"inputs": [history(&[]), k], "parameters": parameters}))
    };
    assert_eq!(empty(40, json!({"route": "full", "timeout_ms": 1, "budget": 1})).status, 200);
    error(&empty(i64::MAX, json!({})), 422, "`k` is 9223372036854775807");
    error(&empty(0, json!({})), 422, "`k` is 0");
    error(&empty(1, json!({"route": "nosuch"})), 422, "nosuch");
    error(&empty(1, json!({"timeout_ms": 0})), 422, "timeout_ms");
    error(&empty(1, json!({"budget": 0})), 422, "budget");
    let rows = vec!["[]"; 1025];
    error(&server.client.post(INFER, &json!({"inputs": [history(&rows)]})), 422, "1025");

    error(&server.client.send("POST", INFER, &[], b"{"), 400, "JSON");
    let length = |length: &str, body: &[u8]| {
        server.client.send("POST", INFER, &[("inference-header-content-length", length)], body)
    };
    error(&length("99", b"{}"), 422, "inference-header-content-length");
    error(&length("-1", b"{}"), 422, "inference-header-content-length");
    let binary =
        br#"{"inputs":[{"name":"history","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":9}}]}"#;
    let behind = |behind: &[u8]| length(&binary.len().to_string(), &[&binary[..], behind].concat());
    assert_eq!(behind(b"\x05\0\0\0[101]").status, 200);
    error(&behind(b"\x05\0\0\0[101]!"), 422, "belong to no input");
    error(&behind(b"\x05\0\0\0[10"), 422, "breaks off");
    error(&behind(b"\xff\xff\xff\xff[101]"), 422, "breaks off");

    error(&server.client.post("/v2/models/other/infer", &json!({"inputs": [good]})), 404, "other");
    error(&server.client.post("/v2/models/small/versions/2/infer", &json!({"inputs": [good]})), 404, "version");
    error(&server.client.get("/v2/models/other"), 404, "other");
    error(&server.client.get("/v2/models/%ff"), 404, "/v2/models/%ff");
    error(&server.client.get("/v2/models/small/versions/01/ready"), 404, "version");
    error(&server.client.get("/v2/repository/index"), 404, "/v2/repository/index");
    error(&server.client.get(INFER), 405, "GET");
    let large = vec![b'x'; (1 << 20) + 1];
    error(&server.client.send("POST", INFER, &[], &large), 413, "larger");
}

/// The last would win otherwise, and a budget that nobody checked would be lost.
#[test]
fn a_parameter_that_is_sent_twice_is_refused() {
    let server = Server::start();
    for (parameters, name) in [
        (r#"{"budget": 0, "budget": 0.5}"#, "budget"),
        (r#"{"budget": 0.5, "route": "full", "budget": 0.5}"#, "budget"),
        (r#"{"timeout_ms": null, "timeout_ms": 5000}"#, "timeout_ms"),
        (r#"{"binary_data_output": false, "binary_data_output": false}"#, "binary_data_output"),
        // Its second name is written with an escape.
        (r#"{"route": "full", "r\u006fute": "full"}"#, "route"),
    ] {
        let body = json!({"inputs": [history(&["[101]"])], "parameters": "P"}).to_string();
        let reply = server.client.send("POST", INFER, &[], body.replace("\"P\"", parameters).as_bytes());
        let error = reply.json()["error"].as_str().unwrap_or_default().to_owned();
        let expected = format!("duplicate field `{name}`");
        assert!(reply.status == 422 && error.contains(&expected), "{parameters}: {reply:?}");
    }
}

#[test]
fn null_means_not_given() {
    let server = Server::start();
    let plain = json!({"inputs": [history(&["[101, 102]"])]});
    let nulls = json!({
        "id": null,
        "parameters": {
            "route": null, "exclude_seen": null, "budget": null, "timeout_ms": null, "filter": null, "max_per": null,
            "binary_data_output": null,
        },
        "inputs": [{
            "name": "history", "datatype": "BYTES", "shape": [1], "data": ["[101, 102]"],
            "parameters": {"binary_data_size": null},
        }],
        "outputs": [
            {"name": "items", "parameters": null}, {"name": "scores", "parameters": {"binary_data": null}},
            {"name": "route"},
        ],
    });
    let [mut all, mut parts] = [nulls.clone(), nulls.clone()];
    (all["parameters"], all["outputs"], all["inputs"][0]["parameters"]) = (Value::Null, Value::Null, Value::Null);
    parts["outputs"] = json!(null);
    let answer = server.client.post(INFER, &plain).json();
    assert!(answer["outputs"].is_array(), "{answer}");
    for request in [nulls, all, parts] {
        assert_eq!(server.client.post(INFER, &request).json(), answer, "{request}");
    }
}

#[test]
fn the_model_and_its_health_are_told() {
    let server = Server::start();
    let get = |path: &str| server.client.get(path).json();
    assert_eq!(get("/v2/health/live"), json!({"live": true}));
    assert_eq!(get("/v2/health/ready"), json!({"ready": true}));
    assert_eq!(get("/v2")["extensions"], json!(["binary_tensor_data"]));
    let model = get("/v2/models/small");
    assert_eq!(model, get("/v2/models/small/versions/1"));
    assert_eq!((&model["name"], &model["versions"]), (&json!("small"), &json!(["1"])));
    assert_eq!(model["inputs"][0], json!({"name": "history", "datatype": "BYTES", "shape": [-1]}));
    assert_eq!(get("/v2/models/small/versions/1/ready"), json!({"name": "small", "ready": true}));
    server.recommender.drain();
    for path in ["/v2/health/ready", "/v2/models/small/ready"] {
        let reply = server.client.get(path);
        assert_eq!((reply.status, reply.json()), (503, json!({"error": "the server is stopping"})), "{path}");
    }
    assert_eq!(server.client.get("/v2/health/live").status, 200);
}
