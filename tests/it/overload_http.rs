//! More than the server may queue, over HTTP: what is accepted is answered rightly, what is refused says so, and the
//! metrics add up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use canet_model::checkpoint::{BudgetPoint, Calibration, CheckpointDraft};
use canet_serving::{Limits, Policy};
use serde_json::{Value, json};

use super::server::{Client, POLICY, ROOMY, Server, metric, numbered};
use super::support::{draft, reference, small_config};

/// Whatever waits is beyond this: one row may wait and no more.
const NO_QUEUE: Limits = Limits { queue_limit: Duration::from_nanos(1), ..ROOMY };

fn server(limits: Limits) -> Server {
    let draft = numbered(draft(small_config(), 11));
    let forward = reference(&draft.config, &draft.weights);
    Server::with(draft, Arc::new(forward), limits)
}

fn requests() -> Vec<Value> {
    let history = |n: u32| (0..=n % 12).map(|i| 101 + (n * 7 + i * 3) % 40).collect::<Vec<_>>();
    let route = |n| if n % 4 == 0 { "full" } else { "auto" };
    (0..40).map(|n| json!({"history": history(n), "k": 5, "route": route(n)})).collect()
}

/// The same request with hardly any time.
fn hasty(mut request: Value) -> Value {
    request["timeout_ms"] = json!(1);
    request
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|item| item["item"].as_str().unwrap()).collect()
}

/// The sum of the series of a family whose labels have `label` in them.
fn sum(scrape: &str, family: &str, label: &str) -> f64 {
    let series = scrape.lines().filter(|line| line.starts_with(&format!("canet_{family}{{")) && line.contains(label));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[derive(Default)]
struct Counts {
    calls: BTreeMap<u16, usize>,
    /// Rows by status.
    rows: BTreeMap<u16, usize>,
}

/// Sends every request alone and all of them in one call.
fn send(client: &Client, requests: &[Value], alone: &[Value]) -> Counts {
    let mut counts = Counts::default();
    let row = |status: u16, body: &Value, alone: &Value| match status {
        200 => assert_eq!(ids(body), ids(alone)),
        429 => assert_eq!(body["code"], "overloaded"),
        _ => assert_eq!((status, &body["code"]), (504, &json!("deadline_exceeded")), "{body}"),
    };
    for (request, alone) in requests.iter().zip(alone) {
        let reply = client.recommend(request);
        row(reply.status, &reply.json(), alone);
        assert!(reply.status != 429 || reply.header("retry-after") == "1");
        *counts.calls.entry(reply.status).or_default() += 1;
        *counts.rows.entry(reply.status).or_default() += 1;
    }
    let reply = client.post("/recommend/batch", &json!({"requests": requests}));
    assert_eq!(reply.status, 200);
    *counts.calls.entry(200).or_default() += 1;
    let results = reply.json()["results"].as_array().unwrap().clone();
    let mut overloaded = false;
    for (result, alone) in results.iter().zip(alone) {
        let status = result["status"].as_u64().map_or(200, |status| u16::try_from(status).unwrap());
        row(status, result, alone);
        overloaded |= status == 429;
        *counts.rows.entry(status).or_default() += 1;
    }
    assert_eq!(reply.headers.contains_key("retry-after"), overloaded);
    counts
}

#[test]
fn every_row_is_answered_rightly_or_refused_and_the_metrics_add_up() {
    let server = server(NO_QUEUE);
    let requests = requests();
    // An idle server refuses nobody.
    let alone: Vec<Value> = requests.iter().map(|request| server.client.recommend(request).json()).collect();
    let requests: Vec<Value> = requests
        .into_iter()
        .enumerate()
        .map(|(n, request)| if n % 8 == 5 { hasty(request) } else { request })
        .collect();
    let counts: Vec<Counts> = thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (client, recommender) = (server.client.clone(), &server.recommender);
                let (requests, alone) = (&requests, &alone);
                scope.spawn(move || {
                    let rounds = (0..5).map(|_| {
                        let counts = send(&client, requests, alone);
                        assert!(recommender.queued() <= 1);
                        counts
                    });
                    rounds.collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let rows = |status: u16| counts.iter().map(|counts| counts.rows.get(&status).unwrap_or(&0)).sum::<usize>() as f64;
    let calls = |status: u16| counts.iter().map(|counts| counts.calls.get(&status).unwrap_or(&0)).sum::<usize>() as f64;
    let (sent, answered) = (40.0, rows(200));
    assert_eq!(answered + rows(429) + rows(504), 8.0 * 5.0 * 2.0 * sent);
    assert!(rows(429) > 0.0);
    // A row that was late for its client may still be on its way through the executor.
    while server.recommender.queued() > 0 {
        thread::yield_now();
    }

    let scrape = server.client.get("/metrics").text;
    assert_eq!(metric(&scrape, "rejected_total{reason=\"overloaded\"}"), rows(429));
    assert_eq!(metric(&scrape, "rejected_total{reason=\"deadline\"}"), rows(504));
    assert_eq!(sum(&scrape, "route_requests_total", ""), sent + answered);
    assert_eq!(sum(&scrape, "route_requests_total", "reason=\"degraded\""), 0.0);
    // What ran too late for its client ran all the same.
    let ran = sum(&scrape, "batch_size_sum", "");
    assert!(ran >= sent + answered && ran <= sent + answered + rows(504), "{ran}");
    for code in [200, 429, 504] {
        let counted = super::server::calls(&scrape, "http", &code.to_string());
        assert_eq!(counted, calls(code) + if code == 200 { sent } else { 0.0 });
    }
    assert_eq!(sum(&scrape, "queue_depth", ""), 0.0);
}

#[test]
fn an_idle_server_refuses_no_row_of_a_call() {
    let server = server(NO_QUEUE);
    let requests = requests();
    let results = server.client.post("/recommend/batch", &json!({"requests": requests})).json()["results"].clone();
    for (result, request) in results.as_array().unwrap().iter().zip(&requests) {
        assert_eq!(ids(result), ids(&server.client.recommend(request).json()));
    }
    assert_eq!(server.client.metric("rejected_total{reason=\"overloaded\"}"), 0.0);
}

#[test]
fn under_pressure_a_degrading_server_runs_cheaper_routes_and_says_so() {
    let server = server(Limits { degrade: true, ..NO_QUEUE });
    let space = &server.checkpoint.space;
    let request = json!({"history": [103, 131, 107], "k": 5});
    let chosen = Server::start().client.recommend(&request).json()["route"]["name"].clone();
    assert_ne!(chosen, space.name(space.smallest()));
    // A row that waits is far beyond the limit, so the cap falls for as long as requests come.
    let cost = |name: &Value| {
        let route = space.parse(name.as_str().unwrap()).unwrap();
        server.checkpoint.config.shape().route_flops(space, route, 3)
    };
    let mut degraded = 0.0;
    for sent in 0.. {
        assert!(sent < 1_000_000, "never degraded");
        let answer = server.client.recommend(&request).json();
        if answer["route"]["reason"] == "degraded" {
            degraded += 1.0;
            let route = &answer["route"]["name"];
            assert!(cost(route) < cost(&chosen));
            let named = server.client.recommend(&json!({"history": [103, 131, 107], "k": 5, "route": route})).json();
            assert_eq!(ids(&answer), ids(&named));
            assert_eq!(named["route"]["reason"], "override");
            if route == space.name(space.smallest()) {
                break;
            }
        } else {
            assert_eq!((&answer["route"]["reason"], &answer["route"]["name"]), (&json!("router"), &chosen));
        }
    }
    // What names its route gets it, whatever the pressure.
    let full = server.client.recommend(&json!({"history": [103], "route": "full"})).json();
    assert_eq!((&full["route"]["reason"], &full["compute"]["saved"]), (&json!("override"), &json!(0.0)));
    let scrape = server.client.get("/metrics").text;
    assert_eq!(metric(&scrape, "degraded_total"), degraded);
    assert_eq!(sum(&scrape, "route_requests_total", "reason=\"degraded\""), degraded);
}

#[test]
fn a_calibrated_server_under_pressure_takes_the_bias_of_a_smaller_budget() {
    let only = |route: usize| (0..24).map(|index| if index == route { 1e6 } else { 0.0 }).collect();
    // At the budget 1 the full model alone is chosen; at half of it already the second route: no cap on what routes cost
    // would choose that one.
    let points = [(0.5, 1), (1.0, 23)].map(|(budget, route)| BudgetPoint {
        budget,
        bias: only(route),
        route: None,
        spent: budget,
    });
    let draft = numbered(draft(small_config(), 11));
    let draft = CheckpointDraft { calibration: Some(Calibration { points: points.into() }), ..draft };
    let forward = Arc::new(reference(&draft.config, &draft.weights));
    let policy = Policy { budget: 1.0, ..POLICY };
    let server = Server::under(policy, draft, forward, Limits { degrade: true, ..NO_QUEUE });
    let space = &server.checkpoint.space;
    let taken = || {
        let answer = server.client.recommend(&json!({"history": [103, 131, 107]})).json();
        (answer["route"]["name"].clone(), answer["route"]["reason"].clone())
    };
    let [full, second] = [23, 1].map(|index| json!(space.name(space.routes().nth(index).unwrap())));
    let mut answers = (0..1_000_000).map(|_| taken());
    let first = answers.find(|(_, reason)| reason == "degraded");
    assert_eq!(first, Some((second, json!("degraded"))));
    // Nobody's own choice is touched.
    let own = server.client.recommend(&json!({"history": [103], "route": "full"})).json();
    assert_eq!((&own["route"]["name"], &own["route"]["reason"]), (&full, &json!("override")));
}

#[test]
fn a_server_under_pressure_takes_the_route_of_a_smaller_budget() {
    let point =
        |budget, route: &str| BudgetPoint { budget, bias: vec![0.0; 24], route: Some(route.to_owned()), spent: budget };
    let points = vec![point(0.5, "h8-l2-e10"), point(1.0, "h12-l4-e10")];
    let draft = CheckpointDraft { calibration: Some(Calibration { points }), ..numbered(draft(small_config(), 11)) };
    let forward = Arc::new(reference(&draft.config, &draft.weights));
    let policy = Policy { budget: 1.0, ..POLICY };
    let server = Server::under(policy, draft, forward, Limits { degrade: true, ..NO_QUEUE });
    // A row arrives while another waits as soon as several clients ask.
    let found = AtomicBool::new(false);
    let routes: Vec<Value> = thread::scope(|scope| {
        let ask = || {
            let client = server.client.clone();
            let until = (0..1_000_000).take_while(|_| !found.load(Ordering::Relaxed));
            let routes = until.map(|_| client.recommend(&json!({"history": [103, 131, 107]})).json()["route"].clone());
            routes
                .filter(|route| route["reason"] == "degraded")
                .inspect(|_| found.store(true, Ordering::Relaxed))
                .last()
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().filter_map(|client| client.join().unwrap()).collect()
    });
    assert!(!routes.is_empty());
    // Half of the budget names a route, and less than that leaves the smallest one.
    let cheaper = |route: &Value| route["name"] == "h8-l2-e10" || route["name"] == "h4-l1-e6";
    assert!(routes.iter().all(|route| cheaper(route) && route["confidence"].is_null()), "{routes:?}");
    assert_eq!(metric(&server.client.get("/metrics").text, "router_flops_total"), 0.0);
}
