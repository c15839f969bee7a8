//! The native forward against LibTorch on one core: the router, the smallest and the full route over full histories, a
//! uniform mix of all routes, and the parts of a block alone. Each figure comes with its share of the core's peak,
//! measured in the same run.

#![allow(clippy::unwrap_used, reason = "a bench reports an error by a panic")]

mod model;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use canet_cpu::{BlockBench, CpuForward, CpuOptions, Level, fma_peak};
use canet_domain::{Candidates, History, Route, Selection};
use canet_model::{Forward, Precision, Query};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use self::model::{MAX_LEN, config, history, model, rng, weights};

/// Pairs of measurements behind a median.
const PAIRS: usize = 15;

fn native(criterion: &mut Criterion) {
    let config = config();
    let native = CpuForward::load(&config, &weights(), CpuOptions::fastest(Precision::Fp32, 1)).unwrap();
    let (libtorch, space) = model();
    let mut rng = rng(2);
    let histories: Vec<History> = (0..64).map(|_| history(MAX_LEN, &mut rng)).collect();
    let nothing = HashSet::new();
    let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
    let routes: Vec<Route> = space.routes().collect();
    let rows = |route: &dyn Fn(usize) -> Route| -> Vec<(Route, Query<'_>)> {
        (0..64).map(|row| (route(row), Query { history: &histories[row], selection })).collect()
    };
    let batch: Vec<&History> = histories.iter().collect();
    criterion.bench_function("router, 64 histories", |bencher| bencher.iter(|| native.router_logits(&batch)));
    let mixes: [(&str, Vec<(Route, Query<'_>)>); 3] = [
        ("smallest", rows(&|_| space.smallest())),
        ("full", rows(&|_| space.full())),
        ("uniform", rows(&|row| routes[row * 17 % routes.len()])),
    ];
    for (name, rows) in &mixes {
        let flops = |count: usize| -> f64 {
            let shape = config.shape();
            rows[..count].iter().map(|(route, _)| shape.route_flops(&space, *route, MAX_LEN) as f64).sum()
        };
        let mut group = criterion.benchmark_group(*name);
        for count in [1, 8, 32, 64] {
            group.throughput(Throughput::Elements(count as u64));
            for (backend, forward) in [("native", &native as &dyn Forward), ("libtorch", &libtorch)] {
                group.bench_function(BenchmarkId::new(backend, count), |bencher| {
                    bencher.iter(|| forward.rank(&rows[..count]));
                });
            }
        }
        group.finish();
        for count in [1, 8, 32, 64] {
            let time = |forward: &dyn Forward| {
                let (started, mut runs) = (Instant::now(), 0);
                while started.elapsed() < Duration::from_millis(30) {
                    forward.rank(&rows[..count]).unwrap();
                    runs += 1;
                }
                started.elapsed().as_secs_f64() / f64::from(runs)
            };
            let mut pairs: Vec<(f64, f64)> = (0..PAIRS)
                .map(|_| {
                    let own = time(&native);
                    let peak = fma_peak(Level::best(), Duration::from_millis(5));
                    (time(&libtorch) / own, flops(count) / own / peak)
                })
                .collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let ratio = pairs[PAIRS / 2].0;
            pairs.sort_by(|a, b| a.1.total_cmp(&b.1));
            println!("{name}, {count} rows: {ratio:.2} x LibTorch, {:.0} % of the peak\n", 100.0 * pairs[PAIRS / 2].1);
        }
    }
}

/// The parts of the first block of two routes, each alone over a full history.
fn parts(criterion: &mut Criterion) {
    let config = config();
    let native = CpuForward::load(&config, &weights(), CpuOptions::fastest(Precision::Fp32, 1)).unwrap();
    let space = config.check().unwrap();
    for route in [space.smallest(), space.full()] {
        let (slice, mut block) = (space.slice(route), native.bench_block(route));
        let [l, h] = [MAX_LEN, slice.hidden].map(|size| size as f64);
        let f = config.shape().ffn_width(slice.hidden) as f64;
        type Run<'a> = fn(&mut BlockBench<'a>, usize);
        // FLOPs count attention dense.
        let parts: [(&str, f64, Run<'_>); 3] = [
            ("projections", 6.0 * l * h * h, BlockBench::project),
            ("attention", 4.0 * l * l * h, BlockBench::attend),
            ("feed-forward", 2.0 * l * h * h + 4.0 * l * h * f, BlockBench::feed_forward),
        ];
        let mut group = criterion.benchmark_group(format!("block, {} wide", slice.hidden));
        for (name, flops, run) in parts {
            group.bench_function(name, |bencher| bencher.iter(|| run(&mut block, MAX_LEN)));
            let mut shares: Vec<f64> = (0..PAIRS)
                .map(|_| {
                    let (started, mut runs) = (Instant::now(), 0);
                    while started.elapsed() < Duration::from_millis(10) {
                        run(&mut block, MAX_LEN);
                        runs += 1;
                    }
                    let rate = flops * f64::from(runs) / started.elapsed().as_secs_f64();
                    rate / fma_peak(Level::best(), Duration::from_millis(5))
                })
                .collect();
            shares.sort_by(f64::total_cmp);
            println!("{name}, {} wide: {:.0} % of the peak\n", slice.hidden, 100.0 * shares[PAIRS / 2]);
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = native, parts
}
criterion_main!(benches);
