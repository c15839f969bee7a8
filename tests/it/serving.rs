//! What happens when the device is busy, fails or dies: every request still gets its answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use canet_api::{self, Access};
use canet_domain::{History, Ranked, Route};
use canet_model::{Forward, ForwardError, Model, ModelConfig, Query, Rows};
use canet_serving::metrics::Metrics;
use canet_serving::{BatchTiming, Generation, Limits, Policy, Recommender, RecommenderOptions, Timings};
use serde_json::{Value, json};

use super::server::{HANGS, POLICY, ROOMY, Server, metric, numbered};
use super::support::{Reference, draft, full_size_config, reference, small_config};

/// A forward whose slices wait to be let through, and tell when they began.
struct Gate {
    inner: Reference,
    began: SyncSender<usize>,
    pass: Mutex<Receiver<Verdict>>,
}

#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    Run,
    Fail,
    Panic,
}

/// The test's end of a [`Gate`].
pub(crate) struct Keeper {
    began: Receiver<usize>,
    pass: SyncSender<Verdict>,
}

impl Keeper {
    /// Waits until a batch is at the gate: its size.
    pub(crate) fn batch(&self) -> usize {
        self.began.recv_timeout(HANGS).unwrap()
    }

    pub(crate) fn open(&self, verdict: Verdict) {
        self.pass.send(verdict).unwrap();
    }
}

impl Forward for Gate {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.inner.router_logits(histories)
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.inner.scores(route, histories)
    }

    fn rank(&self, rows: &[(Route, Query<'_>)]) -> Result<Vec<Vec<Ranked>>, ForwardError> {
        // Where the test has ended nobody listens.
        let _ = self.began.send(rows.len());
        match self.pass.lock().unwrap().recv() {
            Ok(Verdict::Fail) => Err(ForwardError::Shape { columns: 0, values: 0 }),
            Ok(Verdict::Panic) => panic!("the device is gone"),
            Ok(Verdict::Run) | Err(_) => self.inner.rank(rows),
        }
    }

    fn shares_layers(&self) -> bool {
        self.inner.shares_layers()
    }

    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn weight_bytes(&self) -> usize {
        self.inner.weight_bytes()
    }
}

fn gated(limits: Limits) -> (Server, Keeper) {
    gated_under(POLICY, limits)
}

pub(crate) fn gated_under(policy: Policy, limits: Limits) -> (Server, Keeper) {
    gated_model(small_config(), policy, limits)
}

fn gated_model(config: ModelConfig, policy: Policy, limits: Limits) -> (Server, Keeper) {
    let draft = numbered(draft(config, 11));
    let (began, begins) = sync_channel(64);
    let (pass, passes) = sync_channel(64);
    let inner = reference(&draft.config, &draft.weights);
    let gate = Gate { inner, began, pass: Mutex::new(passes) };
    (Server::under(policy, draft, Arc::new(gate), limits), Keeper { began: begins, pass })
}

fn request() -> Value {
    json!({"history": [101, 102], "route": "full"})
}

/// Asks on a thread of its own.
pub(crate) fn ask(server: &Server, body: Value) -> thread::JoinHandle<super::server::Reply> {
    let client = server.client.clone();
    thread::spawn(move || client.recommend(&body))
}

/// Waits until `rows` requests are in the server and not refused.
pub(crate) fn wait_until_queued(server: &Server, rows: usize) {
    while server.recommender.queued() < rows {
        thread::yield_now();
    }
}

#[test]
fn requests_that_come_while_the_device_is_busy_share_the_next_batch() {
    let (server, keeper) = gated(ROOMY);
    let first = ask(&server, request());
    assert_eq!(keeper.batch(), 1);
    let rest: Vec<_> = (0..5).map(|_| ask(&server, request())).collect();
    wait_until_queued(&server, 5);
    keeper.open(Verdict::Run);
    assert_eq!(keeper.batch(), 5);
    keeper.open(Verdict::Run);
    let answer = first.join().unwrap().json();
    for reply in rest {
        assert_eq!(reply.join().unwrap().json()["items"][0]["item"], answer["items"][0]["item"]);
    }
    assert_eq!(server.client.metric("batch_size_sum{lane=\"h12\"}"), 6.0);
    assert_eq!(server.client.metric("queue_depth{lane=\"h12\"}"), 0.0);
}

#[test]
fn a_deadline_is_kept_whatever_the_device_does_and_late_work_never_runs() {
    let (server, keeper) = gated(ROOMY);
    let first = ask(&server, request());
    keeper.batch();
    let late = server.client.recommend(&json!({"history": [101], "route": "full", "timeout_ms": 1}));
    assert_eq!((late.status, &late.json()["code"]), (504, &json!("deadline_exceeded")));
    keeper.open(Verdict::Run);
    assert_eq!(first.join().unwrap().status, 200);
    // The next batch holds the next request alone.
    let next = ask(&server, request());
    assert_eq!(keeper.batch(), 1);
    keeper.open(Verdict::Run);
    assert_eq!(next.join().unwrap().status, 200);
    assert_eq!(server.client.metric("rejected_total{reason=\"deadline\"}"), 1.0);
    assert_eq!(server.client.metric("batch_size_sum{lane=\"h12\"}"), 2.0);
}

#[test]
fn a_row_that_cannot_be_in_time_does_not_run_behind_others() {
    // The scheduler predicts at most a microsecond for a FLOP, which is over two minutes for a row of this model. It
    // refuses a row that has less than half of that left. The longest timeout of a request, 60 s, is less.
    let (server, keeper) = gated_model(full_size_config(500), POLICY, ROOMY);
    let history: Vec<u32> = (101..151).collect();
    let current = server.recommender.generation().unwrap();
    let full = current.model.space().full();
    let timed = BatchTiming { flops: current.model.cost(full, history.len()).full, took: Duration::from_secs(3600) };
    let metrics: &Metrics = server.recommender.metrics();
    let slow = Generation::new(current.model.clone(), POLICY, metrics);
    let timings = Timings { router: Vec::new(), routes: vec![(full, timed)] };
    server.recommender.serve(Generation { timings: Some(timings), ..slow });
    let request = || json!({"history": history, "route": "full", "timeout_ms": 60_000});
    // The device is idle: the row is tried, whatever the prediction.
    let first = ask(&server, request());
    assert_eq!(keeper.batch(), 1);
    let rest = [ask(&server, request()), ask(&server, request())];
    wait_until_queued(&server, 2);
    keeper.open(Verdict::Run);
    // So is the last in the lane. The other one is refused long before its time is over.
    assert_eq!(keeper.batch(), 1);
    keeper.open(Verdict::Run);
    let mut statuses = rest.map(|reply| reply.join().unwrap().status);
    statuses.sort_unstable();
    assert_eq!((first.join().unwrap().status, statuses), (200, [200, 504]));
    assert_eq!(server.client.metric("rejected_total{reason=\"deadline\"}"), 1.0);
}

#[test]
fn a_full_queue_refuses_single_and_batch_rows_alike_and_says_when_to_come_back() {
    // Less than anything takes: one row may wait behind the one that runs.
    let (server, keeper) = gated(Limits { queue_limit: Duration::from_nanos(1), ..ROOMY });
    let running = ask(&server, request());
    keeper.batch();
    let waiting = ask(&server, request());
    wait_until_queued(&server, 1);
    let refused = server.client.recommend(&request());
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("overloaded")));
    assert_eq!(refused.header("retry-after"), "1");
    // A row that needs no device is not refused.
    let batch = json!({"requests": [request(), {"history": []}, request()]});
    let reply = server.client.post("/recommend/batch", &batch);
    let results = reply.json()["results"].clone();
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!((&results[0]["status"], &results[2]["code"]), (&json!(429), &json!("overloaded")));
    assert_eq!(results[1]["route"]["reason"], "cold_start");
    keeper.open(Verdict::Run);
    keeper.open(Verdict::Run);
    assert_eq!(running.join().unwrap().status, 200);
    assert_eq!(waiting.join().unwrap().status, 200);
    assert_eq!(server.client.metric("rejected_total{reason=\"overloaded\"}"), 3.0);
    assert_eq!(server.client.calls("http", "429"), 1.0);
}

#[test]
fn a_failing_batch_answers_500_and_the_next_one_runs() {
    let (server, keeper) = gated(ROOMY);
    let first = ask(&server, request());
    keeper.batch();
    keeper.open(Verdict::Fail);
    let failed = first.join().unwrap();
    assert_eq!((failed.status, &failed.json()["code"]), (500, &json!("internal")));
    let second = ask(&server, request());
    keeper.batch();
    keeper.open(Verdict::Run);
    assert_eq!(second.join().unwrap().status, 200);
    assert_eq!(server.client.get("/readyz").status, 200);
}

#[test]
fn a_device_that_fails_batch_after_batch_shows_in_the_probes() {
    let (server, keeper) = gated(ROOMY);
    let run = |verdict: Verdict| {
        let asked = ask(&server, request());
        keeper.batch();
        keeper.open(verdict);
        asked.join().unwrap().status
    };
    let fail = |times: usize| (0..times).for_each(|_| assert_eq!(run(Verdict::Fail), 500));
    fail(15);
    // One that runs in between, and the device is as good as ever.
    assert_eq!(run(Verdict::Run), 200);
    fail(15);
    assert_eq!(["/readyz", "/healthz"].map(|path| server.client.get(path).status), [200, 200]);
    fail(1);
    assert_eq!(["/readyz", "/healthz"].map(|path| server.client.get(path).status), [503, 503]);
    let later = server.client.recommend(&request());
    assert_eq!((later.status, &later.json()["code"]), (503, &json!("unavailable")));
    assert_eq!(server.client.metric("rejected_total{reason=\"failed\"}"), 31.0);
    // What ends the process waits no longer.
    futures_util::FutureExt::now_or_never(server.recommender.died()).unwrap();
}

#[test]
fn a_panic_in_the_executor_hangs_nobody_and_shows_in_the_probes() {
    let (server, keeper) = gated(ROOMY);
    let running = ask(&server, request());
    keeper.batch();
    let waiting = ask(&server, request());
    wait_until_queued(&server, 1);
    keeper.open(Verdict::Panic);
    for reply in [running, waiting] {
        let status = reply.join().unwrap().status;
        assert!(status == 500 || status == 503, "{status}");
    }
    while server.client.get("/healthz").status != 503 {
        thread::yield_now();
    }
    let later = server.client.recommend(&request());
    assert_eq!((later.status, &later.json()["code"]), (503, &json!("unavailable")));
    assert_eq!(server.client.get("/readyz").status, 503);
}

#[test]
fn several_executors_run_batches_at_the_same_time_and_a_panic_in_one_ends_all() {
    let (server, keeper) = gated(Limits { executors: 2, ..ROOMY });
    let first = ask(&server, request());
    assert_eq!(keeper.batch(), 1);
    let second = ask(&server, request());
    // At the gate while the first is there too; the third waits.
    assert_eq!(keeper.batch(), 1);
    let third = ask(&server, request());
    wait_until_queued(&server, 1);
    for _ in 0..3 {
        keeper.open(Verdict::Run);
    }
    for reply in [first, second, third] {
        assert_eq!(reply.join().unwrap().status, 200);
    }
    assert_eq!(keeper.batch(), 1);
    let last = ask(&server, request());
    assert_eq!(keeper.batch(), 1);
    keeper.open(Verdict::Panic);
    assert_eq!(last.join().unwrap().status, 500);
    while server.client.get("/healthz").status != 503 {
        thread::yield_now();
    }
    assert_eq!(server.client.recommend(&request()).status, 503);
}

#[test]
fn a_row_whose_client_left_does_not_run() {
    let (server, keeper) = gated(ROOMY);
    let running = ask(&server, request());
    keeper.batch();
    {
        // Sends a request and hangs up.
        use std::io::Write;
        let body = request().to_string();
        let mut connection = std::net::TcpStream::connect(server.client.address).unwrap();
        let head = "POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length:";
        write!(connection, "{head} {}\r\n\r\n{body}", body.len()).unwrap();
        wait_until_queued(&server, 1);
    }
    while server.client.metric("rejected_total{reason=\"cancelled\"}") < 1.0 {
        thread::yield_now();
    }
    keeper.open(Verdict::Run);
    assert_eq!(running.join().unwrap().status, 200);
    let next = ask(&server, request());
    assert_eq!(keeper.batch(), 1);
    keeper.open(Verdict::Run);
    assert_eq!(next.join().unwrap().status, 200);
}

#[test]
fn while_draining_readiness_is_gone_and_requests_are_answered() {
    let server = Server::start();
    assert_eq!(server.client.get("/readyz").status, 200);
    server.recommender.drain();
    let probe = server.client.get("/readyz");
    assert_eq!((probe.status, &probe.json()["code"]), (503, &json!("unavailable")));
    assert_eq!(server.client.get("/healthz").status, 200);
    let answer = server.client.recommend(&request());
    // Closed by the server in its own time, the connection could swallow the next request.
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
}

#[test]
fn before_a_model_is_loaded_the_server_is_alive_and_not_ready() {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let metrics = Arc::new(canet_api::metrics().unwrap());
        let (recommender, _) = Recommender::start(ROOMY, RecommenderOptions::default(), metrics).unwrap();
        let router = canet_api::app(&recommender, Access::default());
        for (method, path, status) in [
            ("GET", "/healthz", 200),
            ("GET", "/metrics", 200),
            ("GET", "/readyz", 503),
            ("GET", "/model", 503),
            ("GET", "/routes", 503),
            ("GET", "/openapi.json", 503),
            ("GET", "/items?q=1", 503),
            ("POST", "/recommend", 503),
            ("POST", "/recommend", 503),
        ] {
            let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
            let request = request.body(Body::from(r#"{"history": []}"#)).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{path}");
            assert_eq!(response.headers().contains_key("retry-after"), status == 503, "{path}");
        }
        let scrape = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
        let scrape = router.oneshot(scrape).await.unwrap().into_body();
        let scrape = String::from_utf8(axum::body::to_bytes(scrape, 1 << 20).await.unwrap().into()).unwrap();
        assert_eq!(metric(&scrape, "rejected_total{reason=\"unavailable\"}"), 2.0);
    });
}

#[test]
fn answers_follow_the_generation_that_serves() {
    let server = Server::start();
    assert_eq!(server.client.recommend(&request()).json()["model"]["version"], 1);
    let other = numbered(draft(small_config(), 12));
    let forward = reference(&other.config, &other.weights);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("other");
    other.clone().write(&root).unwrap();
    let second = other.write(&root).unwrap();
    let metrics: &Metrics = server.recommender.metrics();
    server.recommender.serve(Generation::new(Model::with_forward(second, Arc::new(forward)), POLICY, metrics));
    let answer = server.client.recommend(&request()).json();
    assert_eq!(answer["model"], json!({"name": "other", "version": 2}));
    let scrape = server.client.get("/metrics").text;
    let serving: Vec<&str> = scrape.lines().filter(|line| line.starts_with("canet_model_info{")).collect();
    assert!(serving.len() == 1 && serving[0].contains("version=\"2\""), "{serving:?}");
}

#[test]
fn a_busy_device_lets_no_row_be_lost_or_answered_twice() {
    let server = Server::start();
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for worker in 0..16 {
            let (client, answered) = (server.client.clone(), &answered);
            scope.spawn(move || {
                for n in 0..25_u32 {
                    let body = json!({"history": [101 + (worker * 25 + n) % 40], "k": 40, "exclude_seen": false});
                    let reply = client.recommend(&body);
                    assert_eq!((reply.status, reply.items().len()), (200, 40));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), 400);
    assert_eq!(server.client.calls("http", "200"), 400.0);
    assert_eq!(server.client.metric("requests_in_flight"), 0.0);
}
