//! Servers that run out of descriptors and of memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rlimit::{Resource, prlimit};
use serde_json::json;

use super::chaos::{publish, request, rounds};
use super::raw::{RawReply, connect, post, read_to_close};
use super::server::{HANGS, Process, canet, run};

/// The most that bodies take before they are refused.
const BODIES: usize = 64;

/// Length of the largest body.
const LARGEST: usize = 1 << 20;

/// What `docs/operations.md` adds to the memory of models, in bytes.
const ROOM: u64 = 300_000_000;

#[test]
fn a_server_that_runs_out_of_descriptors_waits_for_some_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let server = Process::serve(&root, &[]);
    let client = &server.client;
    let expected = client.recommend(&request()).items();
    let process = i32::try_from(server.id()).unwrap();
    let (mut soft, mut hard) = (0, 0);
    prlimit(process, Resource::NOFILE, None, Some((&mut soft, &mut hard))).unwrap();
    for _ in 0..rounds(1) {
        // The next one would be the first that is free.
        let open = server.descriptors();
        let free = (0..).find(|descriptor| !open.contains(descriptor)).unwrap();
        prlimit(process, Resource::NOFILE, Some((free, hard)), None).unwrap();
        let mut waiting: Vec<TcpStream> = (0..10).map(|_| connect(client.address)).collect();
        for stream in &mut waiting {
            stream.write_all(&post("/recommend", request().to_string().as_bytes())).unwrap();
        }
        // It tries again once a second, and computes nothing in between.
        let failed = || server.log_line("a connection could not be accepted");
        failed();
        let (before, began) = (cpu_time(server.id()), Instant::now());
        failed();
        failed();
        let spent = cpu_time(server.id()) - before;
        assert!(spent < began.elapsed() / 4, "the server computed for {spent:?} of {:?}", began.elapsed());
        // Who is connected is answered, and learns why nothing can be loaded.
        assert_eq!(client.recommend(&request()).items(), expected);
        assert_eq!(client.get("/metrics").status, 200);
        assert_ne!(client.post("/admin/reload", &json!({})).status, 200);
        assert_eq!(client.get("/readyz").status, 200);
        prlimit(process, Resource::NOFILE, Some((soft, hard)), None).unwrap();
        for stream in &mut waiting {
            let reply = RawReply::parse(&read_to_close(stream));
            assert_eq!(reply.map(|reply| reply.status), Some(200));
        }
        assert_eq!(client.post("/admin/reload", &json!({})).status, 200);
        assert_eq!(client.recommend(&request()).items(), expected);
    }
}

/// The time for which all threads of a process ran, those that ended too.
fn cpu_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name, which may hold spaces, ends with a parenthesis. User and system time are fields 14 and 15, in hundredths of
    // a second.
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| 10 * ticks.parse::<u64>().unwrap()).sum())
}

/// The binary with so many bytes of memory for its data.
fn limited(bytes: u64) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -d {}; exec \"$0\" \"$@\"", bytes / 1024);
    command.args(["-c", &script, env!("CARGO_BIN_EXE_canet")]);
    command
}

/// Bytes of data that a server has once it answers, under a limit that leaves it enough.
fn needed(root: &Path) -> u64 {
    let server = Process::serve_by(limited(1 << 30), root, &[]);
    assert_eq!(server.client.recommend(&request()).status, 200);
    server.memory("VmData:")
}

/// Half-sends as many of the largest bodies as there is room for, and then the rest of each. Returns the statuses of the answers
/// that came.
fn send_bodies(server: &Process) -> Vec<u16> {
    let filler = "1,".repeat(LARGEST / 2 - 100);
    let bytes = post("/recommend", format!("{{\"history\":[{filler}1]}}").as_bytes());
    let mut streams: Vec<TcpStream> = (0..BODIES)
        .map_while(|_| {
            let mut stream = TcpStream::connect(server.client.address).ok()?;
            stream.set_read_timeout(Some(HANGS)).unwrap();
            let _ = stream.write_all(&bytes[..bytes.len() - 1]);
            Some(stream)
        })
        .collect();
    for stream in &mut streams {
        let _ = stream.write_all(&bytes[bytes.len() - 1..]);
    }
    let status = |stream: &mut TcpStream| {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        RawReply::parse(&answer).map(|reply| reply.status)
    };
    streams.iter_mut().filter_map(status).collect()
}

#[test]
fn a_memory_limit_that_leaves_room_costs_no_request_and_a_lower_one_ends_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let needed = needed(&root);
    println!("{} MB without a request", needed >> 20);

    // With the room that the documentation demands, every request is answered: too many items, no room for its body, or too slow
    // a body on a busy machine.
    let server = Process::serve_by(limited(needed + ROOM), &root, &[]);
    let expected = server.client.recommend(&request()).items();
    for _ in 0..rounds(1) {
        let statuses = send_bodies(&server);
        assert_eq!(statuses.len(), BODIES);
        assert!(statuses.iter().all(|status| [408, 422, 429].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&422), "{statuses:?}");
        assert_eq!(server.client.post("/admin/reload", &json!({})).status, 200);
        assert_eq!(server.client.recommend(&request()).items(), expected);
    }
    drop(server);

    // Without any, the process ends at once instead of hanging, and the next one is healthy.
    let mut server = Process::serve_by(limited(needed + ROOM), &root, &[]);
    let process = i32::try_from(server.id()).unwrap();
    prlimit(process, Resource::DATA, Some((1, 1)), None).unwrap();
    let mut sent = 0;
    let ended = loop {
        sent += send_bodies(&server).len();
        if let Some(ended) = server.wait_for(Duration::ZERO) {
            break ended;
        }
        assert!(sent < 100 * BODIES, "no allocation failed");
    };
    assert_eq!(ended.signal(), Some(6), "{ended:?}");
    assert!(server.rest_of_log().iter().any(|line| line.contains("memory allocation of")));
    let next = Process::serve(&root, &[]);
    assert_eq!(next.client.recommend(&request()).items(), expected);
}

#[test]
fn a_server_that_gets_no_thread_names_the_limits() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let mut command = canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--device", "cpu", "--model"]);
    // No machine has room for such a stack.
    let (code, message) = run(command.arg(&root).env("RUST_MIN_STACK", (1_u64 << 46).to_string()));
    assert!(code == Some(69) && message.contains("ulimit -u"), "{code:?}: {message}");
}
