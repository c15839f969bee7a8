//! What a version must pass before a watch lets it serve: complete files, and an accuracy near that of the live version.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use canet_model::checkpoint::{CheckpointDraft, MetricsRecord};
use serde_json::json;

use super::server::{Client, Process, canet, numbered, run};
use super::support::{draft, small_config};

fn good(seed: u64) -> CheckpointDraft {
    numbered(draft(small_config(), seed))
}

/// A version whose training measured this NDCG@10 on its validation split.
fn measured(seed: u64, ndcg: f64) -> CheckpointDraft {
    let metrics = |ndcg| Some(BTreeMap::from([("auto.ndcg@10".to_owned(), ndcg), ("full.ndcg@10".to_owned(), 0.5)]));
    // What was measured on the test split plays no part.
    CheckpointDraft { metrics: MetricsRecord { validation: metrics(ndcg), test: metrics(0.9) }, ..good(seed) }
}

fn version(client: &Client) -> u64 {
    client.recommend(&json!({"history": [101]})).json()["model"]["version"].as_u64().unwrap()
}

fn outcome(client: &Client, outcome: &str) -> f64 {
    client.metric(&format!("reload_total{{outcome=\"{outcome}\"}}"))
}

fn root(directory: &Path) -> std::path::PathBuf {
    directory.join("small")
}

#[test]
fn a_watched_version_that_is_worse_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    measured(3, 0.2).write(&root).unwrap();
    let server = Process::serve(&root, &["--watch"]);
    let client = &server.client;
    measured(4, 0.15).write(&root).unwrap();
    let line = server.log_line("the version is refused");
    for words in ["version 2 has a validation NDCG@10 of 0.1500 and version 1", "0.2000", "25.0 % less", "allows 5.0 %"]
    {
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
    assert_eq!((version(client), outcome(client, "regression"), outcome(client, "rejected")), (1, 1.0, 0.0));
    // A little worse is within the share.
    measured(5, 0.195).write(&root).unwrap();
    server.log_line("version=3 digest=");
    // A version that says nothing is refused after one that does.
    good(6).write(&root).unwrap();
    let line = server.log_line("the version is refused");
    assert!(line.contains("version 4 records no validation NDCG@10"), "{line}");
    // Who names no version asks for the highest one, which must pass too.
    let refused = client.post("/admin/reload", &json!({}));
    assert_eq!((refused.status, version(client)), (422, 3));
    assert!(refused.json()["detail"].as_str().unwrap().contains("name it in POST /admin/reload"), "{refused:?}");
    // Another kind of data, or another rule for items of the history, cannot be compared.
    let mut other = measured(7, 0.01);
    other.data.name = "other".to_owned();
    other.data.sha256 = "1".repeat(64);
    other.write(&root).unwrap();
    server.log_line("the recorded accuracies are not comparable");
    server.log_line("version=5 digest=");
    // Who asks for a version gets it.
    assert_eq!(client.post("/admin/reload", &json!({"version": 2})).status, 200);
    assert_eq!((version(client), outcome(client, "regression")), (2, 3.0));
}

#[test]
fn a_server_that_starts_serves_what_one_that_watched_serves() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    for (seed, ndcg) in [(3, 0.1), (4, 0.2), (5, 0.15), (6, 0.05)] {
        measured(seed, ndcg).write(&root).unwrap();
    }
    for (flags, expected, refused) in [
        (&["--watch"][..], 2, 2.0),
        // 0.15 is 25 % less than 0.2.
        (&["--watch", "--max-regression", "0.3"], 3, 1.0),
        (&["--watch", "--max-regression", "off"], 4, 0.0),
        (&["--watch", "--version", "4"], 4, 0.0),
        // Without a watch, the highest version is what was asked for.
        (&[], 4, 0.0),
    ] {
        let server = Process::serve(&root, flags);
        assert_eq!((version(&server.client), outcome(&server.client, "regression")), (expected, refused), "{flags:?}");
    }
}

#[test]
fn a_watching_server_starts_with_the_version_below_a_damaged_one() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    for seed in [3, 4] {
        good(seed).write(&root).unwrap();
    }
    let weights = root.join("2/weights.safetensors");
    let mut damaged = fs::read(&weights).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&weights, damaged).unwrap();
    let server = Process::serve(&root, &["--watch"]);
    assert_eq!((version(&server.client), outcome(&server.client, "rejected")), (1, 1.0));
    // Who does not watch asked for the highest version, and no other one.
    let (code, said) =
        run(&mut canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--model", root.to_str().unwrap()]));
    assert!(code == Some(65) && said.contains("weights.safetensors"), "{code:?} {said}");
}

#[test]
fn a_version_that_does_not_load_refuses_no_other_at_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    for (seed, ndcg) in [(3, 0.2), (4, 0.3), (5, 0.25), (6, 0.05)] {
        measured(seed, ndcg).write(&root).unwrap();
    }
    fs::write(root.join("2/items.tsv"), "cut off").unwrap();
    let server = Process::serve(&root, &["--watch"]);
    let client = &server.client;
    // Version 3 is refused beside version 2, which then does not load. Version 4 is refused beside both, and counted once.
    let counted = ["regression", "incomplete"].map(|name| outcome(client, name));
    assert_eq!((version(client), counted), (3, [2.0, 1.0]));
}

#[test]
fn a_watched_directory_that_is_gone_is_reported_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    good(3).write(&root).unwrap();
    let server = Process::serve(&root, &["--watch"]);
    let aside = directory.path().join("aside");
    fs::rename(&root, &aside).unwrap();
    server.log_line("the watched directory cannot be read");
    assert!(outcome(&server.client, "failed") >= 1.0 && version(&server.client) == 1);
    fs::rename(&aside, &root).unwrap();
    server.log_line("the watched directory can be read again");
}

#[test]
fn a_version_without_metrics_is_held_to_the_flag() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    good(3).write(&root).unwrap();
    let strict = Process::serve(&root, &["--watch", "--max-regression", "0.05"]);
    let [default, off] =
        [&["--watch"][..], &["--watch", "--max-regression", "off"]].map(|flags| Process::serve(&root, flags));
    good(4).write(&root).unwrap();
    strict.log_line("version 2 records no validation NDCG@10");
    for server in [&default, &off] {
        server.log_line("version=2 digest=");
    }
    measured(5, 0.1).write(&root).unwrap();
    for server in [&strict, &default, &off] {
        server.log_line("version=3 digest=");
    }
    good(6).write(&root).unwrap();
    for server in [&strict, &default] {
        server.log_line("version 4 records no validation NDCG@10");
    }
    off.log_line("version=4 digest=");
    assert_eq!([&strict, &default, &off].map(|server| version(&server.client)), [3, 3, 4]);
}

/// A watch tries a version that stood still for so long, even if it is incomplete. It is `STILL` of the server's
/// `watch.rs`.
const STILL: Duration = Duration::from_secs(2);

/// The version never stands still, because its titles change all the time: they have no digest and do not count.
#[test]
fn a_version_is_served_as_soon_as_its_files_have_their_digests() {
    let directory = tempfile::tempdir().unwrap();
    let root = root(directory.path());
    good(3).write(&root).unwrap();
    let made = directory.path().join("made");
    good(4).write(&made).unwrap();
    let server = Process::serve(&root, &["--watch"]);
    let (from, to) = (made.join("1"), root.join("2"));
    let (stop, stopped) = channel::<()>();
    let titles = to.join("titles.tsv");
    let began = Instant::now();
    fs::create_dir(&to).unwrap();
    let copying = thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0.. {
                fs::write(&titles, format!("101\tFilm {n}\n")).unwrap();
                if stopped.recv_timeout(Duration::from_millis(50)) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        for name in ["items.tsv", "canet.json", "probes.safetensors", "weights.safetensors"] {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
        let copying = began.elapsed();
        server.log_line("version=2 digest=");
        drop(stop);
        copying
    });
    assert_eq!(version(&server.client), 2);
    assert_eq!(["rejected", "regression"].map(|name| outcome(&server.client, name)), [0.0; 2]);
    // If something holds the copy up for so long, the watch is right to try the incomplete version.
    assert!(outcome(&server.client, "incomplete") == 0.0 || copying >= STILL, "{copying:?}");
}
