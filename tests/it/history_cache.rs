//! The history cache behind the transports: what clients see of it, and what they do not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canet_api::proto::canet::v1 as proto;
use canet_cpu::{CpuBackend, CpuForward, CpuOptions};
use canet_domain::{History, Item};
use canet_model::checkpoint::{CheckpointDraft, ModelDirectory};
use canet_model::{ModelConfig, Positions, Precision};
use canet_serving::{Due, Generation, Loader, Recommender, RecommenderOptions, Reloader, Request};
use serde_json::{Value, json};

use super::grpc_client::Grpc;
use super::server::{POLICY, Process, ROOMY, Server, metric, numbered};
use super::support::{draft, small_config};

/// Windows of up to 12 items start at every fourth item.
fn config() -> ModelConfig {
    ModelConfig { positions: Positions::Relative, history_stride: 4, ..small_config() }
}

fn model(seed: u64) -> CheckpointDraft {
    numbered(draft(config(), seed))
}

/// A server whose cache has so many bytes.
fn server(bytes: usize) -> Server {
    let draft = model(11);
    let options = CpuOptions { history_cache: bytes, ..CpuOptions::fastest(Precision::Fp32, 1) };
    let forward = CpuForward::load(&draft.config, &draft.weights, options).unwrap();
    Server::with(draft, Arc::new(forward), ROOMY)
}

/// A user's items, as ids.
fn ids(count: u32) -> Vec<u32> {
    (0..count).map(|place| 101 + place * 7 % 40).collect()
}

/// The answer without what the cache saved.
fn without_reused(mut answer: Value) -> (Value, u64) {
    let reused = answer["compute"].as_object_mut().unwrap().remove("reused").unwrap();
    (answer, reused.as_u64().unwrap())
}

#[test]
fn a_returning_user_gets_the_same_answers_at_a_lower_cost() {
    let (keeping, plain) = (server(1 << 20), server(0));
    let (mut reused_in_all, mut saved) = (0, Vec::new());
    // Beyond 12 items the window moves at 13, 17 and 21.
    for length in 1..=24 {
        let request = json!({"history": ids(length), "route": "full", "k": 9});
        let [(found, reused), (expected, nothing)] =
            [&keeping, &plain].map(|server| without_reused(server.client.recommend(&request).json()));
        assert_eq!((found, nothing), (expected, 0));
        reused_in_all += reused;
        if reused > 0 {
            saved.push(length);
        }
    }
    let moves = [1, 13, 17, 21];
    assert_eq!(saved, (1..=24).filter(|length| !moves.contains(length)).collect::<Vec<_>>());
    let of_route = |name: &str| keeping.metric(&format!("{name}{{route=\"h12-l4-e10\"}}")) as u64;
    assert_eq!(of_route("reused_flops_total"), reused_in_all);
    let executed = plain.metric("executed_flops_total{route=\"h12-l4-e10\"}") as u64;
    assert_eq!(of_route("executed_flops_total") + reused_in_all, executed);
    assert_eq!(keeping.metric("history_cache_hits_total"), 20.0);
    assert_eq!(keeping.metric("history_cache_misses_total{cause=\"history\"}"), 4.0);
    assert_eq!(keeping.metric("history_cache_entries"), 4.0);
    assert!((1.0..f64::from(1 << 20)).contains(&keeping.metric("history_cache_bytes")));
    assert_eq!(plain.metric("history_cache_bytes"), 0.0);
    // At another width nothing is kept yet.
    let narrow = json!({"history": ids(24), "route": "h8-l4-e10"});
    assert_eq!(keeping.client.recommend(&narrow).json()["compute"]["reused"], 0);
    assert_eq!(keeping.metric("history_cache_misses_total{cause=\"slice\"}"), 1.0);
}

#[test]
fn what_a_request_saves_tells_nothing_about_the_histories_of_other_users() {
    let server = server(1 << 20);
    let reused = |user: Option<&str>, length: u32| {
        let mut request = json!({"history": ids(length), "route": "full"});
        if let Some(user) = user {
            request["user"] = json!(user);
        }
        server.client.recommend(&request).json()["compute"]["reused"].as_u64().unwrap()
    };
    assert_eq!(reused(Some("alice"), 8), 0);
    // The same items, as somebody else and without a user.
    assert_eq!([Some("mallory"), Some("alice "), None].map(|user| reused(user, 8)), [0; 3]);
    assert!([Some("alice"), Some("mallory"), None].iter().all(|user| reused(*user, 9) > 0));
}

#[test]
fn clients_may_leave_out_early_items_over_every_transport() {
    let server = server(1 << 20);
    let grpc = Grpc::new(&server.recommender);
    let all = ids(22);
    let whole = server.client.recommend(&json!({"history": all, "route": "full", "exclude_seen": false})).json();
    let recent = json!({"history": all[7..], "history_start": 7, "route": "full", "exclude_seen": false});
    let answer = server.client.recommend(&recent).json();
    assert_eq!(without_reused(answer.clone()).0, without_reused(whole.clone()).0);
    assert!(answer["compute"]["reused"].as_u64().unwrap() > 0);
    assert_eq!(answer["history"]["used"], 10);
    // Without the field the window is another one.
    let unplaced = server.client.recommend(&json!({"history": all[7..], "route": "full"})).json();
    assert_ne!(unplaced["history"], whole["history"]);

    let message = proto::RecommendRequest {
        history: all[7..].iter().map(u32::to_string).collect(),
        history_start: Some(7),
        route: "full".to_owned(),
        exclude_seen: Some(false),
        ..proto::RecommendRequest::default()
    };
    let mut ended = grpc.call::<proto::RecommendResponse>("canet.v1.Recommender/Recommend", &[], &message);
    let message = ended.answers.pop().unwrap();
    let first = |answer: &Value| answer["items"][0]["item"].clone();
    assert_eq!(json!(message.items[0].item), first(&whole));
    assert_eq!(message.compute.unwrap().reused, answer["compute"]["reused"].as_u64().unwrap());

    let history = json!({"name": "history", "datatype": "BYTES", "shape": [1], "data": [json!(all[7..]).to_string()]});
    let start = |shape: &[usize], data: &[i64]| json!({"name": "history_start", "datatype": "INT64", "shape": shape, "data": data});
    let infer = |inputs: Value| {
        let body = json!({"inputs": inputs, "parameters": {"route": "full", "exclude_seen": false}});
        server.client.post("/v2/models/small/infer", &body)
    };
    let inferred = infer(json!([history, start(&[1], &[7])])).json();
    let items = inferred["outputs"].as_array().unwrap().iter().find(|output| output["name"] == "items").unwrap();
    assert_eq!(items["data"][0], first(&whole));

    for (reply, named) in [
        (infer(json!([history, start(&[2], &[8, 9])])), "2 numbers for 1 rows"),
        (infer(json!([history, start(&[1], &[-1])])), "history_start[0]"),
        (
            server.client.recommend(&json!({"history": [101], "history_start": 1_000_000_001})),
            "`history_start` is 1000000001",
        ),
        (server.client.recommend(&json!({"history": [101], "history_start": -1})), "history_start"),
    ] {
        assert!(matches!(reply.status, 400 | 422) && reply.text.contains(named), "{named}: {reply:?}");
    }
    let optional = server.client.recommend(&json!({"history": [101], "history_start": null}));
    assert_eq!(optional.status, 200);
}

/// A request of a user with so many items for the full route.
fn request(length: u32) -> Request {
    let items: Vec<Item> = ids(length).into_iter().filter_map(|id| Item::new(id - 100)).collect();
    let arrived = Instant::now();
    Request {
        restriction: None,
        history: History::in_window(&items, config().window(), 0).unwrap(),
        k: 5,
        excluded: HashSet::new(),
        candidates: None,
        route: config().check().unwrap().parse("h12-l4-e10"),
        budget: None,
        due: Due { arrived, deadline: arrived + Duration::from_secs(600) },
    }
}

#[test]
fn a_reload_drops_what_belongs_to_the_old_version() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    [3, 4].into_iter().for_each(|seed| drop(model(seed).write(&root).unwrap()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let metrics = Arc::new(canet_api::metrics().unwrap());
    let (recommender, reloader) = runtime.block_on(async {
        let (recommender, _) = Recommender::start(ROOMY, RecommenderOptions::default(), Arc::clone(&metrics)).unwrap();
        let loader = Loader {
            directory: ModelDirectory::open(&root).unwrap(),
            backend: Arc::new(CpuBackend::single_threaded().with_history_cache(1 << 20)),
            policy: POLICY,
            fixed_route: None,
            max_batch: 8,
            metrics: Arc::clone(&metrics),
            gate: None,
        };
        let reloader = Reloader::new(loader, &recommender);
        (recommender, reloader)
    });
    let scrape = |series: &str| metric(&metrics.render().unwrap(), series);
    runtime.block_on(reloader.reload(Some(1))).unwrap();
    let before = recommender.generation().unwrap();
    let ask_on = |generation: &Arc<Generation>, length: u32| {
        let answer = recommender.rank(Arc::clone(generation), request(length));
        (generation.model.version(), runtime.block_on(answer).unwrap().reused)
    };
    let ask = |length| ask_on(&recommender.generation().unwrap(), length);
    assert_eq!(ask(5), (1, 0));
    assert!(ask(6).1 > 0);
    assert_eq!((scrape("history_cache_entries"), scrape("history_cache_hits_total")), (1.0, 1.0));
    runtime.block_on(reloader.reload(Some(2))).unwrap();
    assert_eq!((scrape("history_cache_entries"), scrape("history_cache_bytes")), (0.0, 0.0));
    assert_eq!(ask(7), (2, 0));
    assert!(ask(8).1 > 0);
    assert_eq!((scrape("history_cache_entries"), scrape("history_cache_hits_total")), (1.0, 2.0));
    // A row that still runs on the old version leaves nothing behind.
    assert_eq!(ask_on(&before, 9), (1, 0));
    assert_eq!(scrape("history_cache_entries"), 1.0);
}

#[test]
fn the_binary_says_when_no_histories_can_be_kept() {
    let directory = tempfile::tempdir().unwrap();
    let [relative, newest] = ["relative", "newest"].map(|name| directory.path().join(name));
    model(3).write(&relative).unwrap();
    numbered(draft(small_config(), 3)).write(&newest).unwrap();
    let server = Process::serve(&relative, &[]);
    let reused = |server: &Process, length| {
        let request = json!({"history": ids(length), "route": "full"});
        server.client.recommend(&request).json()["compute"]["reused"].as_u64().unwrap()
    };
    assert_eq!(reused(&server, 4), 0);
    assert!(reused(&server, 5) > 0);
    let server = Process::serve(&relative, &["--history-cache", "0"]);
    assert_eq!([reused(&server, 4), reused(&server, 5)], [0, 0]);
    let server = Process::serve(&newest, &[]);
    // The first load may have said so before anybody read the log.
    assert_eq!(server.client.post("/admin/reload", &json!({})).status, 200);
    server.log_line("no histories are kept");
    assert_eq!([reused(&server, 4), reused(&server, 5)], [0, 0]);
}
