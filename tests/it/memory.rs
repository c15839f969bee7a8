//! A server's memory does not grow with the shapes of the batches that it has met.

use canet_model::ModelConfig;
use rand::Rng;
use serde_json::{Value, json};

use super::server::{Process, numbered};
use super::support::{BACKENDS, draft, rng, small_config};

/// Bytes that resident memory may differ by between two looks at a server that is not growing.
const NOISE: f64 = 16e6;

#[test]
fn memory_stays_flat_over_batches_of_ever_other_lengths() {
    for backend in BACKENDS {
        stays_flat(backend);
    }
}

fn stays_flat(backend: &str) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("long");
    let config = ModelConfig { max_len: 200, hidden: vec![8, 16], layers: vec![2, 4], ..small_config() };
    let items = config.items as u32;
    numbered(draft(config, 5)).write(&root).unwrap();
    // One thread: each has memory of its own, which on many cores grows until every one of them has met a large batch.
    let flags = ["--backend", backend, "--threads", "1", "--queue-limit-ms", "60000"];
    let server = Process::serve(&root, &flags);
    let mut rng = rng(6);
    let mut load = |calls: usize| {
        for _ in 0..calls {
            let row = |_| {
                let length = rng.gen_range(1..=200);
                let history: Vec<u32> = (0..length).map(|_| 100 + rng.gen_range(1..=items)).collect();
                json!({ "history": history })
            };
            let requests: Vec<Value> = (0..24).map(row).collect();
            assert_eq!(server.client.post("/recommend/batch", &json!({ "requests": requests })).status, 200);
        }
        resident(&server.client.get("/metrics").text)
    };
    let before = load(60);
    let after = load(400);
    assert!(after - before < NOISE, "{backend}: {before} bytes before, {after} after");
}

fn resident(scrape: &str) -> f64 {
    let line = scrape.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.unwrap().parse().unwrap()
}
