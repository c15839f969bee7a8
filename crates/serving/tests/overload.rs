//! Overload, simulated: Poisson arrivals at the scheduler that the server runs, on a device whose true cost only the
//! simulation knows. Time is a number here.
//!
//! `cargo test -p canet-serving --test overload -- --nocapture` prints the goodput.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::time::{Duration, Instant};

use canet_domain::{Choice, FfnInner, ModelShape, Reason, Route, RouteSpace, RouterShape, choose_route};
use canet_model::checkpoint::{BudgetPoint, Calibration};
use canet_serving::scheduler::{Arrival, Cancellable, Due, Limits, Routed, Scheduler, SharesRouter, Work};
use canet_testing::rng;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

const MAX_BATCH: usize = 64;
const LIMIT: f64 = 0.25;
const BATCH_SECONDS: f64 = 6e-4;
const FLOPS_A_SECOND: f64 = 40e9;

/// What is simulated.
#[derive(Clone, Copy)]
struct Plan {
    seconds: f64,
    /// Rows a second.
    rate: f64,
    lane: Lane,
    degrade: Rule,
}

/// Which routes share a lane.
#[derive(Clone, Copy, Debug)]
enum Lane {
    Route,
    Width,
}

/// Whether rows move to cheaper routes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Never,
    /// The cost of routes is capped.
    Cap,
    /// The router's budget falls along its calibration.
    Curve,
}

/// How a simulation ended.
#[derive(Debug, Default)]
struct Outcome {
    seconds: f64,
    sent: usize,
    answered: usize,
    refused: usize,
    degraded: usize,
    /// Seconds from arrival to answer.
    latencies: Vec<f64>,
    longest_batch: f64,
    most_queued: usize,
}

impl Outcome {
    fn p99(&mut self) -> f64 {
        self.latencies.sort_by(f64::total_cmp);
        self.latencies[self.latencies.len() * 99 / 100]
    }

    fn goodput(&self) -> f64 {
        self.answered as f64 / self.seconds
    }
}

struct Request {
    arrived: f64,
    length: usize,
    logits: Vec<f32>,
}

/// A request whose route is known.
struct Answering {
    arrived: f64,
    flops: u64,
}

impl Cancellable for Request {}
impl SharesRouter for Request {}
impl Cancellable for Answering {}

/// Users who send requests.
struct Users {
    space: RouteSpace,
    shape: ModelShape,
    rng: ChaCha8Rng,
    rate: f64,
    next_arrival: f64,
}

impl Users {
    fn new(rate: f64) -> Users {
        let space = RouteSpace::new(vec![64, 96, 128], vec![2, 4, 6, 8], vec![64, 96, 128]).unwrap();
        let router = RouterShape { dim: 32, ffn: 128 };
        let shape = ModelShape { items: 1682, width: 128, ffn_inner: FfnInner::Slice, router };
        Users { space, shape, rng: rng(9), rate, next_arrival: 0.0 }
    }

    fn send(&mut self) -> Request {
        let arrived = self.next_arrival;
        self.next_arrival -= (1.0 - self.rng.r#gen::<f64>()).ln() / self.rate;
        let length = self.rng.gen_range(5..=50);
        Request { arrived, length, logits: logits(&self.space, &mut self.rng) }
    }

    fn router_flops(&self, request: &Request) -> u64 {
        self.shape.router_flops(self.space.len(), request.length)
    }
}

struct Simulation {
    plan: Plan,
    users: Users,
    /// Draws what batches really take.
    device: ChaCha8Rng,
    start: Instant,
    scheduler: Scheduler<usize, Request, Answering>,
    /// The router's, if rows move along it.
    calibration: Option<Calibration>,
    outcome: Outcome,
}

impl Simulation {
    fn run(plan: Plan) -> Outcome {
        let users = Users::new(plan.rate);
        let start = Instant::now();
        let limits = Limits {
            executors: 1,
            max_batch: MAX_BATCH,
            queue_limit: Duration::from_secs_f64(LIMIT),
            degrade: plan.degrade != Rule::Never,
        };
        let mut simulation = Simulation {
            plan,
            calibration: (plan.degrade == Rule::Curve).then(|| calibration(&users.space, &users.shape)),
            users,
            device: rng(11),
            start,
            scheduler: Scheduler::new(limits, start),
            outcome: Outcome { seconds: plan.seconds, ..Outcome::default() },
        };
        let mut now = 0.0;
        while now < plan.seconds {
            simulation.admit(now);
            now = simulation.work(now);
        }
        simulation.outcome
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    /// Every request that arrives until `now` asks for its place.
    fn admit(&mut self, now: f64) {
        while self.users.next_arrival <= now {
            let row = self.users.send();
            self.outcome.sent += 1;
            let arrived = self.at(row.arrived);
            let due = Due { arrived, deadline: arrived + Duration::from_secs(10) };
            let router_flops = self.users.router_flops(&row);
            let full_flops = self.users.shape.full_flops(&self.users.space, row.length);
            if self.scheduler.admit(due, Arrival::Unrouted { row, router_flops, full_flops }).is_err() {
                self.outcome.refused += 1;
            }
            self.outcome.most_queued = self.outcome.most_queued.max(self.scheduler.queued());
        }
    }

    /// Does what the scheduler says; returns when that is done.
    fn work(&mut self, now: f64) -> f64 {
        match self.scheduler.next(0, self.at(now)) {
            None => self.users.next_arrival,
            Some(Work::Route(batch)) => {
                let took = self.true_seconds(batch.rows.iter().map(|row| self.users.router_flops(row)).sum());
                let router = batch.level.router(1.0, self.calibration.as_ref());
                let routed = batch.rows.into_iter().map(|row| {
                    let Users { space, shape, .. } = &self.users;
                    let cost = |route| shape.route_flops(space, route, row.length);
                    // A calibrated router is at the end of its curve, where it chooses freely.
                    let (Choice { route, .. }, reason) = router.choose(space, &row.logits, &[0.0; 36], cost);
                    self.outcome.degraded += usize::from(reason == Reason::Degraded);
                    let (lane, flops) = (self.plan.lane.of(space, route), cost(route));
                    Routed { row: Answering { arrived: row.arrived, flops }, lane, flops }
                });
                let routed = routed.collect();
                self.scheduler.routed(0, Duration::from_secs_f64(took), routed);
                now + took
            }
            Some(Work::Run(batch)) => {
                let took = self.true_seconds(batch.rows.iter().map(|started| started.row.flops).sum());
                self.scheduler.completed(0, Duration::from_secs_f64(took), None);
                self.outcome.answered += batch.rows.len();
                let latencies = batch.rows.iter().map(|started| now + took - started.row.arrived);
                self.outcome.latencies.extend(latencies);
                self.outcome.longest_batch = self.outcome.longest_batch.max(took);
                now + took
            }
        }
    }

    /// The true cost, give or take a fifth; one batch in a hundred takes three times as long.
    fn true_seconds(&mut self, flops: u64) -> f64 {
        let delay = if self.device.gen_bool(0.01) { 3.0 } else { 1.0 };
        (BATCH_SECONDS + flops as f64 / FLOPS_A_SECOND) * self.device.gen_range(0.8..1.2) * delay
    }
}

impl Lane {
    fn of(self, space: &RouteSpace, route: Route) -> usize {
        match self {
            Lane::Route => route.index(),
            Lane::Width => space.place(route)[0],
        }
    }
}

/// A router that prefers a few routes by far.
fn logits(space: &RouteSpace, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let noise = |rng: &mut ChaCha8Rng| -(-(1.0 - rng.r#gen::<f32>()).ln()).max(1e-9).ln();
    (0..space.len()).map(|route| noise(rng) - (route * 7 % 36) as f32 / 6.0).collect()
}

/// Budgets of that router: the higher its price of a FLOP, the less it spends. The highest budget is what it spends freely.
fn calibration(space: &RouteSpace, shape: &ModelShape) -> Calibration {
    let mut rng = rng(10);
    let rows: Vec<Vec<f32>> = (0..500).map(|_| logits(space, &mut rng)).collect();
    let cost = |route| shape.route_flops(space, route, 50) as f64 / shape.full_flops(space, 50) as f64;
    let point = |price: f64| {
        let bias: Vec<f32> = space.routes().map(|route| (-price * cost(route)) as f32).collect();
        let spent: f64 = rows.iter().map(|row| cost(choose_route(space, row, &bias).route)).sum();
        let budget = spent / rows.len() as f64;
        BudgetPoint { budget, bias, route: None, spent: budget }
    };
    let calibration = Calibration { points: [64.0, 32.0, 16.0, 8.0, 4.0, 0.0].map(point).into() };
    calibration.check(space).unwrap();
    calibration
}

/// The rows a second of a device whose batches, the router's too, are always full.
fn capacity() -> f64 {
    const ROWS: usize = 20_000;
    let mut users = Users::new(1.0);
    let flops = (0..ROWS).map(|_| {
        let request = users.send();
        let route = choose_route(&users.space, &request.logits, &[0.0; 36]).route;
        users.shape.route_flops(&users.space, route, request.length) + users.router_flops(&request)
    });
    let a_row = flops.sum::<u64>() as f64 / ROWS as f64;
    let batches = 2.0 / MAX_BATCH as f64;
    // One batch in a hundred takes three times as long.
    1.0 / (1.02 * (BATCH_SECONDS * batches + a_row / FLOPS_A_SECOND))
}

fn print(plan: Plan, outcome: &mut Outcome) {
    let (Plan { rate, lane, degrade, .. }, p99) = (plan, 1e3 * outcome.p99());
    println!(
        "lanes by {lane:?}, degrade {degrade:?}, {:.1} x capacity: goodput {:.3} x capacity, refused {:.1} %, degraded \
         {:.1} %, p99 {p99:.0} ms",
        rate / capacity(),
        outcome.goodput() / capacity(),
        100.0 * outcome.refused as f64 / outcome.sent as f64,
        100.0 * outcome.degraded as f64 / outcome.sent as f64,
    );
}

#[test]
fn at_three_times_the_capacity_the_goodput_stays_and_the_wait_is_bounded() {
    for lane in [Lane::Route, Lane::Width] {
        let capacity = capacity();
        let plan = Plan { seconds: 60.0, rate: 3.0 * capacity, lane, degrade: Rule::Never };
        let mut outcome = Simulation::run(plan);
        print(plan, &mut outcome);
        let (goodput, p99) = (outcome.goodput(), outcome.p99());
        assert!(goodput >= 0.9 * capacity, "{goodput} of {capacity}");
        assert!(p99 <= LIMIT + 2.0 * outcome.longest_batch, "{p99} {}", outcome.longest_batch);
        assert!(outcome.sent - outcome.refused - outcome.answered <= outcome.most_queued);
    }
}

#[test]
fn below_the_capacity_no_row_is_refused() {
    for lane in [Lane::Route, Lane::Width] {
        for degrade in [Rule::Cap, Rule::Curve] {
            let outcome = Simulation::run(Plan { seconds: 10.0, rate: 0.6 * capacity(), lane, degrade });
            assert!(outcome.refused == 0, "{} of {}", outcome.refused, outcome.sent);
            // A burst may come near the limit, for a moment.
            assert!(outcome.degraded * 20 < outcome.sent, "{} of {}", outcome.degraded, outcome.sent);
        }
    }
}

#[test]
fn degrading_rows_at_least_halves_the_refusals() {
    for lane in [Lane::Route, Lane::Width] {
        let plan = Plan { seconds: 10.0, rate: 3.0 * capacity(), lane, degrade: Rule::Never };
        let refusing = Simulation::run(plan);
        for degrade in [Rule::Cap, Rule::Curve] {
            let plan = Plan { degrade, ..plan };
            let mut degrading = Simulation::run(plan);
            print(plan, &mut degrading);
            let refused = (degrading.refused, refusing.refused);
            assert!(refused.0 * 2 < refused.1, "{degrade:?}: {refused:?}");
            assert!(degrading.p99() <= LIMIT + 2.0 * degrading.longest_batch, "{degrade:?}");
        }
    }
}
