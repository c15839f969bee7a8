//! The ten best of a million items on one core, as shares of the core's rates of reading and multiplying, measured in
//! the same run. Then the same within filters, relative to no filter. `JSON=FILE` writes the figures to a file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench reports an error by a panic")]
#![allow(clippy::disallowed_methods, reason = "a bench reads its own arguments")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use canet_catalogue::{FilterExpression, ItemIndex, Restriction, SetPool};
use canet_cpu::{CpuForward, CpuOptions, Level, gemm_peak, read_peak};
use canet_data::ItemTableBuilder;
use canet_domain::{Candidates, History, Item, Route, Selection};
use canet_model::{Forward, ModelConfig, Precision, Query, RouterConfig};
use canet_serving::{Due, Request, rank_requests};
use rand::Rng;
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
    let (mut rows, mut filtered) = (Vec::new(), Vec::new());
    let index = shop();
    for precision in [Precision::Fp32, Precision::Bf16] {
        if precision == Precision::Bf16 && !Level::best().multiplies_bf16() {
            continue;
        }
        let scanned = CpuOptions::fastest(precision, 1);
        for (how, options) in [("scanned", scanned), ("all scores", CpuOptions { byte_scan: false, ..scanned })] {
            let native = CpuForward::load(&config, &weights, options).unwrap();
            rows.extend(time(&native, how, precision, &config));
            filtered.extend(time_filtered(&native, how, precision, &config, &index));
        }
    }
    if let Ok(file) = std::env::var("JSON") {
        let document = json!({ "items": ITEMS, "width": WIDTH, "rounds": ROUNDS, "vectors": Level::best().to_string(), "rows": rows, "filtered": filtered });
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
    let queries: Vec<(Route, Query<'_>)> =
        histories.iter().map(|history| (route, Query { history, selection })).collect();
    let name = precision.name();
    let table = ITEMS * WIDTH * if precision == Precision::Fp32 { 4 } else { 2 };
    let mut found = [1, 8, 32].map(|batch| (batch, Vec::new()));
    for _ in 0..ROUNDS {
        for (batch, found) in &mut found {
            let started = Instant::now();
            native.rank(&queries[..*batch]).unwrap();
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

/// The shares of the items that the filters keep, in percent.
const KEPT: [u32; 3] = [1, 10, 90];

/// A catalogue file in which a value for each share of [`KEPT`] has that share of the items.
fn shop() -> Arc<ItemIndex> {
    let mut rng = canet_testing::rng(3);
    let catalogue = canet_testing::catalogue(ITEMS);
    let mut builder = ItemTableBuilder::new();
    let key = builder.key("kept").unwrap();
    for id in catalogue.ids() {
        for percent in KEPT {
            if rng.gen_range(0..100) < percent {
                builder.value(key, &percent.to_string()).unwrap();
            }
        }
        builder.item(id, "", false).unwrap();
    }
    Arc::new(ItemIndex::new(Arc::new(builder.finish(String::new())), &catalogue))
}

/// Times rankings within filters, the making of their sets included, in turns with rankings without a filter.
fn time_filtered(
    native: &CpuForward,
    how: &str,
    precision: Precision,
    config: &ModelConfig,
    index: &Arc<ItemIndex>,
) -> Vec<Value> {
    let route = config.check().unwrap().full();
    let mut rng = canet_testing::rng(4);
    let arrived = Instant::now();
    let request = |history: History, percent: Option<u32>| {
        let filter: Option<FilterExpression> =
            percent.map(|percent| serde_json::from_value(json!({ "kept": percent })).unwrap());
        Request {
            history,
            k: 10,
            excluded: HashSet::<Item>::new(),
            candidates: None,
            restriction: Restriction::new(index, filter.as_ref(), None).unwrap(),
            route: None,
            budget: None,
            due: Due { arrived, deadline: arrived },
        }
    };
    let histories: Vec<History> = (0..32).map(|_| canet_testing::random_history(ITEMS, 1, &mut rng)).collect();
    let requests = |percent| histories.iter().map(|history| request(history.clone(), percent)).collect::<Vec<_>>();
    let plain = requests(None);
    let mut pool = SetPool::default();
    let mut run = |requests: &[Request]| {
        let started = Instant::now();
        let rows = requests.iter().map(|request| (route, request));
        assert!(rank_requests(native, ITEMS, rows, &mut pool).unwrap().iter().all(|row| !row.ran_twice));
        started.elapsed().as_secs_f64()
    };
    let mut found = Vec::new();
    for percent in KEPT {
        let within = requests(Some(percent));
        for batch in [1, 32] {
            let mut ratios = Vec::new();
            for round in 0..=2 * ROUNDS {
                let plain_first = (round % 2 == 0).then(|| run(&plain[..batch]));
                let filtered = run(&within[..batch]);
                let plain = plain_first.unwrap_or_else(|| run(&plain[..batch]));
                // The first round warms up.
                if round > 0 {
                    ratios.push(filtered / plain);
                }
            }
            let [least, median, greatest] = range_and_median(ratios.into_iter());
            let name = precision.name();
            println!(
                "{name}, {how}, {batch:>2} rows, {percent} % of the items: {median:.3} ({least:.3} to {greatest:.3}) of the time without a filter"
            );
            let ratio = json!({ "median": median, "least": least, "greatest": greatest });
            found.push(json!({ "precision": name, "how": how, "batch": batch, "percent": percent, "ratio": ratio }));
        }
    }
    found
}

/// The least, the median and the greatest.
fn range_and_median(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
