//! Lanes by width against lanes by route: rows of uniformly random routes, 64 in flight.

mod model;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use canet_domain::{BatchBy, Candidates, History, Route, RouteSpace, Selection};
use canet_model::{Forward, Query};
use canet_serving::{Due, Lanes};
use canet_torch::LibTorch;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use self::model::{MAX_LEN, history, model, rng};

const IN_FLIGHT: usize = 64;

/// Pairs of measurements behind the ratio.
const PAIRS: usize = 15;

/// Rows a measurement of a pair, of each way.
const ROWS: usize = 1024;

/// A closed loop: every answered row is followed by a new one.
struct Flight<'a> {
    forward: &'a LibTorch,
    space: &'a RouteSpace,
    batch_by: BatchBy,
    shortest: usize,
    lanes: Lanes<usize, (Route, History)>,
    rng: ChaCha8Rng,
}

impl<'a> Flight<'a> {
    /// Histories have `shortest` items up to the most.
    fn new(forward: &'a LibTorch, space: &'a RouteSpace, batch_by: BatchBy, shortest: usize) -> Flight<'a> {
        let lanes = Lanes::new(Duration::from_secs(1));
        let mut flight = Flight { forward, space, batch_by, shortest, lanes, rng: rng(3) };
        (0..IN_FLIGHT).for_each(|_| flight.send());
        flight
    }

    fn send(&mut self) {
        let route = self.space.routes().nth(self.rng.gen_range(0..self.space.len())).unwrap_or(self.space.full());
        let history = history(self.rng.gen_range(self.shortest..=MAX_LEN), &mut self.rng);
        let arrived = Instant::now();
        let due = Due { arrived, deadline: arrived + Duration::from_secs(3600) };
        self.lanes.push(self.batch_by.lane(self.space, route), due, (route, history));
    }

    /// Answers at least `rows` rows: the time a row.
    fn run(&mut self, rows: usize) -> Duration {
        let nothing = HashSet::new();
        let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
        let started = Instant::now();
        let mut answered = 0;
        while answered < rows {
            let Some(batch) = self.lanes.take(Instant::now(), IN_FLIGHT, |_| false) else { break };
            let queries: Vec<(Route, Query<'_>)> =
                batch.rows.iter().map(|(route, history)| (*route, Query { history, selection })).collect();
            answered += self.forward.rank_mixed(&queries).map_or(0, |answers| answers.len());
            batch.rows.iter().for_each(|_| self.send());
        }
        started.elapsed().div_f64(answered as f64)
    }
}

fn lanes(criterion: &mut Criterion) {
    let (forward, space) = model();
    for (lengths, shortest) in [("full histories", MAX_LEN), ("1 to 50 items", 1)] {
        let mut group = criterion.benchmark_group(format!("uniform mix, 64 in flight, {lengths}"));
        group.throughput(Throughput::Elements(1));
        let mut flights =
            [BatchBy::Width, BatchBy::Route].map(|batch_by| Flight::new(&forward, &space, batch_by, shortest));
        for flight in &mut flights {
            group.bench_function(BenchmarkId::from_parameter(format!("by {:?}", flight.batch_by)), |bencher| {
                bencher.iter_custom(|rows| {
                    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
                    flight.run(rows).mul_f64(rows as f64)
                });
            });
        }
        group.finish();
        let [width, route] = &mut flights;
        // In turn, so that what else the machine does hits both.
        let mut ratios: Vec<f64> =
            (0..PAIRS).map(|_| route.run(ROWS).as_secs_f64() / width.run(ROWS).as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let [low, middle, high] = [PAIRS / 4, PAIRS / 2, PAIRS * 3 / 4].map(|place| ratios[place]);
        println!("{lengths}: throughput by width over by route {middle:.2} (quartiles {low:.2} to {high:.2})\n");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    targets = lanes
}
criterion_main!(benches);
