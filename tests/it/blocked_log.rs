//! A server whose log nobody reads.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::server::{Client, Killed, canet};
use super::support::write_checkpoint;

#[test]
fn requests_and_signals_are_answered_while_nobody_reads_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("small");
    write_checkpoint(&model, 9);
    let mut server =
        canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--log", "trace", "--drain-delay", "0"])
            .arg("--model")
            .arg(&model)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let mut server = Killed(server);
    // The pipe stays open and is read no further than this.
    let mut address = None;
    let address = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server ended");
        if let Some((_, rest)) = line.split_once("listening on http://") {
            address = rest.trim().parse().ok();
        }
        if let (Some(address), true) = (address, line.contains("ready")) {
            break address;
        }
    };
    let client = Client::new(address);
    // A line or more a request: a pipe holds 64 KiB.
    for _ in 0..2000 {
        assert_eq!(client.get("/model").status, 200);
    }
    assert_eq!(client.get("/healthz").status, 200);
    let status = std::process::Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}
