//! `/metrics` says exactly what was sent: calls, rows, routes, and floating-point operations.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use canet_domain::BatchBy;
use canet_serving::Limits;
use canet_serving::metrics::{DeviceSeconds, Series};
use serde_json::json;

use super::server::{POLICY, ROOMY, Server, metric};
use super::serving::{Verdict, ask, gated_under, wait_until_queued};
use super::support::{draft, full_size_config, reference, small_config};

/// Series whose value changed, and by how much; times and the process's own are left out.
fn difference(before: &str, after: &str) -> BTreeMap<String, f64> {
    let series = |scrape: &str| -> BTreeMap<String, f64> {
        let lines = scrape.lines().filter_map(|line| line.strip_prefix("canet_")?.rsplit_once(' '));
        let measured = |name: &str| name.contains("seconds") && !name.contains("seconds_count");
        lines
            .filter(|(name, _)| !measured(name) && !name.contains("_bucket"))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    };
    let before = series(before);
    series(after)
        .into_iter()
        .map(|(name, value)| {
            let was = before.get(&name).unwrap_or_else(|| panic!("{name} is new"));
            (name, value - was)
        })
        .filter(|(_, change)| *change != 0.0)
        .collect()
}

/// Multiply-adds of every matrix product of a slice, written out operation by operation; N = 40, ffn = 4h.
pub(crate) fn slice_flops(hidden: u64, layers: u64, embedding: u64, length: u64) -> f64 {
    let mut products = vec![length * embedding * hidden];
    for layer in 1..=layers {
        // The last block needs queries and everything behind them for the last position alone.
        let positions = if layer == layers { 1 } else { length };
        products.push(positions * hidden * hidden);
        products.extend([length * hidden * hidden; 2]);
        products.extend([positions * length * hidden; 2]);
        products.push(positions * hidden * hidden);
        products.extend([positions * hidden * 4 * hidden; 2]);
    }
    products.push(hidden * 41);
    (2 * products.iter().sum::<u64>()) as f64
}

/// The router: width 8, ffn 16, 24 routes.
fn router_flops(length: u64) -> f64 {
    (2 * (2 * length * 8 * 8 + 2 * 8 * 8 + 2 * length * 8 + 2 * 8 * 16 + 8 * 24)) as f64
}

#[test]
fn the_difference_of_two_scrapes_is_what_was_sent_in_a_thousand_calls() {
    let server = Server::start();
    let client = &server.client;
    let before = client.get("/metrics").text;

    let (mut router_count, mut expected_router) = (BTreeMap::<String, f64>::new(), 0.0);
    let (mut executed, mut full) = (BTreeMap::<String, f64>::new(), BTreeMap::<String, f64>::new());
    for n in 0..995_u64 {
        let length = 1 + n % 12;
        let history: Vec<u64> = (0..length).map(|i| 101 + (n + 3 * i) % 40).collect();
        let reply = client.recommend(&json!({"history": history}));
        let route = reply.json()["route"]["name"].as_str().unwrap().to_owned();
        let sizes: Vec<u64> = route.split('-').map(|part| part[1..].parse().unwrap()).collect();
        *router_count.entry(route.clone()).or_default() += 1.0;
        *executed.entry(route.clone()).or_default() += slice_flops(sizes[0], sizes[1], sizes[2], length);
        *full.entry(route).or_default() += slice_flops(12, 4, 10, length);
        expected_router += router_flops(length);
    }
    let overridden = json!({"history": [101, 102, 103], "route": "h8-l2-e6"});
    let batch = json!({"requests": [overridden, overridden, {"history": []}, {"history": [101], "k": 0}]});
    assert_eq!(client.post("/recommend/batch", &batch).status, 200);
    assert_eq!(client.recommend(&overridden).status, 200);
    assert_eq!(client.recommend(&json!({"history": ["stranger"]})).status, 200);
    assert_eq!(client.recommend(&json!({"history": [101], "k": 0})).status, 422);
    assert_eq!(client.get("/nowhere").status, 404);
    // Probes and scrapes do not count.
    client.get("/readyz");
    client.get("/healthz");

    let calls = |endpoint: &str, code: &str| {
        format!("requests_total{{code=\"{code}\",endpoint=\"{endpoint}\",transport=\"http\"}}")
    };
    let durations =
        |endpoint: &str| format!("request_duration_seconds_count{{endpoint=\"{endpoint}\",transport=\"http\"}}");
    let known: u64 = (0..995).map(|n| 1 + n % 12).sum::<u64>() + 3 * 3;
    let mut expected = BTreeMap::from([
        (calls("/recommend", "200"), 997.0),
        (calls("/recommend/batch", "200"), 1.0),
        (calls("/recommend", "422"), 1.0),
        (calls("*", "404"), 1.0),
        (durations("/recommend"), 998.0),
        (durations("/recommend/batch"), 1.0),
        (durations("*"), 1.0),
        ("cold_start_total".to_owned(), 2.0),
        ("history_items_total{known=\"true\"}".to_owned(), known as f64),
        ("history_items_total{known=\"false\"}".to_owned(), 1.0),
        ("router_flops_total".to_owned(), expected_router),
        ("route_requests_total{reason=\"override\",route=\"h8-l2-e6\",version=\"1\"}".to_owned(), 3.0),
        ("stage_duration_seconds_count{stage=\"queue\"}".to_owned(), 998.0),
        ("stage_duration_seconds_count{stage=\"router\"}".to_owned(), 995.0),
        ("stage_duration_seconds_count{stage=\"forward\"}".to_owned(), 998.0),
    ]);
    let mut answered = router_count.clone();
    *answered.entry("h8-l2-e6".to_owned()).or_default() += 3.0;
    let mut by_width = BTreeMap::<String, f64>::new();
    for (route, rows) in &answered {
        *by_width.entry(route.split('-').next().unwrap().to_owned()).or_default() += rows;
    }
    *executed.entry("h8-l2-e6".to_owned()).or_default() += 3.0 * slice_flops(8, 2, 6, 3);
    *full.entry("h8-l2-e6".to_owned()).or_default() += 3.0 * slice_flops(12, 4, 10, 3);
    expected.extend(router_count.iter().map(|(route, count)| {
        (format!("route_requests_total{{reason=\"router\",route=\"{route}\",version=\"1\"}}"), *count)
    }));
    for (name, values) in [
        ("queue_wait_seconds_count{lane", &by_width),
        ("batch_size_sum{lane", &by_width),
        ("executed_flops_total{route", &executed),
        ("full_flops_total{route", &full),
    ] {
        expected.extend(values.iter().map(|(route, value)| (format!("{name}=\"{route}\"}}"), *value)));
    }
    let latency = |route: &String| format!("route_latency_seconds_count{{route=\"{route}\",version=\"1\"}}");
    expected.extend(answered.iter().map(|(route, value)| (latency(route), *value)));

    let after = client.get("/metrics").text;
    let mut found = difference(&before, &after);
    // How many batches the rows made depends on time: two overrides of one call may or may not share one.
    let batches = |name: &str| {
        ["route_forward_seconds_count", "batch_size_count", "batch_release_total", "batch_padding_ratio_count"]
            .iter()
            .any(|kind| name.starts_with(kind))
    };
    found.retain(|name, _| !batches(name));
    assert_eq!(found, expected);
}

#[test]
fn every_series_of_every_route_exists_from_the_start_and_has_a_help_text() {
    let server = Server::start();
    let scrape = server.client.get("/metrics").text;
    for route in server.checkpoint.space.routes() {
        let route = server.checkpoint.space.name(route);
        for series in [
            format!("route_requests_total{{reason=\"router\",route=\"{route}\",version=\"1\"}}"),
            format!("route_requests_total{{reason=\"degraded\",route=\"{route}\",version=\"1\"}}"),
            format!("route_requests_total{{reason=\"fixed\",route=\"{route}\",version=\"1\"}}"),
            format!("route_requests_total{{reason=\"override\",route=\"{route}\",version=\"1\"}}"),
            format!("route_latency_seconds_count{{route=\"{route}\",version=\"1\"}}"),
            format!("route_forward_seconds_count{{route=\"{route}\"}}"),
            format!("executed_flops_total{{route=\"{route}\"}}"),
            format!("shadow_overlap_count{{route=\"{route}\"}}"),
            format!("full_flops_total{{route=\"{route}\"}}"),
            format!("full_seconds_total{{route=\"{route}\"}}"),
            format!("executed_seconds_total{{route=\"{route}\"}}"),
        ] {
            assert_eq!(metric(&scrape, &series), 0.0);
        }
    }
    for lane in ["h4", "h8", "h12"] {
        for family in ["batch_size_count", "queue_depth", "queue_wait_seconds_count"] {
            assert_eq!(metric(&scrape, &format!("{family}{{lane=\"{lane}\"}}")), 0.0);
        }
    }
    for code in [200, 400, 404, 405, 413, 415, 422, 429, 500, 503, 504] {
        for endpoint in ["/recommend", "/recommend/batch", "/v2/models/{name}/infer", "/routes", "*"] {
            let labels = format!("code=\"{code}\",endpoint=\"{endpoint}\",transport=\"http\"");
            assert_eq!(metric(&scrape, &format!("requests_total{{{labels}}}")), 0.0);
        }
    }
    for reason in ["overloaded", "deadline", "cancelled", "unavailable", "failed", "not_finite", "unread"] {
        assert_eq!(metric(&scrape, &format!("rejected_total{{reason=\"{reason}\"}}")), 0.0);
        assert_eq!(metric(&scrape, &format!("version_rejected_total{{reason=\"{reason}\",version=\"1\"}}")), 0.0);
    }
    for reason in ["room", "client_limit", "no_request", "stalled", "flood"] {
        assert_eq!(metric(&scrape, &format!("disconnects_total{{reason=\"{reason}\"}}")), 0.0);
    }
    assert!(scrape.lines().any(|line| line.starts_with("process_resident_memory_bytes ")));
    let helps = scrape.lines().filter(|line| line.starts_with("# HELP canet_")).count();
    let types = scrape.lines().filter(|line| line.starts_with("# TYPE canet_")).count();
    assert!(helps == types && helps >= 15, "{helps} {types}");
    // 24 routes: within the cardinality that the families' documentation states.
    let series = scrape.lines().filter(|line| line.starts_with("canet_")).count();
    let endpoints = scrape.lines().filter(|line| line.starts_with("canet_request_duration_seconds_count{")).count();
    assert!(series < 24 * (40 + 49) + 3 * 33 + endpoints * 36 + 170, "{series}");
}

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    let server = Server::start();
    server.client.recommend(&json!({"history": ["i1"]}));
    let scrape = server.client.get("/metrics").text;
    let check = |text: &str| {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed: `make test` installs it");
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    assert_eq!(check(&scrape), (true, String::new()));
    // It would have said so.
    let (_, said) = check("# TYPE calls counter\ncalls 1\n");
    assert!(said.contains("calls"), "{said}");
}

#[test]
fn saved_time_never_falls_and_losses_are_made_up_for_first() {
    let (metrics, space) = (canet_api::metrics().unwrap(), small_config().check().unwrap());
    let series = Series::new(&metrics, 1, &space, BatchBy::Width);
    let saved = || metric(&metrics.render().unwrap(), "saved_seconds_total{route=\"h4-l1-e6\"}");
    let mut seen = vec![saved()];
    for (full, executed) in [(2.0, 1.0), (1.0, 4.0), (1.0, 0.0), (5.0, 1.0)] {
        series.route(space.smallest()).spent(DeviceSeconds { full, executed });
        seen.push(saved());
    }
    assert_eq!(seen, [0.0, 1.0, 1.0, 1.0, 3.0]);
    // What they are the balance of is all there.
    let scrape = metrics.render().unwrap();
    let [full, executed] =
        ["full", "executed"].map(|kind| metric(&scrape, &format!("{kind}_seconds_total{{route=\"h4-l1-e6\"}}")));
    assert_eq!((full, executed), (9.0, 6.0));
}

#[test]
fn a_reload_forgets_no_loss_and_two_generations_make_up_for_it_together() {
    let (metrics, space) = (canet_api::metrics().unwrap(), small_config().check().unwrap());
    let generation = || Series::new(&metrics, 1, &space, BatchBy::Width);
    let spent = |series: &Series, full: f64, executed: f64| {
        series.route(space.smallest()).spent(DeviceSeconds { full, executed });
        metric(&metrics.render().unwrap(), "saved_seconds_total{route=\"h4-l1-e6\"}")
    };
    let old = generation();
    assert_eq!(spent(&old, 2.0, 1.0), 1.0);
    assert_eq!(spent(&old, 0.0, 3.0), 1.0);
    let new = generation();
    // 3 s are lost: what the new one gains, and the old one's last rows, pay that back.
    assert_eq!(spent(&new, 2.0, 0.0), 1.0);
    assert_eq!(spent(&old, 2.0, 0.0), 2.0);
    assert_eq!(spent(&new, 1.0, 0.0), 3.0);
}

#[test]
fn nothing_waits_in_a_server_whose_device_is_gone() {
    let (server, keeper) = gated_under(POLICY, Limits { max_batch: 1, ..ROOMY });
    let asked: Vec<_> =
        (0..8).map(|_| ask(&server, json!({"history": [101], "route": "full", "timeout_ms": 60_000}))).collect();
    keeper.batch();
    wait_until_queued(&server, 7);
    let depth = || server.client.metric("queue_depth{lane=\"h12\"}");
    // What came while the device was busy goes into its lane before the next batch runs.
    while depth() == 0.0 {
        keeper.open(Verdict::Run);
        keeper.batch();
    }
    keeper.open(Verdict::Panic);
    let statuses: Vec<u16> = asked.into_iter().map(|reply| reply.join().unwrap().status).collect();
    assert!(statuses.contains(&500) && statuses.iter().all(|status| [200, 500, 503].contains(status)), "{statuses:?}");
    while server.client.get("/healthz").status != 503 {
        std::thread::yield_now();
    }
    assert_eq!(depth(), 0.0);
}

#[test]
fn the_time_that_a_small_route_saves_against_the_full_one_is_counted() {
    let draft = draft(full_size_config(500), 3);
    let forward = reference(&draft.config, &draft.weights);
    let server = Server::with(draft, Arc::new(forward), ROOMY);
    let history: Vec<String> = (1001..1051).map(|id| format!("x{id}")).collect();
    let recommend = |route: &str| {
        let reply = server.client.recommend(&json!({"history": history, "route": route, "timeout_ms": 60_000}));
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    let of = |family: &str, route: &str| server.metric(&format!("{family}{{route=\"{route}\"}}"));
    let (small, full) = ("h64-l2-e64", "h128-l8-e128");
    // No route was timed before: the full one's own batches teach what it takes.
    (1..50).for_each(|_| recommend("full"));
    let before = of("full_seconds_total", full);
    recommend("full");
    let predicted = of("full_seconds_total", full) - before;
    // A batch that was held up costs more than it saves, so the balance may fall again.
    let mut best_balance = 0.0_f64;
    for _ in 0..50 {
        recommend("smallest");
        best_balance = best_balance.max(of("full_seconds_total", small) - of("executed_seconds_total", small));
    }
    let assert_close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    assert!(predicted > 0.0);
    // Each call of the small route counts what its row would have taken at the full one.
    assert_close(of("full_seconds_total", small), 50.0 * predicted);
    assert_close(of("saved_seconds_total", small), best_balance);
    for route in [small, full] {
        // No router ran, and each batch was of one route.
        assert_close(of("executed_seconds_total", route), of("route_forward_seconds_sum", route));
    }
}
