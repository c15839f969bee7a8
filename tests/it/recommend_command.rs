//! `canet recommend` as a process: its output and its failures.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::thread;

use canet_domain::Catalogue;
use canet_model::checkpoint::CheckpointDraft;
use serde_json::{Value, json};

use super::raw::nobody_at;
use super::server::{ROOMY, Server, canet, numbered};
use super::support::{draft, reference, small_config};

/// Runs `canet recommend` against a server.
fn ask(server: &Server, arguments: &[&str]) -> Output {
    ask_at(&format!("http://{}", server.client.address), arguments)
}

fn ask_at(url: &str, arguments: &[&str]) -> Output {
    canet(&["recommend", "--url", url]).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asserts that a command failed with this exit code and these words on standard error, and printed nothing else.
fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in {stderr}");
    }
}

#[test]
fn json_is_the_servers_response() {
    let server = Server::start();
    let answer = |arguments: &[&str]| -> Value { serde_json::from_str(&text(&ask(&server, arguments))).unwrap() };
    for (arguments, request) in [
        (&["--history", "103,131"][..], json!({"history": [103, 131]})),
        (&["--history", " 103 ,131,", "--k", "3"], json!({"history": [103, 131], "k": 3})),
        (
            &["--history", "103", "--route", "full", "--exclude", "104,105"],
            json!({"history": [103], "route": "full", "exclude": [104, 105]}),
        ),
        (
            &["--history", "103", "--candidates", "104,105,103", "--include-seen"],
            json!({"history": [103], "candidates": [104, 105, 103], "exclude_seen": false}),
        ),
        (
            &["--history", "103,stranger", "--budget", "0.5", "--timeout-ms", "5000"],
            json!({"history": [103, "stranger"], "budget": 0.5, "timeout_ms": 5000}),
        ),
        (&["--history", ""], json!({"history": []})),
    ] {
        let arguments = [arguments, &["--json"]].concat();
        assert_eq!(answer(&arguments), server.client.recommend(&request).json(), "{arguments:?}");
    }
}

#[test]
fn a_history_may_come_from_standard_input() {
    let server = Server::start();
    let url = format!("http://{}", server.client.address);
    let mut child = canet(&["recommend", "--url", &url, "--history", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"103\n131, 107\r\n\n").unwrap();
    let found: Value = serde_json::from_str(&text(&child.wait_with_output().unwrap())).unwrap();
    assert_eq!(found, server.client.recommend(&json!({"history": [103, 131, 107]})).json());
}

#[test]
fn the_table_names_items_titles_route_and_cost() {
    let server = Server::start();
    let body = server.client.recommend(&json!({"history": [103, "stranger"], "k": 4})).json();
    let printed = text(&ask(&server, &["--history", "103,stranger", "--k", "4"]));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 1 + 4 + 1 + 3, "{printed}");
    for (rank, item) in body["items"].as_array().unwrap().iter().enumerate() {
        let mut expected = vec![(rank + 1).to_string(), item["item"].as_str().unwrap().to_owned()];
        expected.push(format!("{:.3}", item["score"].as_f64().unwrap()));
        expected.extend(item["title"].as_str().unwrap_or_default().split_whitespace().map(str::to_owned));
        assert_eq!(lines[rank + 1].split_whitespace().collect::<Vec<_>>(), expected, "{printed}");
    }
    let percent = |share: &Value| format!("{:.1} %", share.as_f64().unwrap() * 100.0);
    let (route, compute) = (&body["route"], &body["compute"]);
    let expected =
        format!("route {} (router, confidence {})", route["name"].as_str().unwrap(), percent(&route["confidence"]));
    assert!(lines[6].starts_with(&expected), "{printed}");
    assert!(lines[6].ends_with(&format!("{} saved", percent(&compute["saved"]))), "{printed}");
    assert_eq!(lines[7], "model small version 1, 1 items of the history read");
    assert_eq!(lines[8], "not in the model: stranger");

    let cold = text(&ask(&server, &["--history", "stranger", "--k", "1"]));
    let words: Vec<&str> = cold.lines().nth(1).unwrap().split_whitespace().collect();
    // The most popular item comes first, with its count.
    assert_eq!(words, ["1", "140", "40"], "{cold}");
    assert!(cold.contains("no route (cold start): ranked by popularity"), "{cold}");
    let none = text(&ask(&server, &["--history", "103", "--candidates", "103"]));
    assert!(none.starts_with("no item is left to recommend\n"), "{none}");
}

#[test]
fn a_title_cannot_control_the_terminal() {
    let draft = numbered(draft(small_config(), 11));
    let ids: Vec<Box<str>> = draft.catalogue.ids().to_vec();
    let titles = ids.iter().map(|id| (id.clone(), "\u{1b}[2Jgone\u{9b}".into())).collect::<Vec<_>>();
    let catalogue = Catalogue::new(ids, vec![1; 40]).unwrap().with_titles(titles);
    let forward = reference(&draft.config, &draft.weights);
    let server = Server::with(CheckpointDraft { catalogue, ..draft }, Arc::new(forward), ROOMY);
    let printed = text(&ask(&server, &["--history", "103"]));
    assert!(printed.contains("\u{fffd}[2Jgone\u{fffd}") && !printed.contains(['\u{1b}', '\u{9b}']), "{printed:?}");
}

#[test]
fn an_invalid_request_exits_with_64_and_names_the_field() {
    let server = Server::start();
    for (arguments, words) in [
        (&["--history", "103", "--k", "41"][..], &["invalid_request", "422", "field `k`", "from 1 to 40"][..]),
        (&["--history", "103", "--route", "h5-l1-e6"], &["invalid_request", "field `route`", "no route \"h5-l1-e6\""]),
    ] {
        assert_fails(&ask(&server, arguments), 64, words);
    }
    let elsewhere = format!("http://{}/nowhere/", server.client.address);
    assert_fails(&ask_at(&elsewhere, &["--history", "103"]), 64, &["not_found", "404", "/nowhere/recommend"]);
    for arguments in [
        &[][..],
        &["--history", "103", "--budget", "1.5"],
        &["--history", "103", "--timeout-ms", "0"],
        &["--history", "103", "--api-key", ""],
        &["--history", "103", "--ca", "/nowhere/ca.pem"],
    ] {
        assert_fails(&ask(&server, arguments), 64, &[]);
    }
    for url in ["not a url", "ftp://127.0.0.1:1", "127.0.0.1"] {
        assert_fails(&ask_at(url, &["--history", "103"]), 64, &["--url", url]);
    }
}

/// The address of a server that replies `reply` to one connection. With an empty reply it hangs up.
fn fake_server(reply: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 4096]);
        let _ = connection.write_all(reply.as_bytes());
    });
    format!("http://{address}")
}

#[test]
fn an_unavailable_server_exits_with_69() {
    let (_port, nobody) = nobody_at(([127, 0, 0, 1], 0).into());
    assert_fails(&ask_at(&format!("http://{nobody}"), &["--history", "103"]), 69, &["is the server running?"]);
    assert_fails(&ask_at(&fake_server(""), &["--history", "103"]), 69, &["is the server running?"]);
    let busy =
        "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 37\r\n\r\n{\"code\":\"overloaded\",\"detail\":\"full\"}";
    assert_fails(&ask_at(&fake_server(busy), &["--history", "103"]), 69, &["overloaded: full; try again"]);
    let broken = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops";
    assert_fails(&ask_at(&fake_server(broken), &["--history", "103"]), 69, &["500", "no canet server"]);
}

#[test]
fn a_response_of_another_server_exits_with_65() {
    let page = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n<p>welcome</p>\n";
    assert_fails(&ask_at(&fake_server(page), &["--history", "103"]), 65, &["no response of a canet server"]);
    let locked = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
    assert_fails(&ask_at(&fake_server(locked), &["--history", "103"]), 64, &["401", "give --api-key"]);
}
