//! A candidate beside the live version: whom it answers, and how it starts and ends while requests go on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use canet_api::proto::canet::v1 as proto;
use canet_domain::History;
use canet_model::Model;
use canet_model::checkpoint::{Checkpoint, CheckpointDraft};
use canet_serving::Generation;
use serde_json::{Value, json};

use super::damaged::truncate;
use super::grpc_client::Grpc;
use super::server::{Client, POLICY, Process, Reply, Server, canet, numbered, run};
use super::support::{Stop, draft, item, reference, small_config};

fn good(seed: u64) -> CheckpointDraft {
    numbered(draft(small_config(), seed))
}

/// A model with as many versions as there are seeds.
fn model(directory: &Path, seeds: &[u64]) -> (PathBuf, Vec<Checkpoint>) {
    let root = directory.join("small");
    let checkpoints = seeds.iter().map(|seed| good(*seed).write(&root).unwrap()).collect();
    (root, checkpoints)
}

/// The version that answers each of the users `0..count`.
fn versions(client: &Client, count: usize) -> Vec<u64> {
    let users: Vec<usize> = (0..count).collect();
    let ask = |users: &[usize]| -> Vec<u64> {
        let rows: Vec<Value> = users.iter().map(|user| json!({"history": [101], "user": user, "k": 1})).collect();
        let answer = client.post("/recommend/batch", &json!({"requests": rows}));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let results = answer["results"].as_array().unwrap();
        results.iter().map(|result| result["model"]["version"].as_u64().unwrap()).collect()
    };
    users.chunks(1000).flat_map(ask).collect()
}

/// How many of `versions` are `version`.
fn count(versions: &[u64], version: u64) -> usize {
    versions.iter().filter(|found| **found == version).count()
}

fn assert_within_binomial_bounds(found: usize, rows: usize, share: f64) {
    let (mean, sd) = (rows as f64 * share, (rows as f64 * share * (1.0 - share)).sqrt());
    assert!((found as f64 - mean).abs() < 4.0 * sd, "{found} of {rows} at {share}");
}

/// The problem's code of an operator's call that is refused with 409.
fn conflict(reply: &Reply) -> String {
    assert_eq!((reply.status, &reply.json()["code"]), (409, &json!("conflict")), "{reply:?}");
    reply.json()["detail"].as_str().unwrap().to_owned()
}

#[test]
fn a_candidate_answers_its_share_of_the_users_and_the_same_ones_on_every_server() {
    let directory = tempfile::tempdir().unwrap();
    let (root, checkpoints) = model(directory.path(), &[3, 4]);
    // The highest version is the candidate, so the other one is live.
    let flags = ["--candidate", "2", "--candidate-share", "0.2"];
    let [server, other] = [0, 1].map(|_| Process::serve(&root, &flags));
    let client = &server.client;
    let sides = versions(client, 4000);
    assert_within_binomial_bounds(count(&sides, 2), 4000, 0.2);
    assert_eq!(count(&sides, 1) + count(&sides, 2), 4000);
    assert_eq!(versions(&other.client, 4000), sides);
    // A single call and another history change nothing, and neither does a number in place of a text.
    for (user, side) in sides.iter().take(100).enumerate() {
        for body in [json!({"history": [105, 106], "user": user.to_string()}), json!({"history": [], "user": user})] {
            assert_eq!(client.recommend(&body).json()["model"]["version"], json!(side), "{body}");
        }
    }
    // Without a user the history decides, and the same one always gets the same version.
    let by_history = |client: &Client| -> Vec<u64> {
        let rows: Vec<Value> = (0..1000).map(|n| json!({"history": [101 + n % 40, 101 + n / 40], "k": 1})).collect();
        let answer = client.post("/recommend/batch", &json!({"requests": rows})).json();
        let results = answer["results"].as_array().unwrap();
        results.iter().map(|result| result["model"]["version"].as_u64().unwrap()).collect()
    };
    let found = by_history(client);
    assert_within_binomial_bounds(count(&found, 2), 1000, 0.2);
    assert_eq!(by_history(&other.client), found);

    // Descriptions and metrics tell the two apart.
    let described = client.get("/model").json();
    assert_eq!([&described["version"], &described["candidate"]["version"]], [1, 2]);
    assert_eq!(described["candidate"]["share"], json!(0.2));
    assert_eq!(described["candidate"]["digest"], json!(checkpoints[1].digest));
    let routes = client.get("/routes").json();
    let rows = |routes: &Value| -> u64 {
        routes["routes"].as_array().unwrap().iter().map(|route| route["rows"].as_u64().unwrap()).sum()
    };
    assert_eq!(routes["candidate"]["version"], 2);
    let singles = (0..100).filter(|user| sides[*user] == 2).count();
    let expected = count(&sides, 2) + count(&found, 2) + singles;
    assert_eq!(rows(&routes["candidate"]), expected as u64);
    assert_eq!(rows(&routes) + rows(&routes["candidate"]), 4000 + 1000 + 100);
    let scrape = client.get("/metrics").text;
    let counted: f64 = scrape
        .lines()
        .filter(|line| line.starts_with("canet_route_requests_total{") && line.contains("version=\"2\""))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    assert_eq!(counted, expected as f64);
    let share = format!("candidate_share{{digest=\"{}\",version=\"2\"}}", checkpoints[1].digest);
    assert_eq!(client.metric(&share), 0.2);
    let info = format!("model_info{{digest=\"{}\",name=\"small\",version=\"1\"}}", checkpoints[0].digest);
    assert_eq!(client.metric(&info), 1.0);
}

/// The best three items of the full route for a history, by sorting all scores; 101 is item 1.
fn best(checkpoint: &Checkpoint, ids: &[u32]) -> Vec<String> {
    let forward = reference(&checkpoint.config, &checkpoint.weights);
    let items: Vec<_> = ids.iter().map(|id| item(id - 100)).collect();
    let rows = canet_model::Forward::scores(&forward, checkpoint.space.full(), &[&History::new(&items, 12).unwrap()]);
    let scores = rows.unwrap().row(0).unwrap()[1..].to_vec();
    let mut ranked: Vec<(u32, f32)> = (101..).zip(scores).filter(|(id, _)| !ids.contains(id)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked.into_iter().take(3).map(|(id, _)| id.to_string()).collect()
}

#[test]
fn no_request_fails_and_each_gets_its_version_while_candidates_come_and_go() {
    const USERS: usize = 60;
    let directory = tempfile::tempdir().unwrap();
    let (root, checkpoints) = model(directory.path(), &[3, 4, 5]);
    let histories: Vec<Vec<u32>> = (0..10).map(|n| (0..=n).map(|i| 101 + (7 * n + 3 * i) % 40).collect()).collect();
    let expected: Vec<Vec<Vec<String>>> = checkpoints
        .iter()
        .map(|checkpoint| histories.iter().map(|history| best(checkpoint, history)).collect())
        .collect();
    assert!((0..10).all(|n| expected[0][n] != expected[1][n] && expected[1][n] != expected[2][n]));
    let server = Process::serve(&root, &["--version", "1", "--candidate", "2", "--candidate-share", "0.4"]);
    let (stop, answered) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    thread::scope(|scope| {
        for worker in 0..3 {
            let (client, histories, expected, stop, answered) =
                (server.client.clone(), &histories, &expected, &stop, &answered);
            scope.spawn(move || {
                for n in (0..).skip(worker * 3) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (history, user) = (n % 10, n % USERS);
                    let body = json!({"history": histories[history], "user": user, "k": 3, "route": "full"});
                    let reply = client.recommend(&body);
                    assert_eq!(reply.status, 200, "{reply:?}");
                    let version = usize::try_from(reply.json()["model"]["version"].as_u64().unwrap()).unwrap();
                    assert_eq!(reply.items(), expected[version - 1][history], "version {version}");
                    answered[version - 1].fetch_add(1, Ordering::Relaxed);
                    assert_eq!(client.get("/readyz").status, 200);
                }
            });
        }
        let _stop = Stop(&stop);
        let client = &server.client;
        let ordered = |path: &str, body: Value| -> Value {
            let reply = client.post(path, &body);
            assert_eq!(reply.status, 200, "{path} {body}: {reply:?}");
            reply.json()
        };
        // The users whom each version answered when it was the candidate.
        let mut sides: HashMap<u64, Vec<usize>> = HashMap::new();
        let (mut live, mut candidate) = (1, 2);
        for round in 0..50 {
            let found = versions(client, USERS);
            assert!(found.iter().all(|version| [live, candidate].contains(version)));
            let its: Vec<usize> = (0..USERS).filter(|user| found[*user] == candidate).collect();
            assert_eq!(*sides.entry(candidate).or_insert_with(|| its.clone()), its, "version {candidate}");
            let third = 6 - live - candidate;
            if round % 2 == 0 {
                assert_eq!(ordered("/admin/promote", json!({"version": candidate}))["version"], candidate);
                live = candidate;
            } else {
                if round % 10 == 1 {
                    // The live version is replaced beside the candidate.
                    assert_eq!(ordered("/admin/reload", json!({"version": third}))["version"], third);
                    live = third;
                }
                assert_eq!(ordered("/admin/withdraw", json!(null))["version"], live);
            }
            assert_eq!(versions(client, USERS), vec![live; USERS]);
            candidate = if live == 3 { 1 } else { live + 1 };
            let offered = ordered("/admin/candidate", json!({"version": candidate, "share": 0.4}));
            assert_eq!((&offered["version"], &offered["share"]), (&json!(candidate), &json!(0.4)));
        }
        assert_eq!(sides.len(), 3);
        assert!(sides.values().all(|side| (10..40).contains(&side.len())), "{sides:?}");
    });
    assert!(answered.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{answered:?}");
    let scrape = server.client.get("/metrics").text;
    for line in scrape.lines().filter(|line| line.starts_with("canet_rejected_total{")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn orders_that_do_not_fit_what_serves_are_refused_and_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (root, _) = model(directory.path(), &[3, 4, 5]);
    truncate(&root.join("3"));
    let server = Process::serve(&root, &["--version", "1", "--candidate-share", "0.3"]);
    let post = |path: &str, body: Value| server.client.post(path, &body);
    for path in ["/admin/promote", "/admin/withdraw"] {
        assert!(conflict(&post(path, json!(null))).contains("there is no candidate"));
    }
    assert!(conflict(&post("/admin/candidate", json!({"version": 1}))).contains("version 1 is the live one"));
    assert_eq!(post("/admin/candidate", json!({"version": 9})).status, 404);
    // The highest is the one that lacks half of its weights.
    let refused = post("/admin/candidate", json!({}));
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("checkpoint_rejected")), "{refused:?}");
    for (body, field) in [
        (json!({"version": 2, "share": 0}), "share"),
        (json!({"version": 2, "share": 1.5}), "share"),
        (json!({"version": -2}), "version"),
        (json!({"user": 2}), "user"),
    ] {
        let refused = post("/admin/candidate", body);
        assert_eq!((refused.status, &refused.json()["field"]), (422, &json!(field)), "{refused:?}");
    }
    assert_eq!(server.client.get("/model").json()["candidate"], Value::Null);

    // The server's own share, and then another one.
    assert_eq!(post("/admin/candidate", json!({"version": 2})).json()["share"], json!(0.3));
    let before = versions(&server.client, 500);
    let loads = server.client.metric("reload_total{outcome=\"served\"}");
    assert_eq!(post("/admin/candidate", json!({"share": 0.6})).json()["version"], json!(2));
    let after = versions(&server.client, 500);
    assert_within_binomial_bounds(count(&after, 2), 500, 0.6);
    assert!(before.iter().zip(&after).all(|(before, after)| *before == 1 || *after == 2), "a user left the candidate");
    assert_eq!(server.client.metric("reload_total{outcome=\"served\"}"), loads);
    // Without a share, the candidate keeps its own.
    assert_eq!(post("/admin/candidate", json!({"version": 2})).json()["share"], json!(0.6));

    let busy = conflict(&post("/admin/candidate", json!({"version": 3})));
    assert!(busy.contains("version 2 is the candidate, not version 3"), "{busy}");
    assert!(conflict(&post("/admin/promote", json!({"version": 3}))).contains("version 2 is the candidate"));
    assert!(conflict(&post("/admin/withdraw", json!({"version": 1}))).contains("version 2 is the candidate"));
    assert!(conflict(&post("/admin/reload", json!({"version": 2}))).contains("promote it with POST /admin/promote"));
    // The highest version but the candidate is still the broken one.
    assert_eq!(post("/admin/reload", json!({})).json()["code"], json!("checkpoint_rejected"));
    assert_eq!(versions(&server.client, 500), after);
    assert_eq!(post("/admin/withdraw", json!({"version": 2})).json()["version"], json!(1));
    assert_eq!(count(&versions(&server.client, 500), 1), 500);
    assert!(!server.client.get("/metrics").text.contains("canet_candidate_share{"));
}

#[test]
fn a_bad_candidate_stops_no_server_and_a_wrong_flag_does() {
    let directory = tempfile::tempdir().unwrap();
    let (root, _) = model(directory.path(), &[3, 4]);
    truncate(&root.join("2"));
    let server = Process::launch(&root, &["--candidate", "2", "--candidate-share", "1"]);
    let line = server.log_line("there is no candidate: the live version answers everybody");
    assert!(line.contains("weights.safetensors"), "{line}");
    server.log_line("ready");
    assert_eq!(versions(&server.client, 10), [1; 10]);
    assert_eq!(server.client.metric("reload_total{outcome=\"incomplete\"}"), 1.0);
    for (flags, code, word) in [
        (&["--candidate", "1", "--version", "1"][..], 64, "--candidate 1 is the version of --version"),
        (&["--candidate", "1", "--candidate-share", "0"], 64, "--candidate-share"),
        (&["--watch", "--max-regression", "1"], 64, "--max-regression"),
        (&["--max-regression", "0.1"], 64, "--max-regression is about versions that --watch finds"),
        (&["--watch-interval", "1"], 64, "--watch-interval is about versions that --watch finds"),
    ] {
        let mut command = canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--model"]);
        let (found, log) = run(command.arg(&root).args(flags));
        assert!(found == Some(code) && log.contains(word), "{flags:?} {found:?}: {log}");
    }
    std::fs::remove_dir_all(root.join("2")).unwrap();
    let mut command = canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--candidate", "1", "--model"]);
    let (found, log) = run(command.arg(&root));
    assert!(found == Some(65) && log.contains("there is no other version"), "{found:?}: {log}");
}

#[test]
fn a_candidate_that_is_still_being_copied_becomes_the_candidate_and_never_the_live_version() {
    let directory = tempfile::tempdir().unwrap();
    let (root, _) = model(directory.path(), &[3, 4]);
    good(5).write(&directory.path().join("made")).unwrap();
    let (from, to) = (directory.path().join("made/1"), root.join("3"));
    let flags = ["--watch", "--watch-interval", "0.1", "--candidate", "3", "--candidate-share", "0.4"];
    let server = Process::launch(&root, &flags);
    let line = server.log_line("there is no candidate: the live version answers everybody");
    server.log_line("ready");
    assert!(line.contains("there is no version 3") && line.contains("POST /admin/candidate"), "{line}");
    let counted = |outcome: &str| server.client.metric(&format!("reload_total{{outcome=\"{outcome}\"}}"));
    assert_eq!([counted("missing"), counted("served")], [1.0, 1.0]);

    std::fs::create_dir(&to).unwrap();
    let copy = |name: &str| std::fs::copy(from.join(name), to.join(name)).map(drop).unwrap();
    ["canet.json", "items.tsv", "probes.safetensors"].into_iter().for_each(copy);
    let whole = std::fs::read(from.join("weights.safetensors")).unwrap();
    std::fs::write(to.join("weights.safetensors"), &whole[..whole.len() / 2]).unwrap();
    server.log_line("the version is incomplete: the server keeps the model that it has");
    assert_eq!(versions(&server.client, 10), [2; 10]);
    // Who names no version does not mean it.
    assert_eq!(server.client.post("/admin/reload", &json!({})).json()["version"], 2);
    server.signal("HUP");
    // The call and the signal.
    for _ in 0..2 {
        server.log_line("version=2 digest=");
    }
    // Meanwhile the watch follows the other versions.
    assert_eq!(good(6).write(&root).unwrap().version, 4);
    server.log_line("version=4 digest=");
    assert_eq!(versions(&server.client, 10), [4; 10]);
    assert_eq!(counted("incomplete"), 1.0);

    std::fs::write(to.join("weights.safetensors"), whole).unwrap();
    server.log_line("the candidate answers its share of the users");
    let described = server.client.get("/model").json();
    assert_eq!((&described["version"], &described["candidate"]["version"]), (&json!(4), &json!(3)));
    assert_eq!(described["candidate"]["share"], json!(0.4));
    assert_within_binomial_bounds(count(&versions(&server.client, 1000), 3), 1000, 0.4);
    // Start, call, signal, watch, candidate.
    assert_eq!([counted("served"), counted("incomplete"), counted("rejected")], [5.0, 1.0, 0.0]);
    assert_eq!(server.client.post("/admin/withdraw", &json!({"version": 3})).status, 200);
    assert_eq!(versions(&server.client, 10), [4; 10]);
}

#[test]
fn a_watch_leaves_a_candidate_alone_and_never_loads_one_that_was_withdrawn() {
    let directory = tempfile::tempdir().unwrap();
    let (root, _) = model(directory.path(), &[3, 4]);
    let flags = ["--watch", "--watch-interval", "0.1", "--candidate", "2", "--candidate-share", "0.5"];
    let server = Process::serve(&root, &flags);
    let ordered = |path: &str, body: Value| server.client.post(path, &body).json()["version"].clone();
    // For ten looks of the watch nobody gets a version.
    let stays_out = |version: u64| {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            let answered = versions(&server.client, 100);
            assert_eq!(count(&answered, version), 0, "{answered:?}");
        }
    };
    // A new version waits until the candidate is decided on.
    good(5).write(&root).unwrap();
    stays_out(3);
    let mixed = versions(&server.client, 100);
    assert_eq!(ordered("/admin/promote", json!(null)), json!(2));
    server.log_line("version=3 digest=");
    assert!(count(&mixed, 3) == 0 && count(&mixed, 2) > 0, "{mixed:?}");
    assert_eq!(versions(&server.client, 10), [3; 10]);
    // A version that comes by an order is no news to the watch, which sees the one after it.
    good(6).write(&directory.path().join("made")).unwrap();
    assert_eq!(ordered("/admin/candidate", json!({"version": 1, "share": 0.5})), json!(1));
    std::fs::rename(directory.path().join("made/1"), root.join("4")).unwrap();
    stays_out(4);
    assert_eq!(ordered("/admin/withdraw", json!(null)), json!(3));
    server.log_line("version=4 digest=");
    good(7).write(&directory.path().join("made")).unwrap();
    assert_eq!(ordered("/admin/candidate", json!({"version": 1})), json!(1));
    std::fs::rename(directory.path().join("made/1"), root.join("5")).unwrap();
    stays_out(5);
    assert_eq!(ordered("/admin/withdraw", json!(null)), json!(4));
    server.log_line("version=5 digest=");
    assert_eq!(versions(&server.client, 10), [5; 10]);
}

/// A server in this process whose version 2 is the candidate of half of the users.
fn split() -> (Server, tempfile::TempDir) {
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let (_, mut checkpoints) = model(directory.path(), &[3, 4]);
    let second = checkpoints.pop().unwrap();
    let forward = Arc::new(reference(&second.config, &second.weights));
    let generation = Generation::new(Model::with_forward(second, forward), POLICY, server.recommender.metrics());
    server.recommender.offer(generation, 0.5).unwrap();
    (server, directory)
}

#[test]
fn every_transport_sends_a_user_to_the_same_version() {
    let (server, _directory) = split();
    let sides = versions(&server.client, 200);
    assert_within_binomial_bounds(count(&sides, 2), 200, 0.5);
    let grpc = Grpc::new(&server.recommender);
    let request = |user: usize| proto::RecommendRequest {
        history: vec!["102".to_owned()],
        user: Some(user.to_string()),
        ..proto::RecommendRequest::default()
    };
    let version = |answer: &proto::RecommendResponse| answer.model.as_ref().unwrap().version;
    let outcome = |result: &proto::RecommendResult| match result.outcome.as_ref().unwrap() {
        proto::recommend_result::Outcome::Recommendation(answer) => version(answer),
        proto::recommend_result::Outcome::Problem(problem) => panic!("{problem:?}"),
    };
    for (user, side) in sides.iter().take(20).enumerate() {
        let answer = grpc.call("canet.v1.Recommender/Recommend", &[], &request(user)).answers;
        assert_eq!(version(&answer[0]), *side, "{user}");
    }
    let requests = || (0..200).map(request).collect();
    let batch = proto::RecommendBatchRequest { requests: requests() };
    let batch = grpc.call::<proto::RecommendBatchResponse>("canet.v1.Recommender/RecommendBatch", &[], &batch);
    assert_eq!(batch.answers[0].results.iter().map(outcome).collect::<Vec<_>>(), sides);
    let stream = proto::RecommendStreamRequest { requests: requests() };
    let stream = grpc.call::<proto::RecommendStreamResponse>("canet.v1.Recommender/RecommendStream", &[], &stream);
    assert_eq!(stream.answers.len(), 200);
    for answer in stream.answers {
        assert_eq!(outcome(answer.result.as_ref().unwrap()), sides[answer.index as usize]);
    }
    let described =
        grpc.call::<proto::GetModelResponse>("canet.v1.Recommender/GetModel", &[], &proto::GetModelRequest {});
    let candidate = described.answers[0].candidate.as_ref().unwrap();
    assert_eq!((candidate.share, candidate.model.as_ref().unwrap().model.as_ref().unwrap().version), (0.5, 2));
}

#[test]
fn an_inference_call_is_split_by_row_and_names_the_version_of_each() {
    let (server, _directory) = split();
    let sides = versions(&server.client, 200);
    let call = |path: &str, users: &[usize]| {
        let users: Vec<String> = users.iter().map(usize::to_string).collect();
        let histories = vec!["[102]"; users.len()];
        let inputs = json!([
            {"name": "history", "datatype": "BYTES", "shape": [users.len()], "data": histories},
            {"name": "user", "datatype": "BYTES", "shape": [users.len()], "data": users},
        ]);
        server.client.post(path, &json!({"inputs": inputs}))
    };
    let infer = "/v2/models/small/infer";
    let everybody: Vec<usize> = (0..200).collect();
    let mixed = call(infer, &everybody).json();
    let listed: Vec<String> = sides.iter().map(u64::to_string).collect();
    assert_eq!((&mixed["model_version"], &mixed["parameters"]["versions"]), (&json!("1"), &json!(listed.join(","))));
    // Each row has the items of its own version.
    let items = mixed["outputs"].as_array().unwrap().iter().find(|output| output["name"] == "items").unwrap();
    let items: Vec<&[Value]> = items["data"].as_array().unwrap().chunks(10).collect();
    for (user, items) in items.iter().take(20).enumerate() {
        assert_eq!(*items, server.client.recommend(&json!({"history": [102], "user": user})).items(), "{user}");
    }
    // Rows of one version need no list.
    for version in [1, 2] {
        let its: Vec<usize> = (0..200).filter(|user| sides[*user] == version).collect();
        let body = call(infer, &its).json();
        assert_eq!((&body["model_version"], &body["parameters"]), (&json!(version.to_string()), &Value::Null));
        // Who names a version gets it, whoever asks.
        let named = call(&format!("/v2/models/small/versions/{version}/infer"), &everybody).json();
        assert_eq!((&named["model_version"], &named["parameters"]), (&json!(version.to_string()), &Value::Null));
        assert_eq!(server.client.get(&format!("/v2/models/small/versions/{version}/ready")).status, 200);
    }
    assert_eq!(server.client.get("/v2/models/small").json()["versions"], json!(["1", "2"]));
    let third = call("/v2/models/small/versions/3/infer", &everybody);
    assert_eq!(third.status, 404);
    assert!(third.text.contains("version 1 and 2 do"), "{third:?}");
}
