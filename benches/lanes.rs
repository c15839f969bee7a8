//! Lanes by width against lanes by route: rows of uniformly random routes, 64 in flight.

mod model;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use canet_domain::{BatchBy, Candidates, History, Route, RouteSpace, Selection};
use canet_model::{Forward, Query};
use canet_serving::scheduler::{Arrival, Cancellable, Due, Limits, Routed, Scheduler, SharesRouter, Work};
use canet_torch::TorchForward;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use self::model::{MAX_LEN, history, model, rng};

const IN_FLIGHT: usize = 64;

/// Pairs of measurements behind the ratio.
const PAIRS: usize = 15;

/// Rows that each measurement of a pair answers.
const ROWS: usize = 1024;

/// A row that names its route.
struct Asked {
    route: Route,
    history: History,
}

/// No row asks the router.
enum Never {}

impl Cancellable for Asked {}
impl Cancellable for Never {}
impl SharesRouter for Never {}

/// A closed loop: a new row follows every answer.
struct ClosedLoop<'a> {
    forward: &'a TorchForward,
    space: &'a RouteSpace,
    batch_by: BatchBy,
    shortest: usize,
    scheduler: Scheduler<usize, Never, Asked>,
    rng: ChaCha8Rng,
}

impl<'a> ClosedLoop<'a> {
    /// Histories have `shortest` items up to the most that the model reads.
    fn new(forward: &'a TorchForward, space: &'a RouteSpace, batch_by: BatchBy, shortest: usize) -> ClosedLoop<'a> {
        let limits = Limits { executors: 1, max_batch: IN_FLIGHT, queue_limit: Duration::MAX, degrade: false };
        let scheduler = Scheduler::new(limits, Instant::now());
        let mut closed_loop = ClosedLoop { forward, space, batch_by, shortest, scheduler, rng: rng(3) };
        (0..IN_FLIGHT).for_each(|_| closed_loop.send());
        closed_loop
    }

    fn send(&mut self) {
        let route = self.space.routes().nth(self.rng.gen_range(0..self.space.len())).unwrap_or(self.space.full());
        let history = history(self.rng.gen_range(self.shortest..=MAX_LEN), &mut self.rng);
        let arrived = Instant::now();
        let due = Due { arrived, deadline: arrived + Duration::from_secs(3600) };
        // Every row costs the same to a queue without a limit.
        let routed = Routed { row: Asked { route, history }, lane: self.batch_by.lane(self.space, route), flops: 1 };
        drop(self.scheduler.admit(due, Arrival::Routed(routed)));
    }

    /// Answers at least `rows` rows; returns the time a row.
    fn run(&mut self, rows: usize) -> Duration {
        let nothing = HashSet::new();
        let selection = Selection { k: 10, excluded: &nothing, candidates: Candidates::All };
        let started = Instant::now();
        let mut answered = 0;
        while answered < rows {
            let Some(Work::Run(batch)) = self.scheduler.next(0, Instant::now()) else { break };
            let queries: Vec<(Route, Query<'_>)> = batch
                .rows
                .iter()
                .map(|started| (started.row.route, Query { history: &started.row.history, selection }))
                .collect();
            answered += self.forward.rank(&queries).map_or(0, |answers| answers.len());
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
        let mut loops =
            [BatchBy::Width, BatchBy::Route].map(|batch_by| ClosedLoop::new(&forward, &space, batch_by, shortest));
        for closed_loop in &mut loops {
            group.bench_function(BenchmarkId::from_parameter(format!("by {:?}", closed_loop.batch_by)), |bencher| {
                bencher.iter_custom(|rows| {
                    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
                    closed_loop.run(rows).mul_f64(rows as f64)
                });
            });
        }
        group.finish();
        let [width, route] = &mut loops;
        // In turn, so that other load on the machine affects both.
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
