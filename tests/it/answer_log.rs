//! The answer log of the binary, and what `canet eval --answers` makes of it.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::server::{Process, canet, numbered, run};
use super::support::{draft, small_config};

/// A model in a new directory.
fn model(directory: &Path) -> std::path::PathBuf {
    let root = directory.join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    root
}

/// Stops a server, which then writes what it still holds, and reads its answer log.
fn lines(mut server: Process, log: &Path) -> Vec<Value> {
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let mut files: Vec<_> = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    texts.collect::<String>().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_says_what_was_asked_and_answered() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log/answers");
    let server =
        Process::serve(&model(directory.path()), &["--answer-log", log.to_str().unwrap(), "--drain-delay", "0"]);
    let request = json!({"history": [101, "stranger", 102], "k": 3, "user": "ann\n\"1\"", "budget": 0.4});
    let body = request.to_string();
    let headers = [("content-type", "application/json"), ("x-request-id", "mine")];
    let reply = server.client.send("POST", "/recommend", &headers, body.as_bytes());
    let batch =
        json!({"requests": [{"history": []}, {"history": [101], "candidates": [103]}, {"history": [101], "k": 0}]});
    assert_eq!(server.client.post("/recommend/batch", &batch).status, 200);
    let logged = lines(server, &log);
    assert_eq!(logged.len(), 3, "{logged:?}");
    let (one, answer) = (&logged[0], reply.json());
    for (field, expected) in [
        ("request_id", json!("mine")),
        ("row", json!(0)),
        ("user", json!("ann\n\"1\"")),
        ("model", json!("small")),
        ("version", json!(1)),
        ("route", answer["route"]["name"].clone()),
        ("reason", json!("router")),
        ("confidence", answer["route"]["confidence"].clone()),
        ("budget", json!(0.4)),
        ("k", json!(3)),
        ("candidates", json!(false)),
        ("history", json!(2)),
        ("items", json!(reply.items())),
        ("scores", answer["items"].as_array().unwrap().iter().map(|item| item["score"].clone()).collect()),
    ] {
        assert_eq!(one[field], expected, "{field}");
    }
    for time in ["queue_us", "router_us", "forward_us"] {
        assert!(one[time].as_u64().unwrap() <= one["total_us"].as_u64().unwrap(), "{one}");
    }
    assert!(humantime_like(one["time"].as_str().unwrap()));
    let mut rows: Vec<&Value> = logged[1..].iter().collect();
    rows.sort_by_key(|row| row["row"].as_u64());
    assert_eq!(rows[0]["request_id"], rows[1]["request_id"]);
    assert_eq!(
        [&rows[0]["reason"], &rows[0]["route"], &rows[0]["user"], &rows[0]["budget"]],
        [&json!("cold_start"), &json!(null), &json!(null), &json!(null)]
    );
    assert_eq!(
        [&rows[1]["row"], &rows[1]["candidates"], &rows[1]["items"]],
        [&json!(1), &json!(true), &json!(["103"])]
    );
}

/// Whether a text is a time in UTC with milliseconds.
fn humantime_like(text: &str) -> bool {
    let shape: String = text.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[test]
fn files_roll_and_a_sample_keeps_whole_users() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("answers");
    let flags = [
        "--answer-log",
        log.to_str().unwrap(),
        "--answer-log-sample",
        "0.5",
        "--answer-log-size",
        "1",
        "--drain-delay",
        "0",
    ];
    let server = Process::serve(&model(directory.path()), &flags);
    let written = || server.client.metric("answer_log_total{outcome=\"written\"}");
    for round in 0..3 {
        let before = written();
        for user in 0..100 {
            let answer = server.client.recommend(&json!({"history": [101 + round], "user": format!("user {user}")}));
            assert_eq!(answer.status, 200);
        }
        // Each file ends with its first write.
        while written() == before {}
    }
    let mut by_user = std::collections::BTreeMap::<String, u32>::new();
    for line in lines(server, &log) {
        *by_user.entry(line["user"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!((25..=75).contains(&by_user.len()), "{}", by_user.len());
    assert!(by_user.values().all(|lines| *lines == 3), "{by_user:?}");
    assert!(fs::read_dir(&log).unwrap().count() >= 3);
}

#[test]
fn answers_are_judged_by_later_interactions() {
    let directory = tempfile::tempdir().unwrap();
    let (log, data) = (directory.path().join("answers"), directory.path().join("new.csv"));
    let server =
        Process::serve(&model(directory.path()), &["--answer-log", log.to_str().unwrap(), "--drain-delay", "0"]);
    let ask = |user: &str, rest: Value| {
        let mut request = json!({"history": [101], "user": user});
        request.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        server.client.recommend(&request).items()
    };
    let hit = ask("hit", json!({"route": "full", "budget": 0.5}));
    let miss = ask("miss", json!({"route": "full"}));
    ask("superseded", json!({"route": "smallest"}));
    let later = ask("superseded", json!({"route": "smallest"}));
    ask("few", json!({"k": 5}));
    ask("open", json!({}));
    server.client.recommend(&json!({"history": [101]}));
    let logged = lines(server, &log);
    assert_eq!(logged.len(), 7);
    // What happened before an answer does not judge it. The first thing afterwards does.
    let time =
        |user: &str| logged.iter().rfind(|line| line["user"] == user).unwrap()["time"].as_str().unwrap().to_owned();
    let other: Vec<u32> = (101..141).filter(|id| !miss.contains(&id.to_string())).collect();
    let rows = [
        ("hit", "140", "2020-01-01T00:00:00Z".to_owned()),
        ("hit", &hit[1], "2100-01-01T00:00:00Z".to_owned()),
        ("hit", "stranger", "2100-01-02T00:00:00Z".to_owned()),
        ("miss", &other[1].to_string(), "2100-01-01T00:00:00Z".to_owned()),
        ("superseded", &later[0], "2100-01-01T00:00:00Z".to_owned()),
        ("open", &later[0], time("open")),
        ("few", &later[0], "2100-01-01T00:00:00Z".to_owned()),
    ];
    let rows: String = rows.iter().map(|(user, item, time)| format!("{user},{item},{time}\n")).collect();
    fs::write(&data, format!("user,item,timestamp\n{rows}")).unwrap();
    // The server was killed within a line, and standard output was full before.
    let file = fs::read_dir(&log).unwrap().next().unwrap().unwrap().path();
    let (cut, whole) = ("{\"time\":\"2100", fs::read_to_string(&file).unwrap());
    fs::write(&file, format!("{cut}\n\n{whole}{cut}")).unwrap();
    let paths = ["--answers", log.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let output = canet(&["eval", "--json"]).args(paths).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (count, expected) in [
        ("answers", 7),
        ("judged", 3),
        ("without_user", 1),
        ("not_judgeable", 1),
        ("superseded", 1),
        ("open", 1),
        ("cut_lines", 3),
    ] {
        assert_eq!(report[count], expected, "{count}: {report}");
    }
    assert_eq!(report["by_version"].as_array().unwrap().len(), 1);
    let version = &report["by_version"][0];
    assert_eq!([&version["version"], &version["judged"], &version["hits"]], [&json!(1), &json!(3), &json!(2)]);
    let mrr = version["mrr"].as_f64().unwrap();
    assert!((mrr - 1.5 / 3.0).abs() < 1e-12, "{version}");
    let routes: Vec<(&str, u64, u64)> = report["by_route"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rate| (rate["route"].as_str().unwrap(), rate["judged"].as_u64().unwrap(), rate["hits"].as_u64().unwrap()))
        .collect();
    assert_eq!(routes, [("h12-l4-e10", 2, 1), ("h4-l1-e6", 1, 1)]);
    let budgets = report["by_budget"].as_array().unwrap();
    let budgets: Vec<_> = budgets.iter().map(|rate| [&rate["budget"], &rate["judged"], &rate["hits"]]).collect();
    assert_eq!(budgets, [[&json!("0.5"), &json!(1), &json!(1)], [&json!("server's"), &json!(2), &json!(1)]]);
    assert!(report["by_version"][0]["model"] == "small", "{report}");
    // Wilson: 1 of 2.
    let interval = &report["by_route"][0]["interval"];
    assert!(
        (interval[0].as_f64().unwrap() - 0.0945).abs() < 1e-4 && (interval[1].as_f64().unwrap() - 0.9055).abs() < 1e-4
    );
    // The environment may be set for other commands.
    let text = canet(&["eval"]).env("CANET_SEED", "7").args(paths).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("7 answers, 3 judged") && text.contains("h12-l4-e10"), "{text}");
}

#[test]
fn answers_need_times_and_whole_lines_to_be_judged() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (untimed, timed) =
        (write("a.csv", "user,item\nann,101\n"), write("b.csv", "user,item,timestamp\nann,101,1700000000\n"));
    let (bad, empty) = (write("bad.jsonl", "{}\n"), directory.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    let dated = write("dated.csv", "user,item,timestamp\nann,101,2026-03-01\nann,102,2026-03-05\n");
    let line = json!({
        "time": "2026-03-01T10:00:00Z", "user": "ann", "model": "a", "version": 1, "reason": "router", "k": 10,
        "candidates": false, "items": ["101"],
    });
    let answered = write("answered.jsonl", &format!("{line}\n"));
    let judge = |answers: &str, data: &str| run(&mut canet(&["eval", "--answers", answers, "--data", data]));
    for (answers, data, says) in [
        (bad.as_str(), untimed.as_str(), "--time-column"),
        (&bad, &timed, "line 1 is no line of an answer log"),
        (&answered, &dated, "dates without times of day"),
        (empty.to_str().unwrap(), &timed, "there is no .jsonl file"),
        ("nowhere", &timed, "nowhere"),
    ] {
        let (code, said) = judge(answers, data);
        assert!(code == Some(65) && said.contains(says), "{code:?} {said}");
    }
    let (code, said) = run(&mut canet(&["eval", "--data", &timed, "--answers", &bad, "--route", "full"]));
    assert!(code == Some(64) && said.contains("--route cannot be used with --answers"), "{code:?} {said}");
    let (code, said) = run(&mut canet(&["eval", "--data", &timed]));
    assert!(code == Some(64) && said.contains("--model"), "{said}");
}

#[test]
fn a_full_disk_costs_the_log_its_lines_and_no_request_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut binary = canet(&[]);
    binary.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let server = Process::serve_by(binary, &model(directory.path()), &["--answer-log", "-"]);
    while server.client.metric("answer_log_total{outcome=\"failed\"}") < 3.0 {
        assert_eq!(server.client.recommend(&json!({"history": [101]})).status, 200);
    }
    assert!(server.log_line("the answer log cannot be written").contains("lines are dropped"));
    assert_eq!(server.client.get("/readyz").status, 200);
}

#[test]
fn lines_that_nobody_reads_are_dropped_and_no_request_waits() {
    let directory = tempfile::tempdir().unwrap();
    let mut binary = canet(&[]);
    // The pipe stays open and nobody reads it.
    binary.stdout(Stdio::piped());
    let flags = ["--answer-log", "-", "--drain-delay", "0", "--queue-limit-ms", "60000"];
    let mut server = Process::serve_by(binary, &model(directory.path()), &flags);
    let batch = json!({"requests": vec![json!({"history": [101], "k": 39, "user": "x".repeat(200)}); 1024]});
    while server.client.metric("answer_log_total{outcome=\"dropped\"}") < 2000.0 {
        let reply = server.client.post("/recommend/batch", &batch);
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "the process ends although a write does not");
}

#[test]
fn a_directory_that_cannot_be_written_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let model = model(directory.path());
    let flags = ["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--model", model.to_str().unwrap()];
    let (code, said) = run(canet(&flags).args(["--answer-log", file.join("log").to_str().unwrap()]));
    assert!(code == Some(74) && said.contains("--answer-log"), "{code:?} {said}");
}
