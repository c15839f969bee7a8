//! The console at `/`: that it comes whole from the binary, and works in a browser.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

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
    assert_eq!(server.client.calls("http", "200"), 0.0);
}

/// A random model whose every budget runs the smallest route.
fn without_router(seed: u64) -> CheckpointDraft {
    let draft = numbered(draft(small_config(), seed));
    let space = draft.config.check().unwrap();
    let route = Some(space.name(space.smallest()).to_owned());
    let point = BudgetPoint { budget: 0.1, bias: vec![0.0; space.len()], route, spent: 0.05 };
    CheckpointDraft { calibration: Some(Calibration { points: vec![point] }), ..draft }
}

/// A random model, calibrated so that a budget of 0.1 leaves the smallest route, and 1 the full one.
fn calibrated(seed: u64) -> CheckpointDraft {
    let draft = numbered(draft(small_config(), seed));
    let routes = draft.config.check().unwrap().len();
    let only = |route: usize| (0..routes).map(|index| if index == route { 1e3 } else { 0.0 }).collect();
    let points = [(0.1, only(0)), (0.3, vec![0.0; routes]), (1.0, only(routes - 1))];
    let points = points.map(|(budget, bias)| BudgetPoint { budget, bias, route: None, spent: budget });
    CheckpointDraft { calibration: Some(Calibration { points: points.into() }), ..draft }
}

#[test]
fn a_person_can_use_it_in_a_browser() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    calibrated(11).write(&root).unwrap();
    calibrated(12).write(&root).unwrap();
    without_router(13).write(&root).unwrap();
    let server = Process::serve(&root, &["--version", "1", "--admin-token", "open sesame"]);
    run_script("console.py", &[&format!("http://{}", server.client.address), "open sesame"]);
}

/// Serves `server` under a path as nginx does with `location /canet/ { proxy_pass http://SERVER/; }`: strips the path
/// and names the server as the host. Everything else is 404. It accepts until the test process ends.
fn proxy_under_path(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            // A browser may leave at any time.
            thread::spawn(move || drop(forward(client, server)));
        }
    });
    address
}

/// Forwards the one request of a connection.
fn forward(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let Some((method, path)) = first.split_once(" /canet/") else {
        return client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    let (mut head, mut length) = (format!("{method} /{path}host: {server}\r\nconnection: close\r\n"), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if name == "content-length" {
            length = line[name.len() + 1..].trim().parse().unwrap_or(0);
        }
        if !["host", "connection"].contains(&name.as_str()) {
            head.push_str(&line);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut upstream = TcpStream::connect(server)?;
    upstream.write_all(head.as_bytes())?;
    io::copy(&mut reader.take(length), &mut upstream)?;
    io::copy(&mut upstream, &mut client)?;
    client.shutdown(Shutdown::Both)
}

#[test]
fn the_pages_work_behind_a_path() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    calibrated(11).write(&root).unwrap();
    let server = Process::serve(&root, &["--admin-token", "open sesame"]);
    let proxy = proxy_under_path(server.client.address);
    run_script("prefix.py", &[&format!("http://{proxy}/canet"), "open sesame"]);
}
