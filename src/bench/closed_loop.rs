use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::sessions::{SessionMix, Sessions};
use super::workload::{Routes, Workload, draw};
use canet_domain::{BatchBy, Candidates, Flops, History, Item, RequestFlops, Route, Selection};
use canet_model::{ForwardError, HistoryCache, HistoryCacheStats, Model, Query};
use canet_serving::SharedScheduler;
use canet_serving::scheduler::{Arrival, Batch, Cancellable, Due, Limits, Routed, RouterBatch, SharesRouter, Work};
use parking_lot::Mutex;

/// Items that each request asks for.
const TOP: usize = 10;

/// No row is ever late.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// The warm-up before a measurement, as a share of the measurement; it does not count.
const WARM_UP: f64 = 0.2;

/// A closed loop through the scheduler that the server runs: a number of requests is always in flight, and a new one
/// follows each answer.
pub(super) struct ClosedLoop<'a> {
    pub(super) model: &'a Model,
    /// The share of the full model's FLOPs that the router may spend.
    pub(super) budget: f64,
    /// At least one.
    pub(super) histories: &'a [Arc<History>],
    /// How the users of the workload `sessions` return.
    pub(super) session_mix: SessionMix,
    /// The items of these users, as a file has them; none for random items.
    pub(super) sequences: &'a [Vec<Item>],
    pub(super) batch_by: BatchBy,
    /// Threads that run batches out of one queue.
    pub(super) executors: usize,
    /// The most rows of a batch: the default of `serve`.
    pub(super) max_batch: usize,
    /// The least warm-up before a measurement.
    pub(super) warm_up: Duration,
    pub(super) seed: u64,
}

/// The result of a measurement.
pub(super) struct Timed {
    /// Answers a second.
    pub(super) requests_per_second: f64,
    /// Quantiles of the time from a request's arrival to its answer.
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// The mean cost of a request, the router's included. It does not depend on the history cache.
    pub(super) mean_flops: f64,
    /// What the history cache saved of it.
    pub(super) mean_reused: f64,
    /// What the history cache did, if the model has one and the workload uses it.
    pub(super) cache: Option<HistoryCacheStats>,
}

struct Row {
    history: Arc<History>,
    /// Items of the history, which are not recommended.
    excluded: Arc<HashSet<Item>>,
    /// The workload's route, if it names one.
    route: Option<Route>,
    arrived: Instant,
}

/// The items that a user has.
fn seen(history: &History) -> HashSet<Item> {
    history.items().iter().copied().collect()
}

/// The size of a cache, and what it did since an earlier time.
fn since(now: HistoryCacheStats, before: HistoryCacheStats) -> HistoryCacheStats {
    HistoryCacheStats {
        bytes: now.bytes,
        entries: now.entries,
        hits: now.hits - before.hits,
        misses_of_history: now.misses_of_history - before.misses_of_history,
        misses_of_slice: now.misses_of_slice - before.misses_of_slice,
        evictions: now.evictions - before.evictions,
    }
}

struct RoutedRow {
    route: Route,
    row: Row,
}

impl Cancellable for Row {}
impl SharesRouter for Row {}
impl Cancellable for RoutedRow {}

/// What the executors of one measurement share.
struct Measurement<'a> {
    scheduler: SharedScheduler<usize, Row, RoutedRow>,
    workload: &'a Workload,
    /// The route of every request, if the budget's policy is one route. Then the router does not run, as in a server.
    fixed: Option<Route>,
    excluded: Vec<Arc<HashSet<Item>>>,
    sessions: Mutex<Sessions<'a>>,
    from: Instant,
    until: Instant,
    answered: Mutex<Answered>,
}

/// The rows that were answered during the measurement.
#[derive(Default)]
struct Answered {
    /// Latency, cost and reused part of each row.
    rows: Vec<(Duration, Flops, Flops)>,
    /// The end of the first batch, and its rows: they ran before the measurement.
    first: Option<(Instant, usize)>,
    /// The end of the last batch.
    last: Option<Instant>,
}

impl ClosedLoop<'_> {
    /// Keeps `in_flight` requests in flight for about `time`, and until at least one batch is measured.
    pub(super) fn time(&self, workload: &Workload, in_flight: usize, time: Duration) -> Result<Timed, ForwardError> {
        let started = Instant::now();
        let from = started + time.mul_f64(WARM_UP).max(self.warm_up);
        let (executors, max_batch) = (self.executors, self.max_batch);
        let limits = Limits { executors, max_batch, queue_limit: Duration::MAX, degrade: false };
        let measurement = Measurement {
            scheduler: SharedScheduler::new(limits),
            workload,
            fixed: match workload.routes() {
                Routes::Own | Routes::Sessions => self.model.policy(self.budget).fixed(),
                Routes::Drawn(_) | Routes::None => None,
            },
            excluded: self.histories.iter().map(|history| Arc::new(seen(history))).collect(),
            sessions: Mutex::new(Sessions::new(self.session_mix, self.sequences)),
            from,
            until: from + time,
            answered: Mutex::default(),
        };
        let cache = self.model.forward().history_cache().filter(|_| matches!(workload.routes(), Routes::Sessions));
        let before = cache.map(HistoryCache::stats);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        for _ in 0..in_flight {
            self.send(&measurement, &mut rng);
        }
        let ended = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..executors)
                .map(|index| {
                    let rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(1 + index as u64));
                    let mut executor = Executor { index, bench: self, measurement: &measurement, rng };
                    scope.spawn(move || {
                        let outcome = catch_unwind(AssertUnwindSafe(|| executor.run()));
                        // However it ended, the others must not wait for its rows.
                        executor.measurement.scheduler.close();
                        outcome.unwrap_or_else(|panic| resume_unwind(panic))
                    })
                })
                .collect();
            let outcomes = threads.into_iter().map(|thread| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => resume_unwind(panic),
            });
            outcomes.collect::<Result<Vec<()>, _>>()
        });
        ended?;
        let answered = measurement.answered.into_inner();
        let cache = cache.map(HistoryCache::stats).zip(before).map(|(now, before)| since(now, before));
        Ok(Timed { cache, ..Timed::of(answered, in_flight) })
    }

    fn send(&self, measurement: &Measurement<'_>, rng: &mut ChaCha8Rng) {
        let route = match measurement.workload.routes() {
            Routes::Drawn(shares) => draw(shares, rng),
            Routes::Own | Routes::Sessions | Routes::None => None,
        };
        let (history, excluded) = match measurement.workload.routes() {
            Routes::Sessions => {
                let mut sessions = measurement.sessions.lock();
                // No user has an empty history.
                let Ok(history) = sessions.request(rng) else { return };
                drop(sessions);
                let excluded = Arc::new(seen(&history));
                (Arc::new(history), excluded)
            }
            _ => {
                let place = rng.gen_range(0..self.histories.len());
                (Arc::clone(&self.histories[place]), Arc::clone(&measurement.excluded[place]))
            }
        };
        let arrived = Instant::now();
        let row = Row { history, excluded, route, arrived };
        let arrival = match measurement.fixed {
            Some(route) => Arrival::Routed(self.routed(route, row)),
            None => {
                let RequestFlops { router, full, .. } = self.cost(self.model.space().full(), &row);
                Arrival::Unrouted { row, router_flops: router, full_flops: full }
            }
        };
        // The queue has no limit; if another executor has closed it, the row is dropped.
        drop(measurement.scheduler.admit(Due { arrived, deadline: arrived + TIMEOUT }, arrival));
    }

    /// A row with its route.
    fn routed(&self, route: Route, row: Row) -> Routed<usize, RoutedRow> {
        let flops = self.cost(route, &row).slice;
        let lane = self.batch_by.lane(self.model.space(), route);
        Routed { row: RoutedRow { route, row }, lane, flops }
    }

    fn cost(&self, route: Route, row: &Row) -> RequestFlops {
        self.model.cost(route, row.history.len())
    }
}

/// A thread that runs batches, as those of the server do.
struct Executor<'a, 'm> {
    index: usize,
    bench: &'a ClosedLoop<'a>,
    measurement: &'a Measurement<'m>,
    rng: ChaCha8Rng,
}

impl Executor<'_, '_> {
    fn run(&mut self) -> Result<(), ForwardError> {
        while let Some(work) = self.measurement.scheduler.next(self.index) {
            match work {
                Work::Route(batch) => self.route(batch)?,
                Work::Run(batch) => self.execute(batch)?,
            }
        }
        Ok(())
    }

    /// Asks the router, which runs even if the workload names the routes.
    fn route(&mut self, batch: RouterBatch<Row>) -> Result<(), ForwardError> {
        let bench = self.bench;
        let started = Instant::now();
        let histories: Vec<&History> = batch.rows.iter().map(|row| &*row.history).collect();
        let choices = bench.model.route(&histories, bench.budget)?;
        let took = started.elapsed();
        let scheduler = &self.measurement.scheduler;
        if let Routes::None = self.measurement.workload.routes() {
            scheduler.lock().unroutable(self.index);
            self.finish(&batch.rows.into_iter().map(|row| (None, 0, row)).collect::<Vec<_>>());
            return Ok(());
        }
        let routed = batch
            .rows
            .into_iter()
            .zip(choices)
            .map(|(row, choice)| bench.routed(row.route.unwrap_or(choice.route), row));
        let routed = routed.collect();
        scheduler.lock().routed(self.index, took, routed);
        Ok(())
    }

    fn execute(&mut self, batch: Batch<usize, RoutedRow>) -> Result<(), ForwardError> {
        let started = Instant::now();
        let queries: Vec<(Route, Query<'_>)> = batch
            .rows
            .iter()
            .map(|started| {
                let RoutedRow { route, row } = &started.row;
                let selection = Selection { k: TOP, excluded: &row.excluded, candidates: Candidates::All };
                (*route, Query { history: &row.history, selection })
            })
            .collect();
        // Other workloads repeat their histories, which is no measure of a cache.
        let reused = match self.measurement.workload.routes() {
            Routes::Sessions => self.bench.model.rank_reusing(&queries)?.reused,
            _ => self.bench.model.rank(&queries).map(|_| Vec::new())?,
        };
        self.measurement.scheduler.lock().completed(self.index, started.elapsed(), None);
        let reused = reused.into_iter().chain(std::iter::repeat(0));
        let rows = batch.rows.into_iter().zip(reused);
        let rows = rows.map(|(started, reused)| (Some(started.row.route), reused, started.row.row));
        self.finish(&rows.collect::<Vec<_>>());
        Ok(())
    }

    /// Counts answered rows and sends new ones for them, until the time is over.
    fn finish(&mut self, rows: &[(Option<Route>, Flops, Row)]) {
        let Executor { bench, measurement, rng, .. } = self;
        let now = Instant::now();
        let mut answered = measurement.answered.lock();
        if now >= measurement.from && (now < measurement.until || answered.last.is_none()) {
            let timed = rows.iter().map(|(route, reused, row)| {
                let cost = bench.cost(route.unwrap_or(bench.model.space().smallest()), row);
                let router = if measurement.fixed.is_some() { 0 } else { cost.router };
                let flops = router + if route.is_some() { cost.slice } else { 0 };
                (now - row.arrived, flops, *reused)
            });
            answered.add(now, timed);
        }
        drop(answered);
        if now >= measurement.until {
            measurement.scheduler.close();
            return;
        }
        for _ in rows {
            bench.send(measurement, rng);
        }
    }
}

impl Answered {
    /// Counts a batch that has ended.
    fn add(&mut self, now: Instant, rows: impl Iterator<Item = (Duration, Flops, Flops)>) {
        let before = self.rows.len();
        self.rows.extend(rows);
        self.first.get_or_insert((now, self.rows.len() - before));
        self.last = self.last.max(Some(now));
    }

    /// Rows a second between the ends of batches. If the clock cut a batch, it would count whole or not at all, an error
    /// of a tenth in a measurement of ten batches. With one batch alone the rate is the rows in flight over the mean
    /// latency (Little's law).
    fn per_second(&self, in_flight: usize) -> f64 {
        let between = self.first.zip(self.last).map(|((first, rows), last)| (last - first, self.rows.len() - rows));
        match between {
            Some((took, rows)) if !took.is_zero() => rows as f64 / took.as_secs_f64(),
            _ => {
                let latencies: Duration = self.rows.iter().map(|(latency, ..)| latency).sum();
                (in_flight * self.rows.len()) as f64 / latencies.as_secs_f64()
            }
        }
    }
}

impl Timed {
    fn of(answered: Answered, in_flight: usize) -> Timed {
        let requests_per_second = answered.per_second(in_flight);
        let mut rows = answered.rows;
        rows.sort_by_key(|(latency, ..)| *latency);
        let at = |share: f64| {
            let place = (rows.len() as f64 * share) as usize;
            rows.get(place).or(rows.last()).map_or(Duration::ZERO, |(latency, ..)| *latency)
        };
        let mean = |sum: f64| sum / rows.len().max(1) as f64;
        let mean_flops = mean(rows.iter().map(|(_, flops, _)| *flops as f64).sum());
        let mean_reused = mean(rows.iter().map(|(.., reused)| *reused as f64).sum());
        Timed { requests_per_second, p50: at(0.5), p99: at(0.99), mean_flops, mean_reused, cache: None }
    }
}
