//! What the server says of itself: its OpenAPI document against what it does, and the page that shows it.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::server::{Process, Server, numbered};
use super::support::{draft, python, small_config};

#[test]
fn the_document_is_made_for_the_checkpoint_and_what_it_allows_is_accepted() {
    let server = Server::start();
    let document = server.client.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{"url": "."}]));
    let request = "/components/schemas/RecommendRequest";
    let k = document.pointer(&format!("{request}/properties/k")).unwrap();
    assert_eq!((&k["minimum"], &k["maximum"], &k["default"]), (&json!(1), &json!(40), &json!(10)));
    let routes = document.pointer(&format!("{request}/properties/route/enum")).unwrap().as_array().unwrap();
    assert_eq!(
        (routes.len(), &routes[..4]),
        (28, &["auto", "full", "smallest", "h4-l1-e6"].map(|name| json!(name))[..])
    );
    for route in routes {
        let reply = server.client.recommend(&json!({"history": [101, "102"], "k": 40, "route": route}));
        assert_eq!(reply.status, 200, "{route}: {reply:?}");
    }
    let example = document.pointer(&format!("{request}/examples/0")).unwrap();
    let answer = server.client.recommend(example).json();
    assert_eq!(answer["history"]["unknown"], json!([]), "{example}");
}

#[test]
fn whole_numbers_count_however_json_writes_them() {
    let server = Server::start();
    for (k, count) in [("3", 3), ("3.0", 3), ("3e0", 3), ("0.3e1", 3)] {
        let body = format!(r#"{{"history": [101], "k": {k}, "timeout_ms": 1e4}}"#);
        let json = [("content-type", "application/json")];
        let reply = server.client.send("POST", "/recommend", &json, body.as_bytes());
        assert_eq!((reply.status, reply.items().len()), (200, count), "{k}");
    }
}

#[test]
fn every_endpoint_names_its_problems_with_an_example_of_each() {
    let server = Server::start();
    let document = server.client.get("/openapi.json").json();
    let statuses = |path: &str, method: &str| -> Vec<String> {
        document["paths"][path][method]["responses"].as_object().unwrap().keys().cloned().collect()
    };
    let body = ["200", "400", "408", "413", "415", "422", "429"];
    assert_eq!(statuses("/recommend", "post"), [&body[..], &["500", "503", "504"]].concat());
    assert_eq!(statuses("/recommend/batch", "post"), [&body[..], &["500", "503"]].concat());
    assert_eq!(statuses("/items", "get"), ["200", "422", "429", "500", "503"]);
    assert_eq!(statuses("/routes", "get"), ["200", "429", "500", "503"]);
    let overloaded = &document["paths"]["/recommend"]["post"]["responses"]["429"];
    assert_eq!(overloaded["content"]["application/problem+json"]["examples"]["overloaded"]["value"]["status"], 429);
    assert!(overloaded["headers"]["retry-after"].is_object() && overloaded["headers"]["x-request-id"].is_object());
}

/// Schemathesis makes requests out of the document, good and bad ones, and checks the answers against it.
#[test]
fn schemathesis_finds_no_fault() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    let server = Process::serve(&root, &["--api-key", "old,new", "--admin-token", "operator"]);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/schemathesis.toml");
    let output = Command::new(python())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(config)
        .args(["run", "--checks", "all", "--seed", "1", "--max-examples", "40", "--no-color"])
        // One thread: Hypothesis parses its strategies' source, and CPython 3.11 counts the depth of all its threads'
        // parses as one, so that two at a time may fail with "AST constructor recursion depth mismatch".
        .args(["--workers", "1"])
        // Written so: to the tool another case is no credential.
        .args(["--continue-on-failure", "--header", "x-api-key: new", "--header", "Authorization: Bearer operator"])
        .arg(format!("http://{}/openapi.json", server.client.address))
        // It leaves its database of examples where it runs.
        .current_dir(directory.path())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    // Every operation was asked, and a fair number of times.
    let generated = report.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<u32>().ok());
    assert!(generated.is_some_and(|generated| generated > 300), "{report}");
    assert_eq!(server.client.get("/readyz").status, 200);
}

#[test]
fn the_page_of_the_document_loads_nothing_from_elsewhere() {
    let server = Server::start();
    let page = server.client.get("/docs");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    // The browser refuses whatever is not from here, and whatever stands in the page itself.
    let policy = page.header("content-security-policy");
    for rule in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.split("; ").any(|given| given == rule), "{rule}: {policy}");
    }
    let links: Vec<&str> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|name| page.text.split(name).skip(1).map(|rest| rest.split('"').next().unwrap()))
        .collect();
    assert!(links.len() >= 3, "{links:?}");
    for link in links.into_iter().filter(|link| !link.starts_with("data:")) {
        // Relative to `/docs`, so that a proxy may serve the page under a path.
        assert!(link.starts_with("docs/"), "{link}");
        let part = server.client.get(&format!("/{link}"));
        assert_eq!((part.status, part.header("x-content-type-options")), (200, "nosniff"), "{link}");
    }
}
