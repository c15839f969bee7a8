//! The console at `/`: that it comes whole from the binary, and works in a browser.

use std::path::Path;

use canet_model::checkpoint::{BudgetPoint, Calibration, CheckpointDraft};

use super::server::{Process, Server, numbered};
use super::support::{draft, run_script, small_config};

/// Where the console's own files lie.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/api/src/console");

#[test]
fn every_file_of_the_page_is_served_with_a_tag_and_a_policy() {
    let server = Server::start();
    let page = server.client.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'self';"));
    assert_eq!(page.header("cache-control"), "no-cache");

    let mut files = 0;
    for entry in Path::new(SOURCES).read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let media_type = match path.extension().and_then(|extension| extension.to_str()) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => continue,
        };
        let served = server.client.get(&format!("/console/{name}"));
        assert_eq!((served.status, served.header("content-type")), (200, media_type), "{name}");
        let source = std::fs::read_to_string(&path).unwrap();
        assert_eq!(served.text, source, "{name}");
        // Nothing is fetched from elsewhere; the one address is the name of SVG.
        let addresses = source.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("http://") && !addresses.contains("https://"), "{name} names another server");
        files += 1;
    }
    assert!(files > 10, "{files} files in {SOURCES}");
    assert_eq!(server.client.get("/console/nothing.js").status, 404);
    assert_eq!(server.client.send("POST", "/", &[], b"").json()["code"], "method_not_allowed");
}

#[test]
fn a_browser_that_has_a_file_is_not_sent_it_again() {
    let server = Server::start();
    let first = server.client.get("/console/main.js");
    let tag = first.header("etag");
    let ask = |given: &str| server.client.send("GET", "/console/main.js", &[("if-none-match", given)], b"");
    let list = format!("\"other\", {tag}");
    let strong = tag.trim_start_matches("W/");
    for given in [tag, &list, strong, "*"] {
        let again = ask(given);
        assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", tag), "{given}");
    }
    assert_eq!(ask("\"other\"").status, 200);
    assert_ne!(server.client.get("/").header("etag"), tag);
}

#[test]
fn files_of_the_page_are_not_counted_as_calls() {
    let server = Server::start();
    server.client.get("/");
    server.client.get("/console/main.js");
    assert_eq!(server.client.metric("requests_total{code=\"200\",transport=\"http\"}"), 0.0);
}

/// The same random model, calibrated so that a budget of 0.1 leaves the smallest route, and 1 the full one.
fn calibrated(seed: u64) -> CheckpointDraft {
    let draft = numbered(draft(small_config(), seed));
    let routes = draft.config.check().unwrap().len();
    let only = |route: usize| (0..routes).map(|index| if index == route { 1e3 } else { 0.0 }).collect();
    let points = [(0.1, only(0)), (0.3, vec![0.0; routes]), (1.0, only(routes - 1))];
    let points = points.map(|(budget, bias)| BudgetPoint { budget, bias, spent: budget });
    CheckpointDraft { calibration: Some(Calibration { points: points.into() }), ..draft }
}

#[test]
fn a_person_can_use_it_in_a_browser() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    calibrated(11).write(&root).unwrap();
    calibrated(12).write(&root).unwrap();
    let server = Process::serve(&root, &["--version", "1", "--admin-token", "open sesame"]);
    run_script("console.py", &[&format!("http://{}", server.client.address), "open sesame"]);
}
