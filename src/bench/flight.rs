use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::workload::{Routes, Workload, draw};
use canet_domain::{BatchBy, Candidates, Flops, History, Item, Route, Selection};
use canet_model::{ForwardError, Model, Query};
use canet_serving::{Due, Queue};

/// Items asked for.
const TOP: usize = 10;

/// How long the lanes' order may favour others, as in `serve`.
const PATIENCE: Duration = Duration::from_millis(250);

/// The share of a measurement that goes before it and does not count.
const WARM_UP: f64 = 0.2;

/// A closed loop: a number of requests is always in flight, each answered one is followed by a new one.
pub(super) struct Flight<'a> {
    pub(super) model: &'a Model,
    /// Share of the full model's FLOPs that the router may spend.
    pub(super) budget: f64,
    /// At least one.
    pub(super) histories: &'a [History],
    pub(super) batch_by: BatchBy,
    /// Threads that run batches out of one queue.
    pub(super) executors: usize,
    /// Most rows of a batch, as `serve` has it unless told.
    pub(super) max_batch: usize,
    /// Least time that goes before a measurement and does not count.
    pub(super) warm_up: Duration,
    pub(super) seed: u64,
}

/// What a measurement found.
pub(super) struct Timed {
    /// Answered a second.
    pub(super) requests_per_second: f64,
    /// From a request's arrival to its answer.
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Of a request, the router's included.
    pub(super) mean_flops: f64,
}

struct Row {
    /// Its place among the histories.
    history: usize,
    /// Where the workload says it.
    route: Option<Route>,
    arrived: Instant,
}

/// What the executors of a measurement share.
struct Course<'a> {
    queue: Queue<Row, usize, (Route, Row)>,
    workload: &'a Workload,
    excluded: Vec<HashSet<Item>>,
    from: Instant,
    until: Instant,
    answered: Mutex<Answered>,
}

/// What was answered while the clock ran.
#[derive(Default)]
struct Answered {
    /// How long each row took, and what it cost.
    rows: Vec<(Duration, Flops)>,
    /// When the first batch was done, and its rows: they were computed before then.
    first: Option<(Instant, usize)>,
    /// When the last one was.
    last: Option<Instant>,
}

impl Flight<'_> {
    /// Keeps `in_flight` requests in flight for about `time`, and until there is a batch to tell of.
    pub(super) fn time(&self, workload: &Workload, in_flight: usize, time: Duration) -> Result<Timed, ForwardError> {
        let started = Instant::now();
        let from = started + time.mul_f64(WARM_UP).max(self.warm_up);
        let course = Course {
            queue: Queue::new(PATIENCE),
            workload,
            excluded: self.histories.iter().map(|history| history.items().iter().copied().collect()).collect(),
            from,
            until: from + time,
            answered: Mutex::default(),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        for _ in 0..in_flight {
            self.send(&course, &mut rng);
        }
        let ended = std::thread::scope(|scope| {
            let executors: Vec<_> = (0..self.executors)
                .map(|executor| {
                    let (course, rng) = (&course, ChaCha8Rng::seed_from_u64(self.seed + 1 + executor as u64));
                    scope.spawn(move || {
                        // However it ends, the others must not wait for its rows.
                        let outcome = self.execute(course, rng);
                        course.queue.close();
                        outcome
                    })
                })
                .collect();
            let outcomes = executors.into_iter().map(|executor| match executor.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            outcomes.collect::<Result<Vec<()>, _>>()
        });
        ended?;
        let answered = course.answered.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Timed::of(answered, in_flight))
    }

    /// The loop of one executor, as the server's: takes in what arrived, routes it, runs one batch.
    fn execute(&self, course: &Course<'_>, mut rng: ChaCha8Rng) -> Result<(), ForwardError> {
        while let Some(arrived) = course.queue.take_in() {
            for rows in micro_batches(arrived, self.max_batch) {
                self.route(course, rows, &mut rng)?;
            }
            let Some(batch) = course.queue.take(Instant::now(), self.max_batch, |_| false) else { continue };
            let query = |(route, row): &(Route, Row)| {
                let excluded = &course.excluded[row.history];
                let selection = Selection { k: TOP, excluded, candidates: Candidates::All };
                (*route, Query { history: &self.histories[row.history], selection })
            };
            self.model.rank(&batch.rows.iter().map(query).collect::<Vec<_>>())?;
            let done = batch.rows.into_iter().map(|(route, row)| (Some(route), row)).collect();
            self.finish(course, done, &mut rng);
        }
        Ok(())
    }

    /// Asks the router, and puts the rows into their lanes; where no route is to run they are done.
    fn route(&self, course: &Course<'_>, rows: Vec<Row>, rng: &mut ChaCha8Rng) -> Result<(), ForwardError> {
        let histories: Vec<&History> = rows.iter().map(|row| &self.histories[row.history]).collect();
        let choices = self.model.route(&histories, self.budget)?;
        if let Routes::None = course.workload.routes() {
            self.finish(course, rows.into_iter().map(|row| (None, row)).collect(), rng);
            return Ok(());
        }
        for (row, choice) in rows.into_iter().zip(choices) {
            let route = row.route.unwrap_or(choice.route);
            let due = Due { arrived: row.arrived, deadline: row.arrived + Duration::from_secs(3600) };
            course.queue.enqueue(self.batch_by.lane(self.model.space(), route), due, (route, row));
        }
        Ok(())
    }

    /// Counts answered rows and sends new ones for them, until the time is over.
    fn finish(&self, course: &Course<'_>, rows: Vec<(Option<Route>, Row)>, rng: &mut ChaCha8Rng) {
        let now = Instant::now();
        let mut answered = course.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= course.from && (now < course.until || answered.last.is_none()) {
            let timed = rows.iter().map(|(route, row)| {
                let cost = |route| self.model.cost(route, self.histories[row.history].len());
                let flops = match route {
                    Some(route) => cost(*route).slice + cost(*route).router,
                    None => cost(self.model.space().smallest()).router,
                };
                (now - row.arrived, flops)
            });
            answered.add(now, timed);
        }
        drop(answered);
        if now >= course.until {
            course.queue.close();
            return;
        }
        for _ in rows {
            self.send(course, rng);
        }
    }

    fn send(&self, course: &Course<'_>, rng: &mut ChaCha8Rng) {
        let route = match course.workload.routes() {
            Routes::Drawn(shares) => draw(shares, rng),
            Routes::Own | Routes::None => None,
        };
        let row = Row { history: rng.gen_range(0..self.histories.len()), route, arrived: Instant::now() };
        // A queue that another executor has closed drops what it holds.
        drop(course.queue.send(row));
    }
}

/// At most as many rows as a batch has.
fn micro_batches(mut rows: Vec<Row>, most: usize) -> impl Iterator<Item = Vec<Row>> {
    std::iter::from_fn(move || {
        let rest = rows.split_off(rows.len().min(most));
        let batch = std::mem::replace(&mut rows, rest);
        (!batch.is_empty()).then_some(batch)
    })
}

impl Answered {
    /// A batch that is done.
    fn add(&mut self, now: Instant, rows: impl Iterator<Item = (Duration, Flops)>) {
        let before = self.rows.len();
        self.rows.extend(rows);
        self.first.get_or_insert((now, self.rows.len() - before));
        self.last = self.last.max(Some(now));
    }

    /// Rows a second between the ends of batches: a batch that the clock cuts would count whole or not at all, which at
    /// ten batches a measurement is a tenth of it. Where there is one batch alone it is what is in flight over the mean
    /// latency (Little's law).
    fn per_second(&self, in_flight: usize) -> f64 {
        let between = self.first.zip(self.last).map(|((first, rows), last)| (last - first, self.rows.len() - rows));
        match between {
            Some((took, rows)) if !took.is_zero() => rows as f64 / took.as_secs_f64(),
            _ => {
                let latencies: Duration = self.rows.iter().map(|(latency, _)| latency).sum();
                (in_flight * self.rows.len()) as f64 / latencies.as_secs_f64()
            }
        }
    }
}

impl Timed {
    fn of(answered: Answered, in_flight: usize) -> Timed {
        let requests_per_second = answered.per_second(in_flight);
        let mut rows = answered.rows;
        rows.sort_by_key(|(latency, _)| *latency);
        let at = |share: f64| {
            let place = (rows.len() as f64 * share) as usize;
            rows.get(place).or(rows.last()).map_or(Duration::ZERO, |(latency, _)| *latency)
        };
        let flops: f64 = rows.iter().map(|(_, flops)| *flops as f64).sum();
        Timed { requests_per_second, p50: at(0.5), p99: at(0.99), mean_flops: flops / rows.len().max(1) as f64 }
    }
}
