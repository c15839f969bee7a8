//! Every way to ask wrongly over HTTP, with the status, code and field of its answer.

use serde_json::json;

use super::server::Server;

/// Method, path, content type, status, code, field, body; `-` is none.
const TABLE: &str = r#"
POST   /recommend        application/json   400 invalid_json           -            {"history": [1,
POST   /recommend        application/json   400 invalid_json           -            history=1
POST   /recommend        application/json   400 invalid_json           -            -
POST   /recommend        application/json   400 invalid_json           -            {"history": []} {}
POST   /recommend        application/json   400 invalid_json           -            {'history': []}
POST   /recommend        application/json   422 invalid_request        history[0]   {"history": [1e999]}
POST   /recommend        application/json   422 invalid_request        -            [["101"]]
POST   /recommend        application/json   422 invalid_request        -            null
POST   /recommend        application/json   422 invalid_request        history      {}
POST   /recommend        application/json   422 invalid_request        history      {"history": null}
POST   /recommend        application/json   422 invalid_request        history      {"history": {"a": 1}}
POST   /recommend        application/json   422 invalid_request        history      {"history": "101"}
POST   /recommend        application/json   422 invalid_request        history[1]   {"history": [101, true]}
POST   /recommend        application/json   422 invalid_request        history[1]   {"history": [101, [1]]}
POST   /recommend        application/json   422 invalid_request        history[0]   {"history": [2.5]}
POST   /recommend        application/json   422 invalid_request        history[1]   {"history": [18446744073709551616, 1e3]}
POST   /recommend        application/json   422 invalid_request        exclude[1]   {"history": [], "exclude": [101, 101.0]}
POST   /recommend        application/json   422 invalid_request        k            {"history": [101], "k": 0}
POST   /recommend        application/json   422 invalid_request        k            {"history": [101], "k": 18446744073709551616}
POST   /recommend        application/json   422 invalid_request        k            {"history": [101], "k": 41}
POST   /recommend        application/json   422 invalid_request        k            {"history": [101], "k": -1}
POST   /recommend        application/json   422 invalid_request        k            {"history": [101], "k": 2.5}
POST   /recommend        application/json   422 invalid_request        k            {"history": [101], "k": "5"}
POST   /recommend        application/json   422 invalid_request        k            {"history": [101], "k": 1e30}
POST   /recommend        application/json   422 invalid_request        k            {"history": [], "k": 99}
POST   /recommend        application/json   422 invalid_request        route        {"history": [101], "route": "h5-l1-e6"}
POST   /recommend        application/json   422 invalid_request        route        {"history": [101], "route": ""}
POST   /recommend        application/json   422 invalid_request        route        {"history": [101], "route": 3}
POST   /recommend        application/json   422 invalid_request        route        {"history": [], "route": "Full"}
POST   /recommend        application/json   422 invalid_request        timeout_ms   {"history": [101], "timeout_ms": 0}
POST   /recommend        application/json   422 invalid_request        timeout_ms   {"history": [101], "timeout_ms": 60001}
POST   /recommend        application/json   422 invalid_request        exclude_seen {"history": [101], "exclude_seen": "no"}
POST   /recommend        application/json   422 invalid_request        exclude[0]   {"history": [101], "exclude": [null]}
POST   /recommend        application/json   422 invalid_request        candidates   {"history": [101], "candidates": "101"}
POST   /recommend        application/json   422 invalid_request        budget       {"history": [101], "budget": 0}
POST   /recommend        application/json   422 invalid_request        budget       {"history": [101], "budget": 1.01}
POST   /recommend        application/json   422 invalid_request        budget       {"history": [], "budget": -0.5}
POST   /recommend        application/json   422 invalid_request        budget       {"history": [101], "budget": "0.3"}
POST   /recommend        application/json   422 invalid_request        temperature  {"history": [101], "temperature": 0.3}
POST   /recommend        application/json   422 invalid_request        history      {"history": [101], "history": [102]}
POST   /recommend        -                  415 unsupported_media_type -            {"history": [101]}
POST   /recommend        text/plain         415 unsupported_media_type -            {"history": [101]}
POST   /recommend        application/jsonp  415 unsupported_media_type -            {"history": [101]}
GET    /recommend        -                  405 method_not_allowed     -            -
DELETE /recommend/batch  -                  405 method_not_allowed     -            -
POST   /healthz          -                  405 method_not_allowed     -            -
PATCH  /metrics          -                  405 method_not_allowed     -            -
GET    /recommend/       -                  404 not_found              -            -
GET    /nowhere          -                  404 not_found              -            -
GET    /items            -                  422 invalid_request        q            -
GET    /items?q=1&page=2 -                  422 invalid_request        page         -
GET    /items?q=1&q=2    -                  422 invalid_request        q            -
GET    /items?q=1&q=1    -                  422 invalid_request        q            -
POST   /recommend/batch  application/json   400 invalid_json           -            {"requests": [
POST   /recommend/batch  application/json   422 invalid_request        requests     {}
POST   /recommend/batch  application/json   422 invalid_request        requests     {"requests": {}}
POST   /recommend/batch  application/json   422 invalid_request        k            {"requests": [], "k": 1}
"#;

struct Case<'a> {
    method: &'a str,
    path: &'a str,
    content_type: Option<&'a str>,
    status: u16,
    code: &'a str,
    field: Option<&'a str>,
    body: &'a str,
}

fn cases() -> impl Iterator<Item = Case<'static>> {
    let given = |word: &'static str| (word != "-").then_some(word);
    TABLE.lines().filter(|line| !line.is_empty()).map(move |line| {
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.split_once(' ').unwrap();
            rest = after.trim_start();
            word
        };
        let [method, path, content_type, status, code, field] = std::array::from_fn(|_| word());
        Case {
            method,
            path,
            content_type: given(content_type),
            status: status.parse().unwrap(),
            code,
            field: given(field),
            body: given(rest).unwrap_or_default(),
        }
    })
}

fn assert_refused(server: &Server, case: &Case<'_>) {
    let headers: Vec<(&str, &str)> = case.content_type.map(|kind| ("content-type", kind)).into_iter().collect();
    let reply = server.client.send(case.method, case.path, &headers, case.body.as_bytes());
    let shown = format!("{} {} {}", case.method, case.path, case.body.chars().take(80).collect::<String>());
    assert_eq!(reply.status, case.status, "{shown}: {}", reply.text);
    assert_eq!(reply.header("content-type"), "application/problem+json", "{shown}");
    let problem = reply.json();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(case.status), &json!(case.code)), "{shown}");
    assert_eq!(problem["field"], json!(case.field), "{shown}: {problem}");
    assert!(!problem["detail"].as_str().unwrap().is_empty(), "{shown}");
    assert!(!problem["title"].as_str().unwrap().is_empty(), "{shown}");
    if case.status == 405 {
        assert!(!reply.header("allow").is_empty(), "{shown}");
    }
}

#[test]
fn every_bad_input_has_its_status_code_and_field() {
    let server = Server::start();
    cases().for_each(|case| assert_refused(&server, &case));
    // And after all of it the server answers.
    assert_eq!(server.client.recommend(&json!({"history": [101]})).status, 200);
}

/// Nothing that a client sends comes back at length, whatever part of the request it is.
#[test]
fn echoes_are_short() {
    let server = Server::start();
    let long = "é".repeat(250_000);
    let json = ("content-type", "application/json");
    let inputs = |name: &str, list: &str| {
        json!({"inputs": [{"name": name, "datatype": "BYTES", "shape": [1], "data": [list]}]}).to_string()
    };
    for (path, body) in [
        ("/recommend", json!({"history": [], &long: 1}).to_string()),
        ("/recommend", json!({"history": [], "route": long}).to_string()),
        ("/recommend", json!({"history": [], "k": long}).to_string()),
        ("/recommend/batch", json!({"requests": [], &long: 1}).to_string()),
        ("/v2/models/small/infer", json!({"inputs": [], "parameters": {&long: 1}}).to_string()),
        ("/v2/models/small/infer", inputs(&long, "[]")),
        ("/v2/models/small/infer", inputs("history", &format!("{{{long:?}: 1}}"))),
    ] {
        let reply = server.client.send("POST", path, &[json], body.as_bytes());
        assert!((400..500).contains(&reply.status) && reply.text.len() < 1000, "{path}: {} bytes", reply.text.len());
    }
    let batch = json!({"requests": [{"history": [], &long: 1}]}).to_string();
    let reply = server.client.send("POST", "/recommend/batch", &[json], batch.as_bytes());
    assert!(reply.status == 200 && reply.text.len() < 1000, "{} bytes", reply.text.len());
    // What follows the echo stays: it says what to do.
    let reply = server.client.recommend(&json!({"history": [], "route": long})).json();
    let detail = reply["detail"].as_str().unwrap();
    assert!(detail.starts_with("there is no route \"é") && detail.ends_with("as h4-l1-e6"), "{detail}");

    let path = format!("/{}", "x".repeat(20_000));
    for (method, path) in [("GET", path.as_str()), ("GET", &format!("/items?{}=1", &path[1..]))] {
        let reply = server.client.send(method, path, &[], b"");
        assert!(reply.text.len() < 1000 && (400..500).contains(&reply.status), "{} bytes", reply.text.len());
    }
}

#[test]
fn what_is_too_much_is_refused_whole() {
    let server = Server::start();
    let case = |path, status, code, field, body| {
        let content_type = Some("application/json");
        assert_refused(&server, &Case { method: "POST", path, content_type, status, code, field, body });
    };
    let big_history = json!({"history": vec!["101"; 200_000]}).to_string();
    assert!(big_history.len() > 1 << 20);
    case("/recommend", 413, "too_large", None, &big_history);
    let blanks = " ".repeat((1 << 20) + 1);
    case("/recommend", 413, "too_large", None, &blanks);
    let deep = format!("{{\"history\": {}", "[".repeat(5000));
    case("/recommend", 422, "invalid_request", Some("history[0]"), &deep);
    let many = json!({"requests": vec![json!({"history": []}); 1025]}).to_string();
    case("/recommend/batch", 422, "invalid_request", Some("requests"), &many);

    for field in ["history", "exclude", "candidates"] {
        let mut request = json!({"history": [101]});
        request[field] = json!(vec![101; 100_001]);
        let body = request.to_string();
        let content_type = Some("application/json");
        let case = Case {
            method: "POST",
            path: "/recommend",
            content_type,
            status: 422,
            code: "invalid_request",
            field: Some(field),
            body: &body,
        };
        assert_refused(&server, &case);
    }
    let query = "q".repeat(257);
    let long = Case {
        method: "GET",
        path: &format!("/items?q={query}"),
        content_type: None,
        body: "",
        field: Some("q"),
        status: 422,
        code: "invalid_request",
    };
    assert_refused(&server, &long);

    // The limit itself is taken, and of such a history the newest items are read.
    let mut history = json!({"history": vec![101; 100_000]}).to_string();
    history.push_str(&" ".repeat((1 << 20) - history.len()));
    let reply = server.client.send("POST", "/recommend", &[("content-type", "application/json")], history.as_bytes());
    assert_eq!((reply.status, &reply.json()["history"]["used"]), (200, &json!(12)));
}
