//! The ten best of a million items on one core, as shares of the core's rates of reading and multiplying, measured in
//! the same run. `JSON=FILE` writes the figures to a file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench reports an error by a panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads its own arguments")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use canet_cpu::{CpuForward, CpuOptions, Level, gemm_peak, read_peak};
use canet_domain::{Candidates, History, Selection};
use canet_model::{Forward, ModelConfig, Precision, Query, RouterConfig};
use serde_json::{Value, json};

const ITEMS: usize = 1_000_000;
const WIDTH: usize = 128;
const ROUNDS: usize = 9;

fn main() {
    // `cargo bench` passes this flag, `cargo test --benches` does not.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    // Everything before the output layer is as small as possible.
    let config = ModelConfig {
        max_len: 1,
        hidden: vec![WIDTH],
        layers: vec![1],
        embedding: vec![8],
        router: RouterConfig { dim: 4, heads: 1, ffn: 4 },
        ..canet_testing::full_size_config(ITEMS)
    };
    let weights = canet_testing::random_weights(&config, &mut canet_testing::rng(1));
    let mut rows = Vec::new();
    for precision in [Precision::Fp32, Precision::Bf16] {
        if precision == Precision::Bf16 && !Level::best().multiplies_bf16() {
            continue;
        }
        let scanned = CpuOptions::fastest(precision, 1);
        for (how, options) in [("scanned", scanned), ("all scores", CpuOptions { byte_scan: false, ..scanned })] {
            let native = CpuForward::load(&config, &weights, options).unwrap();
            rows.extend(time(&native, how, precision, &config));
        }
    }
    if let Ok(file) = std::env::var("JSON") {
        let document = json!({ "items": ITEMS, "width": WIDTH, "rounds": ROUNDS, "vectors": Level::best().to_string(), "rows": rows });
        std::fs::write(file, format!("{document:#}\n")).unwrap();
    }
}

/// Times several batch sizes in turns.
fn time(native: &CpuForward, how: &str, precision: Precision, config: &ModelConfig) -> Vec<Value> {
    let level = Level::best();
    let route = config.check().unwrap().full();
    let mut rng = canet_testing::rng(2);
    let histories: Vec<History> = (0..32).map(|_| canet_testing::random_history(ITEMS, 1, &mut rng)).collect();
    let nothing = HashSet::new();
    let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
    let queries: Vec<Query<'_>> = histories.iter().map(|history| Query { history, selection }).collect();
    let name = precision.name();
    let table = ITEMS * WIDTH * if precision == Precision::Fp32 { 4 } else { 2 };
    let mut found = [1, 8, 32].map(|batch| (batch, Vec::new()));
    for _ in 0..ROUNDS {
        for (batch, found) in &mut found {
            let started = Instant::now();
            native.rank(route, &queries[..*batch]).unwrap();
            let seconds = started.elapsed().as_secs_f64();
            let reading = table as f64 / read_peak(level, table, Duration::from_millis(100));
            let flops = 2.0 * (ITEMS * WIDTH * *batch) as f64;
            let share = flops / seconds / gemm_peak(level, precision, Duration::from_millis(50));
            found.push([1e3 * seconds, seconds / reading, share]);
        }
    }
    let row = |(batch, found): &(usize, Vec<[f64; 3]>)| {
        let [ms, reads, share] = [0, 1, 2].map(|column| range_and_median(found.iter().map(|row| row[column])));
        println!(
            "{name}, {how}, {batch:>2} rows: {:7.2} ms ({:.2} to {:.2}), {:.2} ({:.2} to {:.2}) of reading the table, {:.0} % ({:.0} to {:.0}) of the GEMM peak",
            ms[1],
            ms[0],
            ms[2],
            reads[1],
            reads[0],
            reads[2],
            100.0 * share[1],
            100.0 * share[0],
            100.0 * share[2],
        );
        let [ms, reads, share] = [ms, reads, share]
            .map(|[least, median, greatest]| json!({ "median": median, "least": least, "greatest": greatest }));
        json!({ "precision": name, "how": how, "batch": batch, "ms": ms, "of_reading": reads, "of_gemm_peak": share })
    };
    found.iter().map(row).collect()
}

/// The least, the median and the greatest.
fn range_and_median(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
