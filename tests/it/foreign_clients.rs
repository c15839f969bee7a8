//! Clients that nobody here wrote, against the binary: what they make of it is what users get.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::server::{Killed, Process, numbered};
use super::support::{draft, python, small_config};

fn script(name: &str, server: &Process) -> Command {
    let mut command = Command::new(python());
    command.arg(format!("{}/tests/python/{name}", env!("CARGO_MANIFEST_DIR")));
    command.args([server.client.address.to_string(), server.grpc.to_string()]);
    // What is compiled on the way is not for the source tree.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[test]
fn a_client_generated_from_the_proto_gets_what_rest_says_and_hears_of_the_drain() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    let mut server = Process::serve(&root, &["--drain-delay", "0"]);
    let mut client = script("grpc_client.py", &server);
    let mut client = Killed(client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let watching = BufReader::new(client.0.stdout.take().unwrap()).lines().next();
    assert_eq!(watching.map(Result::unwrap).as_deref(), Some("watching"), "its message stands above");
    server.signal("TERM");
    drop(client.0.stdin.take());
    assert!(client.0.wait().unwrap().success());
    // A watching client does not keep the server.
    assert!(server.wait().success());
    assert!(!server.log_line("stopped").is_empty());
}

#[test]
fn tritonclient_gets_what_rest_says_over_both_transports() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    let server = Process::serve(&root, &[]);
    assert!(script("inference_client.py", &server).status().unwrap().success(), "its message stands above");
}
