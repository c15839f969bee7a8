//! What a returning history costs with the history cache, as a share of computing it whole, and what the cache costs users
//! who never return. One thread. `JSON=FILE` writes the figures to a file, `DISTINCT=N` sets how many histories never
//! return (100,000).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench reports an error by a panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads its own arguments")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use canet_cpu::{CpuForward, CpuOptions, Level, gemm_peak, read_peak};
use canet_domain::{Candidates, History, Item, Route, Selection};
use canet_model::{Forward, ModelConfig, Positions, Precision, Query};
use canet_testing::{full_size_config, item, random_weights, rng};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// The binary's allocator, so that the memory of the process is the server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of the cache.
const BUDGET: usize = 256_000_000;

/// Items of MovieLens-1M.
const ITEMS: usize = 3416;

/// How often each figure is taken, each time with new histories.
const ROUNDS: usize = 15;

/// New items of each history in a round, one a request.
const STEPS: usize = 8;

/// Histories of a round.
const USERS: usize = 64;

fn main() {
    // `cargo bench` passes this flag, `cargo test --benches` does not.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut returning = Vec::new();
    for (space, route, length) in [
        ("paper", "h128-l8-e128", 50),
        ("paper", "h128-l8-e128", 128),
        ("paper", "h64-l2-e64", 50),
        ("paper", "h64-l2-e64", 128),
        ("default", "h128-l2-e128", 50),
        ("default", "h128-l2-e128", 128),
        ("default", "h64-l2-e128", 50),
    ] {
        let model = Loaded::new(space, length + STEPS);
        for batch in [1, 16, 64] {
            returning.push(model.time_returning(route, length, batch));
        }
    }
    let distinct = std::env::var("DISTINCT").map_or(100_000, |count| count.parse().unwrap());
    let misses = ["h64-l2-e64", "h128-l8-e128"].map(|route| {
        let share = if route == "h64-l2-e64" { 1 } else { 10 };
        Loaded::new("paper", 50).time_misses(route, distinct / share)
    });
    if let Ok(file) = std::env::var("JSON") {
        let gemm = gemm_peak(Level::best(), Precision::Fp32, Duration::from_millis(300)) / 1e9;
        let document = json!({
            "items": ITEMS, "cache_bytes": BUDGET, "rounds": ROUNDS, "vectors": Level::best().to_string(),
            "gemm_gflops": gemm, "returning": returning, "misses": misses,
        });
        std::fs::write(file, format!("{document:#}\n")).unwrap();
    }
}

/// A model of random weights, with a cache.
struct Loaded {
    space: &'static str,
    config: ModelConfig,
    forward: CpuForward,
}

impl Loaded {
    fn new(space: &'static str, max_len: usize) -> Loaded {
        let config = ModelConfig { max_len, positions: Positions::Relative, ..full_size_config(ITEMS) };
        let config = match space {
            "paper" => config,
            _ => ModelConfig {
                hidden: vec![16, 32, 64, 128],
                layers: vec![1, 2],
                embedding: vec![128],
                heads: 2,
                embedding_norm: true,
                ..config
            },
        };
        let weights = random_weights(&config, &mut rng(1));
        let options = CpuOptions { history_cache: BUDGET, ..CpuOptions::fastest(Precision::Fp32, 1) };
        let forward = CpuForward::load(&config, &weights, options).unwrap();
        Loaded { space, config, forward }
    }

    fn route(&self, name: &str) -> Route {
        self.config.check().unwrap().parse(name).unwrap()
    }

    /// Histories that grow by one item at a time.
    fn time_returning(&self, name: &str, length: usize, batch: usize) -> Value {
        let route = self.route(name);
        let (mut rng, mut found) = (rng(2), Vec::new());
        for _ in 0..ROUNDS {
            let users: Vec<Vec<Item>> = (0..USERS).map(|_| random_items(length + STEPS, &mut rng)).collect();
            let [mut whole, mut new, mut router] = [Duration::ZERO; 3];
            self.each_batch(&users, length, batch, |rows| drop(self.reuse(route, rows)));
            for step in 1..=STEPS {
                self.each_batch(&users, length + step, batch, |rows| {
                    let started = Instant::now();
                    self.compute(route, rows);
                    whole += started.elapsed();
                });
                self.each_batch(&users, length + step, batch, |rows| {
                    let started = Instant::now();
                    self.forward.router_logits(&rows.iter().collect::<Vec<_>>()).unwrap();
                    router += started.elapsed();
                });
                self.each_batch(&users, length + step, batch, |rows| {
                    let started = Instant::now();
                    let reused = self.reuse(route, rows);
                    new += started.elapsed();
                    assert!(reused.iter().all(|reused| *reused > 0));
                });
            }
            let rows = (STEPS * USERS) as f64;
            found.push([whole, new, router].map(|time| 1e6 * time.as_secs_f64() / rows));
        }
        let range = |value: &dyn Fn(&[f64; 3]) -> f64| range_and_median(found.iter().map(value));
        let ratio = range(&|[whole, new, _]| new / whole);
        let with_router = range(&|[whole, new, router]| (new + router) / (whole + router));
        let [whole, new, router] = [0, 1, 2].map(|column| range(&|times| times[column]));
        let weights = self.weight_bytes(route);
        let reading =
            1e6 * weights as f64 / read_peak(Level::best(), weights, Duration::from_millis(50)) / batch as f64;
        println!(
            "{}, {name}, {length} items, batch {batch:>2}: {:7.1} us a row whole, {:6.1} with one new item, {:.3} ({:.3} to {:.3}) of whole, {:.3} with the router; reading the weights {reading:.1} us",
            self.space, whole[1], new[1], ratio[1], ratio[0], ratio[2], with_router[1],
        );
        let figure =
            |[least, median, greatest]: [f64; 3]| json!({"median": median, "least": least, "greatest": greatest});
        json!({
            "space": self.space, "route": name, "items": length, "batch": batch,
            "whole_us": figure(whole), "new_item_us": figure(new), "router_us": figure(router),
            "ratio": figure(ratio), "ratio_with_router": figure(with_router), "reading_weights_us": reading,
        })
    }

    /// Users who never return, with the cache and without, in turns.
    fn time_misses(&self, name: &str, count: usize) -> Value {
        const BATCH: usize = 16;
        const BLOCK: usize = 64;
        let (route, mut rng) = (self.route(name), rng(3));
        let (mut ratios, mut keeping, mut plain) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        // The cache is full for most of the time, as it is on a server.
        for _ in 0..(count / 2).div_ceil(BATCH * BLOCK) {
            let mut time = |keeps: bool| {
                let histories: Vec<Vec<Item>> = (0..BATCH * BLOCK).map(|_| random_items(50, &mut rng)).collect();
                let mut took = Duration::ZERO;
                self.each_batch(&histories, 50, BATCH, |rows| {
                    let started = Instant::now();
                    match keeps {
                        true => drop(self.reuse(route, rows)),
                        false => self.compute(route, rows),
                    }
                    took += started.elapsed();
                });
                took
            };
            let (with, without) = (time(true), time(false));
            ratios.push(with.as_secs_f64() / without.as_secs_f64());
            keeping += with;
            plain += without;
        }
        let stats = self.forward.history_cache().unwrap().stats();
        let (ratio, mean) = (range_and_median(ratios.into_iter()), keeping.as_secs_f64() / plain.as_secs_f64());
        let resident = resident();
        println!(
            "{name}, {count} histories that never return: {mean:.4} of the time without a cache, median of blocks {:.4}; {} histories in {:.1} MB, process {:.1} MB",
            ratio[1],
            stats.entries,
            stats.bytes as f64 / 1e6,
            resident as f64 / 1e6,
        );
        json!({
            "route": name, "histories": count, "time_ratio": mean, "median_ratio": ratio[1], "entries": stats.entries,
            "cache_bytes": stats.bytes, "evictions": stats.evictions, "resident_bytes": resident,
        })
    }

    /// Calls `run` with batches of the users' first `length` items.
    fn each_batch(&self, users: &[Vec<Item>], length: usize, batch: usize, mut run: impl FnMut(&[History])) {
        for users in users.chunks(batch) {
            let rows: Vec<History> =
                users.iter().map(|items| History::new(&items[..length], self.config.max_len).unwrap()).collect();
            run(&rows);
        }
    }

    fn compute(&self, route: Route, rows: &[History]) {
        let nothing = HashSet::new();
        self.forward.rank(&queries(route, rows, &nothing)).unwrap();
    }

    fn reuse(&self, route: Route, rows: &[History]) -> Vec<u64> {
        let nothing = HashSet::new();
        self.forward.rank_reusing(&queries(route, rows, &nothing)).unwrap().reused
    }

    /// Bytes of the weights that one row of a route reads.
    fn weight_bytes(&self, route: Route) -> usize {
        let slice = self.config.check().unwrap().slice(route);
        let h = slice.hidden;
        4 * (12 * h * h * slice.layers + h * (ITEMS + 1))
    }
}

fn queries<'a>(route: Route, rows: &'a [History], excluded: &'a HashSet<Item>) -> Vec<(Route, Query<'a>)> {
    let selection = Selection { k: 10, excluded, candidates: Candidates::All };
    rows.iter().map(|history| (route, Query { history, selection })).collect()
}

fn random_items(count: usize, rng: &mut ChaCha8Rng) -> Vec<Item> {
    (0..count).map(|_| item(rng.gen_range(1..=ITEMS as u32))).collect()
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    1024 * kilobytes.unwrap_or_default()
}

/// The least, the median and the greatest.
fn range_and_median(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
