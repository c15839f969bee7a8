//! Real processes that are killed, stopped and left without their files, under load.
//!
//! `make chaos ROUNDS=50` runs many rounds. A test run has a few. Moments are random, from a seed that is printed.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use canet_model::checkpoint::ModelDirectory;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::raw::{RawReply, connect, post};
use super::server::{Client, HANGS, Process, canet, numbered, run};
use super::support::{draft, rng, small_config};

/// How many rounds to run: `few`, or as many as `CANET_TEST_CHAOS` says.
pub(crate) fn rounds(few: u64) -> u64 {
    std::env::var("CANET_TEST_CHAOS").map_or(few, |rounds| rounds.parse().expect("CANET_TEST_CHAOS is a number"))
}

/// A random generator. A test run draws the same moments each time; more rounds draw new ones.
pub(crate) fn moments() -> ChaCha8Rng {
    let seed = match std::env::var_os("CANET_TEST_CHAOS") {
        None => 1,
        Some(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    println!("seed {seed}");
    rng(seed)
}

/// Writes the next version of a model whose ids are 101 to 140.
pub(crate) fn publish(root: &Path, seed: u64) -> u64 {
    numbered(draft(small_config(), seed)).write(root).unwrap().version
}

pub(crate) fn request() -> Value {
    json!({"history": [101, 105, 109], "k": 3})
}

/// What each version answers to [`request`], from servers of their own that nothing disturbs.
fn expected(root: &Path, versions: u64) -> Vec<Vec<String>> {
    let answer = |version: u64| {
        let server = Process::serve(root, &["--version", &version.to_string()]);
        server.client.recommend(&request()).items()
    };
    (1..=versions).map(answer).collect()
}

/// Asks without end until the server is gone, counts the answers, and checks each against its version.
fn ask_until_gone(client: &Client, expected: &[Vec<String>], answered: &AtomicUsize) {
    let body = request().to_string();
    let headers = [("content-type", "application/json")];
    while let Ok(reply) = client.try_send("POST", "/recommend", &headers, body.as_bytes()) {
        assert_eq!(reply.status, 200, "{reply:?}");
        let version = reply.json()["model"]["version"].as_u64().unwrap() as usize;
        assert_eq!(reply.items(), expected[version - 1], "version {version}");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Every version that is there is whole.
fn assert_whole(root: &Path) {
    let directory = ModelDirectory::open(root).unwrap();
    for version in directory.versions().unwrap() {
        directory.load(Some(version)).unwrap_or_else(|error| panic!("version {version}: {error}"));
    }
}

#[test]
fn a_server_that_is_killed_during_reloads_starts_healthy_and_answered_nothing_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    for seed in 1..=3 {
        publish(&root, seed);
    }
    let expected = expected(&root, 3);
    let log = directory.path().join("log");
    let mut random = moments();
    for round in 0..rounds(3) {
        let mut server = Process::serve(&root, &["--watch", "--answer-log", log.to_str().unwrap()]);
        let enough = random.gen_range(1..200);
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                let client = Client::new(server.client.address);
                scope.spawn(|| ask_until_gone(&{ client }, &expected, &answered));
            }
            let client = Client::new(server.client.address);
            scope.spawn(move || {
                let headers = [("content-type", "application/json")];
                for version in (1..=3).cycle() {
                    let body = json!({"version": version}).to_string();
                    if client.try_send("POST", "/admin/reload", &headers, body.as_bytes()).is_err() {
                        return;
                    }
                }
            });
            let began = Instant::now();
            while answered.load(Ordering::Relaxed) < enough {
                assert!(began.elapsed() < HANGS, "round {round}: {answered:?} of {enough} answers");
                thread::yield_now();
            }
            server.signal("KILL");
            assert_eq!(server.wait().signal(), Some(9));
        });
        // Every line that the killed server wrote is whole, but perhaps its last.
        for file in fs::read_dir(&log).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            assert!(whole.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
        }
        let next = Process::serve(&root, &["--answer-log", log.to_str().unwrap()]);
        assert_eq!(next.client.get("/readyz").status, 200);
        let reply = next.client.recommend(&request());
        assert_eq!((reply.json()["model"]["version"].as_u64(), reply.items()), (Some(3), expected[2].clone()));
    }
}

/// `canet import`, which writes a version.
fn import(out: &Path) -> Command {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden");
    let mut command = canet(&["import", "--state-dict"]);
    command.arg(golden.join("state_dict.pt")).arg("--args").arg(golden.join("args.json")).arg("--out").arg(out);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The files of versions that are not published yet.
fn unpublished(root: &Path) -> usize {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let hidden = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    hidden.map(|entry| 1 + fs::read_dir(entry.path()).map_or(0, Iterator::count)).sum()
}

#[test]
fn a_publisher_that_is_killed_leaves_whole_versions_and_a_watching_server_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("model");
    assert!(import(&root).status().unwrap().success());
    let server = Process::serve(&root, &["--watch"]);
    let version = || server.client.get("/model").json()["version"].as_u64();
    let before = version();
    assert!(before.is_some(), "{:?}", server.client.get("/model"));
    let mut random = moments();
    for round in 0..rounds(4) {
        let mut child = import(&root).spawn().unwrap();
        // From an empty directory on, up to all of its files.
        let files = random.gen_range(1..6);
        let began = Instant::now();
        while unpublished(&root) < files && child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < HANGS, "round {round}");
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_whole(&root);
        assert_eq!(server.client.get("/readyz").status, 200);
    }
    // The next publisher removes what the killed ones left, and the server takes its version.
    assert!(import(&root).status().unwrap().success());
    assert_eq!(unpublished(&root), 0);
    let newest = ModelDirectory::open(&root).unwrap().latest().unwrap();
    server.log_line(&format!("version={newest}"));
    while version() != Some(newest) {}
}

/// The limit on a file's size stands for a full disk.
#[test]
fn a_publisher_without_room_leaves_nothing_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("model");
    let plain = import(&root);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]).arg(plain.get_program());
    limited.args(plain.get_args());
    let (code, message) = run(&mut limited);
    assert_eq!(code, Some(74), "{message}");
    assert!(message.contains("weights.safetensors"), "{message}");
    assert_eq!(unpublished(&root), 0);
    assert!(ModelDirectory::open(&root).is_err(), "a version exists");
}

#[test]
fn a_model_directory_that_vanishes_costs_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let (root, elsewhere) = (directory.path().join("small"), directory.path().join("elsewhere"));
    publish(&root, 1);
    publish(&root, 2);
    let server = Process::serve(&root, &["--watch", "--version", "1"]);
    let client = &server.client;
    let answer = client.recommend(&request()).items();
    for _ in 0..rounds(2) {
        fs::rename(&root, &elsewhere).unwrap();
        let refused = client.post("/admin/reload", &json!({"version": 2}));
        assert!([404, 422].contains(&refused.status), "{refused:?}");
        let reply = client.recommend(&request());
        assert_eq!((reply.status, reply.items()), (200, answer.clone()));
        assert_eq!(client.get("/readyz").status, 200);
        // Half of it comes back first.
        fs::create_dir(&root).unwrap();
        assert_ne!(client.post("/admin/reload", &json!({})).status, 200);
        fs::remove_dir(&root).unwrap();
        fs::rename(&elsewhere, &root).unwrap();
        assert_eq!(client.post("/admin/reload", &json!({"version": 1})).status, 200);
        assert_eq!(client.recommend(&request()).items(), answer);
    }
}

/// As a virtual machine that is moved, or a debugger, does.
#[test]
fn a_server_that_is_stopped_and_continued_answers_what_was_sent_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let server = Process::serve(&root, &["--probe-listen", "127.0.0.1:0"]);
    let expected = server.client.recommend(&request()).items();
    let body = request().to_string();
    let mut random = moments();
    for _ in 0..rounds(3) {
        server.signal("STOP");
        let waiting: Vec<TcpStream> = (0..random.gen_range(1..60))
            .map(|_| {
                let mut stream = connect(server.client.address);
                stream.write_all(&post("/recommend", body.as_bytes())).unwrap();
                stream
            })
            .collect();
        server.signal("CONT");
        for mut stream in waiting {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            let reply = RawReply::parse(&bytes).expect("an answer");
            let answer: Value = serde_json::from_slice(&reply.body).unwrap();
            let items: Vec<&str> =
                answer["items"].as_array().unwrap().iter().map(|item| item["item"].as_str().unwrap()).collect();
            assert_eq!((reply.status, items), (200, expected.iter().map(String::as_str).collect()));
        }
        assert_eq!(server.client.get("/readyz").status, 200);
    }
}

/// Compiles a source of the fixtures to a library for LD_PRELOAD.
pub(crate) fn compile(source: &str, library: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(source);
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source).status();
    assert!(compiled.unwrap().success());
}

/// The wall clock steps by years and back while requests wait and versions are loaded.
#[test]
fn a_wall_clock_that_steps_costs_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let [root, library, offset, log] =
        ["small", "clock_offset.so", "offset", "log"].map(|name| directory.path().join(name));
    publish(&root, 1);
    compile("clock_offset.c", &library);
    let step = |seconds: i64| {
        let file = fs::File::options().create(true).truncate(false).write(true).open(&offset).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_le_bytes(), 0).unwrap();
    };
    step(0);
    let mut binary = canet(&[]);
    binary.env("LD_PRELOAD", &library).env("CLOCK_OFFSET_FILE", &offset);
    let server = Process::serve_by(binary, &root, &["--answer-log", log.to_str().unwrap()]);
    let expected = server.client.recommend(&request()).items();
    let year = || server.client.get("/healthz").header("date").split(' ').nth(3).unwrap().parse::<i64>().unwrap();
    let now = year();
    for _ in 0..rounds(1) {
        for years in [1, -20, 30, -1] {
            let mut waiting = connect(server.client.address);
            let bytes = post("/recommend", request().to_string().as_bytes());
            waiting.write_all(&bytes[..bytes.len() / 2]).unwrap();
            step(years * 31_557_600);
            waiting.write_all(&bytes[bytes.len() / 2..]).unwrap();
            let mut answer = Vec::new();
            waiting.read_to_end(&mut answer).unwrap();
            assert_eq!(RawReply::parse(&answer).map(|reply| reply.status), Some(200), "{years} years");
            assert_eq!(server.client.recommend(&request()).items(), expected, "{years} years");
            assert_eq!(server.client.post("/admin/reload", &json!({})).status, 200, "{years} years");
            assert_eq!(server.client.get("/readyz").status, 200, "{years} years");
            assert_eq!(server.client.get("/metrics").status, 200, "{years} years");
        }
        // The server writes the date anew every second, so it saw one of the steps.
        step(100 * 31_557_600);
        while year() < now + 99 {}
        step(0);
    }
}

/// Requests of one connection that wait for no answer come back in their order.
#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let server = Process::serve(&root, &[]);
    let counts: Vec<usize> = (0..100).map(|number| 1 + number * 7 % 30).collect();
    let requests: Vec<u8> = counts
        .iter()
        .enumerate()
        .flat_map(|(place, k)| {
            let body = json!({"history": [101], "k": k}).to_string();
            let length = body.len();
            // The last one ends the connection. A client that closed its side would count as one that left.
            let connection = if place + 1 == counts.len() { "close" } else { "keep-alive" };
            let head = format!(
                "POST /recommend HTTP/1.1\r\nhost: localhost\r\nconnection: {connection}\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
            );
            [head, body].concat().into_bytes()
        })
        .collect();
    let mut stream = connect(server.client.address);
    let mut writer = stream.try_clone().unwrap();
    let written = thread::spawn(move || writer.write_all(&requests).unwrap());
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    written.join().unwrap();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while let Some(reply) = RawReply::parse(rest) {
        assert_eq!(reply.status, 200, "{reply:?}");
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4 + reply.body.len();
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        found.push(answer["items"].as_array().unwrap().len());
        rest = &rest[end..];
    }
    assert_eq!(found, counts);
}

/// Clients that reset their connections at every byte of a request, and while it is answered.
#[test]
fn connections_that_are_reset_at_any_byte_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let server = Process::serve(&root, &[]);
    let descriptors = || server.descriptors().len();
    // What stays open for good is open now.
    assert_eq!(server.client.recommend(&request()).status, 200);
    let before = descriptors();
    let request_bytes = post("/recommend", request().to_string().as_bytes());
    for _ in 0..rounds(1) {
        for length in 0..=request_bytes.len() {
            let mut stream = connect(server.client.address);
            stream.write_all(&request_bytes[..length]).unwrap();
            // Not read: the system resets the connection if there is an answer, and closes it if there is none.
            reset(stream);
        }
    }
    // Some connections may not be accepted yet, so neither descriptors nor requests tell the end alone.
    let began = Instant::now();
    let in_flight = || super::server::metric(&server.client.get("/metrics").text, "requests_in_flight");
    loop {
        let (open, asked) = (descriptors(), in_flight());
        if open <= before && asked == 0.0 {
            break;
        }
        assert!(began.elapsed() < HANGS, "{open} descriptors, {before} before; {asked} requests in flight");
    }
    assert_eq!(server.client.recommend(&request()).status, 200);
}

/// Closes a connection with a reset.
fn reset(stream: TcpStream) {
    let socket = tokio::net::TcpSocket::from_std_stream(stream);
    socket.set_zero_linger().unwrap();
}

#[test]
fn a_server_without_descriptors_answers_again_as_soon_as_it_has_some() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_canet")]);
    let server = Process::serve_by(limited, &root, &[]);
    let expected = server.client.recommend(&request()).items();
    for _ in 0..rounds(2) {
        let idle: Vec<TcpStream> = (0..200).map(|_| connect(server.client.address)).collect();
        // They wait in the system's queue, or are closed for others.
        drop(idle);
        let reply = Client::new(server.client.address).recommend(&request());
        assert_eq!((reply.status, reply.items()), (200, expected.clone()));
        assert_eq!(server.client.post("/admin/reload", &json!({})).status, 200);
    }
}

/// Kills a run at random moments until it ends, and compares what it wrote with an unbroken run.
#[cfg(feature = "libtorch")]
#[test]
fn a_training_that_is_killed_at_random_moments_comes_to_the_same_weights() {
    use std::io::{BufRead, BufReader};

    use super::train_command::{finish, ring, train};

    let flags = ["--preset", "utility", "--epochs", "2", "--settle-epochs", "1", "--newest-epochs", "1"];
    let directory = tempfile::tempdir().unwrap();
    let data = ring(directory.path());
    let (straight, broken) = (directory.path().join("straight"), directory.path().join("broken"));
    let said = String::from_utf8(finish(train(&data, &straight, &flags)).stderr).unwrap().lines().count();
    let mut random = moments();
    let mut killed = 0;
    for _ in 0..rounds(3) {
        let mut child = train(&data, &broken, &flags).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // It may say less, because it goes on where it was killed.
        let _ = lines.nth(random.gen_range(0..said));
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().signal() == Some(9));
        if broken.join("1").exists() {
            assert_whole(&broken);
            break;
        }
    }
    println!("killed {killed} times");
    if !broken.join("1").exists() {
        finish(train(&data, &broken, &flags));
    }
    let weights = |out: &Path| ModelDirectory::open(out).unwrap().load(Some(1)).unwrap().weights;
    assert_eq!(weights(&broken), weights(&straight));
}
