//! The comparison with the full model: what it finds, and that live requests never wait for it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use canet_domain::{History, Route};
use canet_model::{Forward, ForwardError, Rows};
use canet_serving::RecommenderOptions;
use serde_json::json;

use super::server::{Server, ServerOptions, metric, numbered};
use super::serving::wait_until_queued;
use super::support::{Reference, draft, reference, small_config};

/// A forward whose `full` route waits for a word of the test on the executor's thread, and counts its uses on others.
struct Watched {
    inner: Reference,
    live: AtomicUsize,
    aside: AtomicUsize,
    hold: AtomicBool,
    pass: Mutex<Receiver<()>>,
}

impl Forward for Watched {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.inner.router_logits(histories)
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        if thread::current().name() == Some("shadow") {
            self.aside.fetch_add(1, Ordering::SeqCst);
        } else {
            self.live.fetch_add(1, Ordering::SeqCst);
            if self.hold.load(Ordering::SeqCst) {
                // Where the test has ended nobody speaks.
                let _ = self.pass.lock().unwrap().recv();
            }
        }
        self.inner.scores(route, histories)
    }

    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn weight_bytes(&self) -> usize {
        self.inner.weight_bytes()
    }
}

fn watched(share: f64) -> (Server, Arc<Watched>, Sender<()>) {
    let draft = numbered(draft(small_config(), 11));
    let (word, pass) = channel();
    let inner = reference(&draft.config, &draft.weights);
    let forward = Arc::new(Watched {
        inner,
        live: AtomicUsize::new(0),
        aside: AtomicUsize::new(0),
        hold: AtomicBool::new(false),
        pass: Mutex::new(pass),
    });
    let recommender = RecommenderOptions { shadow_share: Some(share), ..RecommenderOptions::default() };
    let options = ServerOptions { recommender, ..ServerOptions::default() };
    let server = Server::open(options, draft, Arc::clone(&forward) as Arc<dyn Forward>);
    (server, forward, word)
}

fn overlap(server: &Server, kind: &str, route: &str) -> f64 {
    server.client.metric(&format!("shadow_overlap_{kind}{{route=\"{route}\"}}"))
}

#[test]
fn a_comparison_says_how_many_of_the_full_models_ten_best_the_route_found() {
    let (server, _, _word) = watched(1.0);
    let best = |route: &str| -> HashSet<String> {
        let body = json!({"history": [101, 117, 130], "route": route, "exclude": [105]});
        server.client.recommend(&body).items().into_iter().collect()
    };
    let (smallest, full) = (best("smallest"), best("full"));
    while overlap(&server, "count", "h4-l1-e6") < 1.0 || overlap(&server, "count", "h12-l4-e10") < 1.0 {
        thread::yield_now();
    }
    let expected = smallest.intersection(&full).count() as f64 / 10.0;
    assert!((0.0..1.0).contains(&expected));
    assert!((overlap(&server, "sum", "h4-l1-e6") - expected).abs() < 1e-9);
    assert_eq!(overlap(&server, "sum", "h12-l4-e10"), 1.0);
}

#[test]
fn a_share_of_the_requests_is_compared_and_those_alone() {
    let (server, forward, _word) = watched(0.25);
    for _ in 0..20 {
        server.client.recommend(&json!({"history": [101], "route": "full"}));
    }
    while overlap(&server, "count", "h12-l4-e10") < 5.0 {
        thread::yield_now();
    }
    // Two runs a comparison: the route's and the full one's.
    assert_eq!((forward.live.load(Ordering::SeqCst), forward.aside.load(Ordering::SeqCst)), (20, 10));
}

#[test]
fn nothing_is_compared_while_a_request_is_in_the_server_and_too_many_are_dropped() {
    let (server, forward, word) = watched(1.0);
    forward.hold.store(true, Ordering::SeqCst);
    let ask = || {
        let client = server.client.clone();
        thread::spawn(move || client.recommend(&json!({"history": [101], "route": "full"})).status)
    };
    // One request is always in: the next comes before the device is done with the last.
    let mut running = ask();
    for n in 1..=80 {
        while forward.live.load(Ordering::SeqCst) < n {
            thread::yield_now();
        }
        let next = ask();
        wait_until_queued(&server, 1);
        word.send(()).unwrap();
        assert_eq!(running.join().unwrap(), 200);
        running = next;
    }
    let scrape = server.client.get("/metrics").text;
    assert_eq!(metric(&scrape, "shadow_overlap_count{route=\"h12-l4-e10\"}"), 0.0);
    assert_eq!(forward.aside.load(Ordering::SeqCst), 0);
    // 64 wait, one is in the thread's hand.
    assert!(metric(&scrape, "shadow_dropped_total") >= 80.0 - 65.0, "{}", metric(&scrape, "shadow_dropped_total"));
    forward.hold.store(false, Ordering::SeqCst);
    word.send(()).unwrap();
    assert_eq!(running.join().unwrap(), 200);
    while overlap(&server, "count", "h12-l4-e10") < 64.0 {
        thread::yield_now();
    }
}
