//! Reloads of the running binary: by an operator's call, a signal and a watched directory, while requests go on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use canet_domain::History;
use canet_model::checkpoint::{Checkpoint, CheckpointDraft};
use canet_model::{Forward, ModelConfig, RouterConfig};
use serde_json::{Value, json};

use super::damaged::{answers_like_another, deepen, spoil_value, truncate};
use super::server::{Client, Process, canet, numbered, run};
use super::support::{Stop, draft, item, reference, small_config};

fn good(seed: u64) -> CheckpointDraft {
    numbered(draft(small_config(), seed))
}

fn reload(client: &Client, version: u64) -> super::server::Reply {
    client.post("/admin/reload", &json!({"version": version}))
}

fn version(client: &Client) -> Value {
    client.recommend(&json!({"history": [101]})).json()["model"]["version"].clone()
}

/// The best three items of the full route for a history, by sorting all scores; 101 is item 1.
fn best(forward: &dyn Forward, checkpoint: &Checkpoint, ids: &[u32]) -> Vec<(String, f64)> {
    let items: Vec<_> = ids.iter().map(|id| item(id - 100)).collect();
    let history = History::new(&items, 12).unwrap();
    let rows = forward.scores(checkpoint.space.full(), &[&history]).unwrap();
    let scores = rows.row(0).unwrap()[1..].iter().copied();
    let mut ranked: Vec<(u32, f32)> = (101..).zip(scores).filter(|(id, _)| !ids.contains(id)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.into_iter().take(3).map(|(id, score)| (id.to_string(), f64::from(score))).collect()
}

#[test]
fn no_request_fails_and_no_answer_mixes_generations_while_models_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    let checkpoints = [3, 4].map(|seed| good(seed).write(&root).unwrap());
    for damage in [truncate as fn(&Path), |version| spoil_value(version, "router.head.weight"), deepen] {
        let spoilt = good(5).write(&root).unwrap();
        damage(&root.join(spoilt.version.to_string()));
    }
    answers_like_another(good(3)).write(&root).unwrap();

    let histories: Vec<Vec<u32>> = (0..10).map(|n| (0..=n).map(|i| 101 + (7 * n + 3 * i) % 40).collect()).collect();
    let expected = checkpoints.each_ref().map(|checkpoint| {
        let forward = reference(&checkpoint.config, &checkpoint.weights);
        histories.iter().map(|history| best(&forward, checkpoint, history)).collect::<Vec<_>>()
    });
    assert!((0..10).all(|n| expected[0][n] != expected[1][n]));

    let server = Process::serve(&root, &["--version", "1"]);
    let (stop, answered) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    thread::scope(|scope| {
        for worker in 0..3 {
            let (client, histories, expected, stop, answered) =
                (server.client.clone(), &histories, &expected, &stop, &answered);
            scope.spawn(move || {
                for n in (0..10).cycle().skip(worker * 3) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let reply = client.recommend(&json!({"history": histories[n], "k": 3, "route": "full"}));
                    assert_eq!(reply.status, 200, "{reply:?}");
                    let body = reply.json();
                    let generation = usize::try_from(body["model"]["version"].as_u64().unwrap()).unwrap() - 1;
                    for (found, (id, score)) in body["items"].as_array().unwrap().iter().zip(&expected[generation][n]) {
                        assert_eq!(found["item"], json!(id), "{body}");
                        assert!((found["score"].as_f64().unwrap() - score).abs() < 1e-4, "{body}");
                    }
                    answered[generation].fetch_add(1, Ordering::Relaxed);
                    assert_eq!(client.get("/readyz").status, 200);
                }
            });
        }
        let _stop = Stop(&stop);
        let client = &server.client;
        for round in 0..10 {
            for (bad, status, code, words) in [
                (3, 422, "checkpoint_rejected", "weights.safetensors"),
                (4, 422, "checkpoint_rejected", "NaN"),
                (5, 422, "checkpoint_rejected", "small/5"),
                (6, 422, "checkpoint_rejected", "probe"),
                (9, 404, "not_found", "no version 9"),
            ] {
                let refused = reload(client, bad);
                let body = refused.json();
                assert_eq!((refused.status, &body["code"]), (status, &json!(code)), "{body}");
                assert!(body["detail"].as_str().unwrap().contains(words), "{body}");
            }
            let next = 2 - round % 2;
            let reply = reload(client, next);
            let digest = &checkpoints[next as usize - 1].digest;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.json(), json!({"name": "small", "version": next, "digest": digest}));
            assert_eq!(version(client), json!(next));
        }
    });
    assert!(answered.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{answered:?}");
    let total = |outcome: &str| server.client.metric(&format!("reload_total{{outcome=\"{outcome}\"}}"));
    // The first load is one.
    // The truncated version counts as incomplete.
    assert_eq!(["served", "rejected", "incomplete"].map(total), [11.0, 30.0, 10.0]);
    assert_eq!(["missing", "busy", "failed"].map(total), [10.0, 0.0, 0.0]);
    assert_eq!(server.client.metric("reload_duration_seconds_count"), 11.0);
}

#[test]
fn the_body_of_a_reload_names_a_version_or_means_the_highest() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    for seed in [3, 4] {
        good(seed).write(&root).unwrap();
    }
    let server = Process::serve(&root, &[]);
    let client = &server.client;
    let json = [("content-type", "application/json")];
    for body in ["null", "{}", r#"{"version": null}"#, ""] {
        assert_eq!(reload(client, 1).json()["version"], 1);
        let headers = if body.is_empty() { &[][..] } else { &json };
        let reply = client.send("POST", "/admin/reload", headers, body.as_bytes());
        assert_eq!((reply.status, &reply.json()["version"]), (200, &json!(2)), "{body:?}");
        assert_eq!(version(client), json!(2));
    }
    // The same version again is a reload like any other.
    assert_eq!(reload(client, 2).status, 200);
    for (body, status, field) in [
        (r#"{"version": "1"}"#, 422, json!("version")),
        (r#"{"version": -1}"#, 422, json!("version")),
        (r#"{"colour": 1}"#, 422, json!("colour")),
        ("[1]", 422, Value::Null),
        ("{", 400, Value::Null),
    ] {
        let reply = client.send("POST", "/admin/reload", &json, body.as_bytes());
        assert_eq!((reply.status, &reply.json()["field"]), (status, &field), "{body}");
    }
    assert_eq!(client.send("POST", "/admin/reload", &[], b"{}").status, 415);
    assert_eq!(client.get("/admin/reload").status, 405);
    assert_eq!(reload(client, 0).status, 404);
}

#[test]
fn a_hangup_loads_the_highest_version() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    good(3).write(&root).unwrap();
    let mut server = Process::serve(&root, &["--drain-delay", "0"]);
    good(4).write(&root).unwrap();
    server.signal("HUP");
    server.log_line("version=2 digest=");
    assert_eq!(version(&server.client), json!(2));
    spoil_value(&root.join("2"), "router.head.weight");
    server.signal("HUP");
    server.log_line("no model was loaded");
    assert_eq!(version(&server.client), json!(2));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_watched_directory_serves_each_new_highest_version_that_is_good() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    good(3).write(&root).unwrap();
    let mut server = Process::serve(&root, &["--watch", "--drain-delay", "0"]);
    good(4).write(&root).unwrap();
    server.log_line("version=2 digest=");
    assert_eq!(version(&server.client), json!(2));
    answers_like_another(good(5)).write(&root).unwrap();
    server.log_line("no model was loaded");
    assert_eq!(version(&server.client), json!(2));
    // Back to an older one: the watch lets it be.
    assert_eq!(reload(&server.client, 1).status, 200);
    good(6).write(&root).unwrap();
    server.log_line("version=4 digest=");
    assert_eq!(version(&server.client), json!(4));
    assert_eq!(server.client.metric("reload_total{outcome=\"rejected\"}"), 1.0);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

/// A copy of a version, file by file, in the order of the names. Whatever state the watch tries, it counts nothing as rejected.
#[test]
fn a_version_that_is_copied_in_is_served_when_it_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let (root, made) = (directory.path().join("small"), directory.path().join("made"));
    good(3).write(&root).unwrap();
    good(4).write(&made).unwrap();
    let (from, to) = (made.join("1"), root.join("2"));
    fs::create_dir(&to).unwrap();
    let mut names: Vec<_> = fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let copy = |name: &std::ffi::OsString| fs::copy(from.join(name), to.join(name)).map(drop).unwrap();
    let weights = names.pop().unwrap();
    assert_eq!(weights, "weights.safetensors");
    names.iter().for_each(copy);
    let whole = fs::read(from.join(&weights)).unwrap();
    fs::write(to.join(&weights), &whole[..whole.len() / 2]).unwrap();

    // A server that starts during the copy serves the version before.
    let mut server = Process::serve(&root, &["--watch", "--drain-delay", "0"]);
    assert_eq!(version(&server.client), json!(1));
    let total =
        |server: &Process, outcome: &str| server.client.metric(&format!("reload_total{{outcome=\"{outcome}\"}}"));
    assert_eq!(total(&server, "incomplete"), 1.0);
    // Another half, which the watch may try before the last bytes come.
    fs::write(to.join(&weights), &whole[..whole.len() - 1]).unwrap();
    server.log_line("the version is incomplete: the server keeps the model that it has");
    let refused = server.client.post("/admin/reload", &json!({}));
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("checkpoint_rejected")), "{refused:?}");
    assert!(refused.text.contains("the file ends early"), "{refused:?}");
    fs::write(to.join(&weights), whole).unwrap();
    server.log_line("version=2 digest=");
    assert_eq!(version(&server.client), json!(2));
    assert_eq!(total(&server, "served"), 2.0);
    assert_eq!(total(&server, "rejected"), 0.0);

    // A version without an earlier complete one stops the start.
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    fs::remove_dir_all(root.join("1")).unwrap();
    fs::remove_file(to.join("probes.safetensors")).unwrap();
    let (code, log) = run(canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--model"]).arg(&root));
    assert!(code == Some(65) && log.contains("probes.safetensors: the file is missing"), "{code:?}: {log}");
}

#[test]
fn a_watch_follows_links_and_names_directories_that_are_no_versions() {
    let directory = tempfile::tempdir().unwrap();
    let (root, made) = (directory.path().join("small"), directory.path().join("made"));
    let digests = [3, 4].map(|seed| good(seed).write(&made).unwrap().digest);
    let current = directory.path().join("current");
    symlink(made.join("1"), &current).unwrap();
    fs::create_dir_all(root.join("1")).unwrap();
    for entry in fs::read_dir(made.join("1")).unwrap() {
        let name = entry.unwrap().file_name();
        symlink(current.join(&name), root.join("1").join(&name)).unwrap();
    }
    fs::create_dir(root.join("0002")).unwrap();
    let mut server = Process::serve(&root, &["--watch", "--drain-delay", "0"]);
    assert_eq!(server.client.get("/model").json()["digest"], json!(digests[0]));
    let next = directory.path().join("next");
    symlink(made.join("2"), &next).unwrap();
    fs::rename(&next, &current).unwrap();
    server.log_line(&format!("digest=\"{}\"", digests[1]));
    assert_eq!(server.client.get("/model").json()["digest"], json!(digests[1]));
    fs::create_dir(root.join("v4")).unwrap();
    let line = server.log_line("the directory is ignored");
    assert!(line.contains("v4") && line.contains("a whole number from 1, without leading zeros"), "{line}");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_bad_titles_file_stops_no_server() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    good(3).write(&root).unwrap();
    fs::write(root.join("1/titles.tsv"), "\u{feff}101\tAlpha\n\n102 Beta\n").unwrap();
    let server = Process::serve(&root, &[]);
    assert_eq!(reload(&server.client, 1).status, 200);
    let line = server.log_line("titles are missing");
    assert!(line.contains("titles.tsv: skipped 1 of the lines, the first is line 3: no tab"), "{line}");
    let titled = server.client.get("/items?q=Alpha").text;
    assert!(titled.contains("\"101\"") && titled.contains("Alpha"), "{titled}");
}

#[test]
fn with_a_token_its_bearers_alone_may_reload() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    good(3).write(&root).unwrap();
    let server = Process::serve(&root, &["--admin-token", "open sesame"]);
    let send = |headers: &[(&str, &str)]| server.client.send("POST", "/admin/reload", headers, b"");
    for headers in [
        &[][..],
        &[("authorization", "Bearer open")],
        &[("authorization", "Basic open sesame")],
        &[("authorization", "")],
    ] {
        let refused = send(headers);
        assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("unauthorized")), "{headers:?}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    assert_eq!(send(&[("authorization", "bearer open sesame")]).status, 200);
    assert_eq!(server.client.calls("http", "401"), 4.0);
}

#[test]
fn resident_memory_returns_after_many_reloads() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("large");
    // 20,000 items: 33 MB of weights, so that a generation left behind shows.
    let config = ModelConfig {
        items: 20_000,
        max_len: 20,
        heads: 4,
        hidden: vec![64, 128],
        layers: vec![1, 2],
        embedding: vec![64, 128],
        router: RouterConfig { dim: 32, heads: 4, ffn: 64 },
        ..small_config()
    };
    numbered(draft(config, 3)).write(&root).unwrap();
    // Each thread has memory of its own: on many cores theirs would be more than a generation.
    let server = Process::serve(&root, &["--threads", "1"]);
    let resident = || {
        assert_eq!(version(&server.client), json!(1));
        let scrape = server.client.get("/metrics").text;
        let line = scrape.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
        line.parse::<f64>().unwrap()
    };
    let before = resident();
    for _ in 0..12 {
        assert_eq!(reload(&server.client, 1).status, 200);
    }
    // The reload that replaced the last but one generation waited until the one before was freed; so does this one,
    // which fails and therefore replaces nothing.
    assert_eq!(reload(&server.client, 7).status, 404);
    let after = resident();
    assert!(after < 1.1 * before, "{before} bytes before, {after} after");
}
