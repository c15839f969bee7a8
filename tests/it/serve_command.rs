//! `canet serve` as a process: how it starts, refuses to start, and stops.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use canet_model::checkpoint::CheckpointDraft;
use prost::Message;
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;

use super::damaged::{answers_like_another, spoil_value};
use super::grpc_client::frame;
use super::raw::{connect, read_to_close};
use super::server::{Process, canet, numbered, run};
use super::support::{draft, full_size_config, small_config};

fn model(directory: &Path) -> std::path::PathBuf {
    let root = directory.join("small");
    numbered(draft(small_config(), 3)).write(&root).unwrap();
    root
}

/// `canet serve` of a model that must not start.
fn serve(model: &Path) -> Command {
    let mut command = canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--device", "cpu", "--model"]);
    command.arg(model);
    command
}

fn assert_refused(command: &mut Command, code: i32, words: &[&str]) {
    let (found, stderr) = run(command);
    assert_eq!(found, Some(code), "{stderr}");
    let message = stderr.lines().find(|line| line.starts_with("canet: ")).unwrap_or_else(|| panic!("{stderr}"));
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[test]
fn a_served_model_answers_and_its_log_names_the_address() {
    let directory = tempfile::tempdir().unwrap();
    let root = model(directory.path());
    let second = numbered(draft(small_config(), 4));
    second.write(&root).unwrap();
    for (flags, version) in [
        (&[][..], 2),
        (&["--version", "1", "--log-format", "json", "--batch-by", "route", "--executors", "2"][..], 1),
        (&["--batch-by", "all"][..], 2),
    ] {
        let server = Process::serve(&root, flags);
        assert_eq!(server.client.get("/readyz").status, 200);
        let answer = server.client.recommend(&json!({"history": ["101", "102"], "k": 3}));
        assert_eq!((answer.status, answer.items().len()), (200, 3));
        assert_eq!(answer.json()["model"], json!({"name": "small", "version": version}));
    }
}

#[test]
fn the_last_line_of_a_failure_is_in_the_format_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing\n\u{1b}model");
    let mut command = canet(&["serve", "--log-format", "json", "--listen", "127.0.0.1:0", "--grpc", "off", "--model"]);
    let (code, stderr) = run(command.arg(&missing));
    assert_eq!(code, Some(65), "{stderr}");
    let lines: Vec<Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["level"], &last["exit_code"]), (&json!("ERROR"), &json!(65)), "{stderr}");
    assert!(last["message"].as_str().unwrap().contains("missing") && last["timestamp"].is_string(), "{stderr}");
}

#[test]
fn a_budget_moves_the_router_by_the_checkpoints_calibration() {
    use canet_model::checkpoint::{BudgetPoint, Calibration};
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    // A bias that leaves the router one choice: the smallest route at budget 0.1, the full one at 0.8. Between them the
    // bias is interpolated, so that they change places at 0.45; outside the nearest one holds.
    let only = |route: usize| (0..24).map(|index| if index == route { 1e6 } else { 0.0 }).collect();
    let points = [(0.1, 0), (0.8, 23)].map(|(budget, route)| BudgetPoint {
        budget,
        bias: only(route),
        route: None,
        spent: budget,
    });
    let calibration = Some(Calibration { points: points.into() });
    CheckpointDraft { calibration, ..numbered(draft(small_config(), 3)) }.write(&root).unwrap();
    for (budget, route, other_budget, other_route) in [
        ("0.1", "h4-l1-e6", 1.0, "h12-l4-e10"),
        ("1", "h12-l4-e10", 0.05, "h4-l1-e6"),
        ("0.4", "h4-l1-e6", 0.5, "h12-l4-e10"),
    ] {
        let server = Process::serve(&root, &["--flops-budget", budget]);
        let routed = |more: Value| {
            let mut request = json!({"history": [101, 102]});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let taken = server.client.recommend(&request).json()["route"].clone();
            (taken["name"].clone(), taken["reason"].clone())
        };
        assert_eq!(routed(json!({})), (json!(route), json!("router")));
        assert_eq!(routed(json!({"budget": null})), (json!(route), json!("router")));
        // A request's own budget comes before the server's, and a route that it names before both.
        assert_eq!(routed(json!({"budget": other_budget})), (json!(other_route), json!("router")));
        assert_eq!(routed(json!({"budget": other_budget, "route": route})), (json!(route), json!("override")));
        let points = [0.1, 0.8].map(|budget| json!({"budget": budget, "route": null, "spent": budget}));
        let default: f64 = budget.parse().unwrap();
        assert_eq!(server.client.get("/model").json()["budget"], json!({"default": default, "points": points}));
    }
}

#[test]
fn a_budget_whose_calibration_names_a_route_runs_it_without_the_router() {
    use canet_model::checkpoint::{BudgetPoint, Calibration};
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    let only = |route: usize| (0..24).map(|index| if index == route { 1e6 } else { 0.0 }).collect();
    let point = |budget, route: Option<&str>| BudgetPoint {
        budget,
        bias: only(23),
        route: route.map(str::to_owned),
        spent: budget,
    };
    let points = vec![point(0.2, Some("h4-l2-e6")), point(0.6, None), point(0.9, Some("h12-l2-e10"))];
    let draft = CheckpointDraft { calibration: Some(Calibration { points }), ..numbered(draft(small_config(), 3)) };
    draft.write(&root).unwrap();
    let server = Process::serve(&root, &["--flops-budget", "0.3"]);
    let answer = |budget: Value| server.client.recommend(&json!({"history": [101, 102], "budget": budget})).json();
    let reason = |answer: &Value| answer["route"]["reason"].clone();
    for (budget, route) in [(json!(null), "h4-l2-e6"), (json!(0.05), "h4-l2-e6"), (json!(1), "h12-l2-e10")] {
        let fixed = answer(budget);
        assert_eq!((&fixed["route"]["name"], reason(&fixed)), (&json!(route), json!("fixed")));
        assert_eq!(fixed["route"]["confidence"], Value::Null);
        // It costs what the same route costs when a request names it, which runs no router.
        let named = server.client.recommend(&json!({"history": [101, 102], "route": route})).json();
        assert_eq!((&fixed["compute"], &fixed["items"]), (&named["compute"], &named["items"]));
    }
    for budget in [0.6, 0.8] {
        let routed = answer(json!(budget));
        assert_eq!((&routed["route"]["name"], reason(&routed)), (&json!("h12-l4-e10"), json!("router")));
    }
    assert_eq!(server.client.get("/model").json()["budget"]["points"][0]["route"], "h4-l2-e6");
    // Exploring draws a route without the router too.
    let exploring = Process::serve(&root, &["--flops-budget", "0.3", "--explore", "1"]);
    let explored: Vec<Value> =
        (0..20).map(|_| exploring.client.recommend(&json!({"history": [101, 102]})).json()["route"].clone()).collect();
    assert!(
        explored.iter().all(|route| route["reason"] == "explored" && route["confidence"].is_null()),
        "{explored:?}"
    );
    assert!(explored.iter().any(|route| route["name"] != explored[0]["name"]), "{explored:?}");
    // `rank` and `inspect` follow the same policy.
    let interactions = directory.path().join("log.txt");
    std::fs::write(&interactions, "1 101 102\n2 103\n").unwrap();
    let printed = |command: &str, flags: &[&str]| {
        let output = canet(&[command, "--model"]).arg(&root).args(flags).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let rank = printed("rank", &["--data", interactions.to_str().unwrap(), "--device", "cpu"]);
    let lines: Vec<Value> = rank.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line["route"] == "h4-l2-e6"), "{rank}");
    let inspected = printed("inspect", &[]);
    assert!(inspected.contains("0.200 of full, spent 0.200 on validation: h4-l2-e6 for every request"), "{inspected}");
}

#[test]
fn without_a_calibration_a_budget_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::serve(&model(directory.path()), &[]);
    let ask = |budget: Value| server.client.recommend(&json!({"history": [101, 102], "budget": budget})).json();
    assert_eq!(ask(json!(0.01)), ask(json!(null)));
    assert_eq!(ask(json!(1)), ask(json!(null)));
    assert_eq!(server.client.get("/model").json()["budget"], Value::Null);
}

#[test]
fn bad_checkpoints_end_with_65_and_say_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let root = model(directory.path());
    assert_refused(&mut serve(&directory.path().join("nothing")), 65, &["nothing", "no such model directory"]);
    assert_refused(serve(&root).args(["--version", "7"]), 65, &["no version 7"]);

    let weights = root.join("1/weights.safetensors");
    let good = std::fs::read(&weights).unwrap();
    let damage = |bytes: &[u8], words: &[&str]| {
        std::fs::write(&weights, bytes).unwrap();
        assert_refused(&mut serve(&root), 65, words);
    };
    damage(&good[..good.len() / 2], &["weights.safetensors"]);
    let mut flipped = good.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    damage(&flipped, &["weights.safetensors", "sha256"]);
    std::fs::write(&weights, &good).unwrap();
    // A digest that fits: whoever wrote the file wrote the NaN.
    spoil_value(&root.join("1"), "router.head.weight");
    assert_refused(&mut serve(&root), 65, &["router.head.weight", "NaN"]);
    std::fs::remove_file(&weights).unwrap();
    assert_refused(&mut serve(&root), 65, &["weights.safetensors", "missing"]);
}

#[test]
fn a_checkpoint_that_fails_its_probes_is_not_served_and_passes_no_check() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    answers_like_another(numbered(draft(small_config(), 3))).write(&root).unwrap();
    assert_refused(&mut serve(&root), 65, &["small", "version 1", "probe"]);
    assert_refused(canet(&["inspect", "--model"]).arg(&root), 65, &["small", "version 1", "probe"]);
}

#[test]
fn a_port_in_use_or_a_missing_gpu_ends_with_69() {
    let directory = tempfile::tempdir().unwrap();
    let root = model(directory.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = canet(&["serve", "--device", "cpu", "--listen", &address, "--grpc", "off", "--model"]);
    assert_refused(command.arg(&root), 69, &[&address, "in use"]);
    let mut command = canet(&["serve", "--device", "cpu", "--listen", "127.0.0.1:0", "--grpc", &address, "--model"]);
    assert_refused(command.arg(&root), 69, &[&address, "in use", "--grpc off"]);
    let mut command = canet(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--device", "cuda:99", "--model"]);
    assert_refused(command.arg(&root), 69, &["cuda:99"]);
}

#[test]
fn bad_flags_end_with_64() {
    let directory = tempfile::tempdir().unwrap();
    let root = model(directory.path());
    for flags in [
        ["--device", "tpu"],
        ["--max-batch", "0"],
        ["--queue-limit-ms", "0"],
        ["--batch-by", "depth"],
        ["--executors", "0"],
        ["--flops-budget", "1.5"],
        ["--listen", "here"],
        ["--listen", ":8080"],
        ["--listen", "8080"],
        ["--listen", "0.0.0.0"],
        ["--grpc", "there"],
        ["--probe-listen", "http://localhost:8082"],
        ["--drain-timeout", "-1"],
        ["--log", "canet=loud"],
        ["--api-key", ""],
        ["--cors-origin", "https://shop.example/path"],
        ["--max-connections", "0"],
        ["--max-connection-age", "0"],
        ["--tls-cert", "alone.pem"],
    ] {
        let mut command = canet(&["serve", "--model"]);
        let (code, stderr) = run(command.arg(&root).args(flags));
        assert_eq!(code, Some(64), "{flags:?}: {stderr}");
    }
}

#[test]
fn a_stop_under_load_answers_every_accepted_request_and_exits_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::serve(&model(directory.path()), &["--drain-delay", "0.3"]);
    let answered: u64 = thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let client = server.client.clone();
                scope.spawn(move || {
                    let json = [("content-type", "application/json")];
                    let mut answered = 0;
                    loop {
                        match client.try_send("POST", "/recommend", &json, br#"{"history":[101,102,103]}"#) {
                            Ok(reply) => assert_eq!(reply.status, 200, "{reply:?}"),
                            // While draining every answer closes its connection, so what fails is a new one that the
                            // server never took.
                            Err(ureq::Error::ConnectionFailed | ureq::Error::Io(_)) => return answered,
                            Err(error) => panic!("{error}"),
                        }
                        answered += 1;
                    }
                })
            })
            .collect();
        while server.client.calls("http", "200") < 50.0 {}
        server.signal("TERM");
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert!(answered >= 50, "{answered}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_was_sent_before_the_stop_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::serve(&model(directory.path()), &["--drain-delay", "0"]);
    // Half a request is in when the signal comes; the other half follows.
    let mut connection = TcpStream::connect(server.client.address).unwrap();
    let head =
        "POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n";
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(br#"{"history""#).unwrap();
    while server.client.metric("requests_in_flight") < 1.0 {}
    server.signal("INT");
    server.log_line("draining");
    connection.write_all(b":[101]}").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_stop_waits_no_longer_than_the_drain_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::serve(&model(directory.path()), &["--drain-delay", "0", "--drain-timeout", "1"]);
    let mut connection = TcpStream::connect(server.client.address).unwrap();
    let head =
        "POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n";
    connection.write_all(head.as_bytes()).unwrap();
    while server.client.metric("requests_in_flight") < 1.0 {}
    server.signal("TERM");
    // The body may take 30 s.
    server.log_line("the drain timeout passed while requests were still open");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_stop_while_the_model_is_loaded_exits_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Process::launch(&model(directory.path()), &["--drain-delay", "0"]);
    assert_eq!(server.client.get("/healthz").status, 200);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_watch_of_the_health_ends_with_a_stop_while_the_model_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("large");
    // Its 36 routes take a while to warm up.
    numbered(draft(full_size_config(20_000), 3)).write(&root).unwrap();
    // Where something holds the test up the model may be loaded before the signal comes: then it is loaded again.
    assert!(
        (0..20).any(|_| a_stop_ends_the_watch_before_the_load(&root)),
        "the model was always loaded before the stop"
    );
}

/// Whether the model was still being loaded when the signal came.
fn a_stop_ends_the_watch_before_the_load(root: &Path) -> bool {
    // The timeout is longer than the client waits.
    let mut server = Process::launch(root, &["--drain-delay", "0", "--drain-timeout", "60"]);
    let mut watch = connect(server.grpc);
    let message = frame(&HealthCheckRequest::default().encode_to_vec());
    let head = format!(
        "POST /grpc.health.v1.Health/Watch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\n\
         te: trailers\r\ncontent-length: {}\r\n\r\n",
        message.len()
    );
    watch.write_all(&[head.as_bytes(), &message].concat()).unwrap();
    assert!(watch.read(&mut [0; 512]).unwrap() > 0);
    server.signal("TERM");
    let stopping = server.log_line("SIGTERM");
    read_to_close(&mut watch);
    assert_eq!(server.wait().code(), Some(0));
    stopping.contains("before the model was loaded")
}

#[test]
fn a_draining_server_is_not_ready_and_answers_and_a_second_signal_stops_it_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let directory = tempfile::tempdir().unwrap();
    // Longer than anything holds this test up.
    let mut server = Process::serve(&model(directory.path()), &["--drain-delay", "600"]);
    server.signal("TERM");
    server.log_line("draining");
    // It says so a moment before it is.
    while server.client.get("/readyz").status != 503 {}
    assert_eq!(server.client.recommend(&json!({"history": ["101"]})).status, 200);
    server.signal("TERM");
    assert_eq!(server.wait().signal(), Some(15));
}

#[test]
fn a_pinned_route_runs_for_every_request_that_names_none() {
    let directory = tempfile::tempdir().unwrap();
    let root = model(directory.path());
    let server = Process::serve(&root, &["--route", "h8-l2-e6", "--admin-token", "t"]);
    let route = |body: Value| server.client.recommend(&body).json()["route"].clone();
    let fixed = json!({"name": "h8-l2-e6", "reason": "fixed", "confidence": null});
    assert_eq!(route(json!({"history": [101, 102]})), fixed);
    assert_eq!(route(json!({"history": [101], "route": "auto", "budget": 0.9})), fixed);
    // A request's own route wins.
    let named = route(json!({"history": [101], "route": "full"}));
    assert_eq!((&named["name"], &named["reason"]), (&json!("h12-l4-e10"), &json!("override")));
    assert_eq!(server.client.get("/model").json()["fixed_route"], "h8-l2-e6");
    // The answer is that of the route, and no router ran.
    let answer = server.client.recommend(&json!({"history": [101, 102]})).items();
    assert_eq!(answer, server.client.recommend(&json!({"history": [101, 102], "route": "h8-l2-e6"})).items());
    assert_eq!(server.client.metric("router_flops_total"), 0.0);
    assert_eq!(server.client.metric("route_requests_total{reason=\"fixed\",route=\"h8-l2-e6\",version=\"1\"}"), 3.0);

    // A version without the route is refused, and the one that serves goes on.
    let other = canet_model::ModelConfig { hidden: vec![4, 12], ..small_config() };
    numbered(draft(other, 9)).write(&root).unwrap();
    let reload = server.client.send("POST", "/admin/reload", &[("authorization", "Bearer t")], b"");
    assert_eq!((reload.status, reload.json()["code"].as_str()), (422, Some("checkpoint_rejected")), "{reload:?}");
    assert!(reload.text.contains("small, version 2 has no route") && reload.text.contains("h12-l2-e6"), "{reload:?}");
    assert_eq!(route(json!({"history": [101, 102]})), fixed);
    assert_eq!(server.client.metric("reload_total{outcome=\"rejected\"}"), 1.0);
}

#[test]
fn a_route_that_cannot_be_pinned_is_a_wrong_flag() {
    let directory = tempfile::tempdir().unwrap();
    let root = model(directory.path());
    assert_refused(
        serve(&root).args(["--route", "h9-l9-e9"]),
        64,
        &["h9-l9-e9", "full, smallest, h4-l1-e6", "h12-l4-e10"],
    );
    for flags in
        [&["--route", "full", "--flops-budget", "0.5"][..], &["--route", "full", "--degrade"], &["--route", "auto"]]
    {
        let (code, stderr) = run(serve(&root).args(flags));
        assert!(code == Some(64) && stderr.contains("--route"), "{flags:?}: {stderr}");
    }
    assert_eq!(Process::serve(&root, &["--route", "full"]).client.get("/model").json()["fixed_route"], "h12-l4-e10");
}

#[test]
fn a_checkpoint_may_recommend_items_of_the_history() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    CheckpointDraft { exclude_seen: false, ..numbered(draft(small_config(), 3)) }.write(&root).unwrap();
    let server = Process::serve(&root, &[]);
    let history: Vec<u32> = (101..121).collect();
    let items = |more: Value| {
        let mut request = json!({"history": history, "k": 40});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.client.recommend(&request).items().len()
    };
    assert_eq!(
        [items(json!({})), items(json!({"exclude_seen": true})), items(json!({"exclude_seen": false}))],
        [40, 20, 40]
    );
    assert_eq!(server.client.get("/model").json()["exclude_seen"], false);
    let document = server.client.get("/openapi.json").json();
    let default = &document["components"]["schemas"]["RecommendRequest"]["properties"]["exclude_seen"]["default"];
    assert_eq!(*default, json!(false));
    // `canet recommend` leaves the choice to the server unless its flag is given.
    let recommended = |flags: &[&str]| {
        let list = history.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let url = format!("http://{}", server.client.address);
        let output =
            canet(&["recommend", "--url", &url, "--history", &list, "--k", "40", "--json"]).args(flags).output();
        let answer: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        answer["items"].as_array().unwrap().len()
    };
    assert_eq!(
        [recommended(&[]), recommended(&["--include-seen=false"]), recommended(&["--include-seen"])],
        [40, 20, 40]
    );

    let excluding = directory.path().join("excluding");
    numbered(draft(small_config(), 3)).write(&excluding).unwrap();
    let manifest = std::fs::read_to_string(excluding.join("1/canet.json")).unwrap();
    assert!(!manifest.contains("exclude_seen"), "older programs read a checkpoint at its default");
    let served = Process::serve(&excluding, &[]).client.get("/openapi.json").json();
    let default = &served["components"]["schemas"]["RecommendRequest"]["properties"]["exclude_seen"]["default"];
    assert_eq!(*default, json!(true));
}

#[test]
fn budgets_end_where_the_router_spends_no_more() {
    use canet_model::checkpoint::{BudgetPoint, Calibration};
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    let point = |(budget, spent)| BudgetPoint { budget, bias: vec![0.0; 24], route: None, spent };
    let points = [(0.1, 0.1), (0.3, 0.28), (0.6, 0.28), (0.9, 0.28)].map(point);
    let calibration = Some(Calibration { points: points.into() });
    CheckpointDraft { calibration, ..numbered(draft(small_config(), 3)) }.write(&root).unwrap();
    let reachable = [(0.1, 0.1), (0.3, 0.28)];
    let reachable = json!(reachable.map(|(budget, spent)| json!({"budget": budget, "route": null, "spent": spent})));
    let served = Process::serve(&root, &[]).client.get("/model").json();
    assert_eq!(served["budget"]["points"], reachable);
    let inspect = |more: &[&str]| {
        let output = canet(&["inspect", "--model"]).arg(&root).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let table = inspect(&[]);
    assert!(table.contains("0.300 of full, spent 0.280") && table.contains("greater budgets spend no more"), "{table}");
    assert!(!table.contains("0.600 of full"), "{table}");
    let document: Value = serde_json::from_str(&inspect(&["--json"])).unwrap();
    assert_eq!(document["calibration"]["points"].as_array().unwrap().len(), 2);
}
