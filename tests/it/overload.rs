//! Overload, simulated: Poisson arrivals through admission, lanes and the cost model, on a device whose true cost only
//! the simulation knows. Time is a number here: a minute takes a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use canet_domain::{Choice, FfnInner, ModelShape, Reason, Route, RouteSpace, RouterShape, choose_route};
use canet_model::checkpoint::{BudgetPoint, Calibration};
use canet_serving::{Admission, Degrade, Due, Lanes, Need, Permit, Ran, Relief};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::support::rng;

const MAX_BATCH: usize = 64;
const LIMIT: f64 = 0.25;
const SECONDS: f64 = 60.0;
const BATCH_SECONDS: f64 = 6e-4;
const FLOPS_A_SECOND: f64 = 40e9;
const PATIENCE: Duration = Duration::from_millis(250);

/// What is simulated.
#[derive(Clone, Copy)]
struct Plan {
    /// Rows a second.
    rate: f64,
    /// Seconds of work that may wait.
    limit: f64,
    /// Which routes share a lane.
    lane: fn(&RouteSpace, Route) -> usize,
    /// Whether rows move to cheaper routes, and by which rule.
    degrade: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Never,
    /// The cost of routes is capped.
    Cap,
    /// The router's budget falls along its calibration.
    Curve,
}

fn by_route(_: &RouteSpace, route: Route) -> usize {
    route.index()
}

fn by_width(space: &RouteSpace, route: Route) -> usize {
    space.place(route)[0]
}

/// How it went.
#[derive(Debug, Default)]
struct Outcome {
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
}

struct Row {
    arrived: f64,
    length: usize,
    logits: Vec<f32>,
    permit: Permit<usize>,
}

struct Routed {
    row: Row,
    flops: u64,
}

struct Simulation {
    plan: Plan,
    space: RouteSpace,
    shape: ModelShape,
    rng: ChaCha8Rng,
    zero: Instant,
    next_arrival: f64,
    admission: Admission<usize>,
    arrived: VecDeque<Row>,
    lanes: Lanes<usize, Routed>,
    degrade: Degrade,
    /// Of the router, where rows move along it.
    calibration: Option<Calibration>,
    outcome: Outcome,
}

impl Simulation {
    fn new(plan: Plan) -> Simulation {
        let zero = Instant::now();
        let space = RouteSpace::new(vec![64, 96, 128], vec![2, 4, 6, 8], vec![64, 96, 128]).unwrap();
        let shape = ModelShape {
            items: 1682,
            width: 128,
            ffn_inner: FfnInner::Slice,
            router: RouterShape { dim: 32, ffn: 128 },
        };
        Simulation {
            plan,
            calibration: (plan.degrade == Rule::Curve).then(|| calibration(&space, &shape)),
            space,
            shape,
            rng: rng(9),
            zero,
            degrade: Degrade::new(zero),
            next_arrival: 0.0,
            admission: Admission::new(Duration::from_secs_f64(plan.limit), MAX_BATCH),
            arrived: VecDeque::new(),
            lanes: Lanes::new(PATIENCE),
            outcome: Outcome::default(),
        }
    }

    fn run(plan: Plan) -> Outcome {
        let mut simulation = Simulation::new(plan);
        let mut now = 0.0;
        let mut last_batch = 0.0;
        while now < SECONDS {
            simulation.arrive(now);
            if simulation.arrived.is_empty() && simulation.lanes.is_empty() {
                now = simulation.next_arrival;
                continue;
            }
            now = simulation.route(now);
            simulation.arrive(now);
            let after = simulation.execute(now, last_batch);
            last_batch = after - now;
            now = after;
        }
        simulation.outcome
    }

    /// Everything that arrives until `now` asks for its place.
    fn arrive(&mut self, now: f64) {
        while self.next_arrival <= now {
            let arrived = self.next_arrival;
            self.next_arrival -= (1.0 - self.rng.r#gen::<f64>()).ln() / self.plan.rate;
            let length = self.rng.gen_range(5..=50);
            let logits = logits(&self.space, &mut self.rng);
            self.outcome.sent += 1;
            let need = Need::Router {
                flops: self.shape.router_flops(self.space.len(), length),
                full_flops: self.shape.full_flops(&self.space, length),
            };
            match self.admission.admit(need) {
                Ok(permit) => self.arrived.push_back(Row { arrived, length, logits, permit }),
                Err(_) => self.outcome.refused += 1,
            }
            self.outcome.most_queued = self.outcome.most_queued.max(self.admission.queued());
        }
    }

    /// One micro-batch of the router after another; returns when the last is done.
    fn route(&mut self, mut now: f64) -> f64 {
        // With a calibration the router is at its end, where it chooses as it likes.
        let bias = vec![0.0; self.space.len()];
        let mut arrived = std::mem::take(&mut self.arrived);
        while !arrived.is_empty() {
            let rows = arrived.len().min(MAX_BATCH);
            let flops =
                arrived.iter().take(rows).map(|row| self.shape.router_flops(self.space.len(), row.length)).sum();
            let took = self.true_seconds(flops);
            self.admission.routed(Ran { flops, took: Duration::from_secs_f64(took) });
            now += took;
            let at = self.zero + Duration::from_secs_f64(now);
            let relief = self.degrade.relief(at, self.admission.pressure());
            let relief = if self.plan.degrade == Rule::Never { Relief::NONE } else { relief };
            let eased = relief.ease(1.0, self.calibration.as_ref());
            for mut row in arrived.drain(..rows) {
                let cost = |route| self.shape.route_flops(&self.space, route, row.length);
                let (Choice { route, .. }, reason) = eased.choose(&self.space, (&row.logits, &bias), cost);
                let flops = cost(route);
                self.outcome.degraded += usize::from(reason == Reason::Degraded);
                let lane = (self.plan.lane)(&self.space, route);
                row.permit.choose(lane, flops);
                let at = self.zero + Duration::from_secs_f64(row.arrived);
                self.lanes.push(
                    lane,
                    Due { arrived: at, deadline: at + Duration::from_secs(10) },
                    Routed { row, flops },
                );
            }
        }
        now
    }

    /// One batch of the most urgent lane; returns when it is done.
    fn execute(&mut self, now: f64, last_batch: f64) -> f64 {
        let at = self.zero + Duration::from_secs_f64(now);
        let Some(batch) = self.lanes.take(at, MAX_BATCH, |_| false) else { return now };
        let flops = batch.rows.iter().map(|routed| routed.flops).sum();
        let took = self.true_seconds(flops);
        for Routed { row, .. } in batch.rows {
            let waited = Duration::from_secs_f64(now - row.arrived);
            self.admission.begin(row.permit, waited, Duration::from_secs_f64(last_batch));
            self.outcome.answered += 1;
            self.outcome.latencies.push(now + took - row.arrived);
        }
        self.outcome.longest_batch = self.outcome.longest_batch.max(took);
        self.admission.ran(batch.lane, Ran { flops, took: Duration::from_secs_f64(took) });
        now + took
    }

    /// The true cost, give or take a fifth, and one batch in a hundred is held up.
    fn true_seconds(&mut self, flops: u64) -> f64 {
        let hold_up = if self.rng.gen_bool(0.01) { 3.0 } else { 1.0 };
        (BATCH_SECONDS + flops as f64 / FLOPS_A_SECOND) * self.rng.gen_range(0.8..1.2) * hold_up
    }
}

/// A router that likes a few routes far more than others.
fn logits(space: &RouteSpace, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let noise = |rng: &mut ChaCha8Rng| -(-(1.0 - rng.r#gen::<f32>()).ln()).max(1e-9).ln();
    (0..space.len()).map(|route| noise(rng) - (route * 7 % 36) as f32 / 6.0).collect()
}

/// Budgets of that router: the dearer FLOPs are to it, the less it spends. The highest is what it spends by itself.
fn calibration(space: &RouteSpace, shape: &ModelShape) -> Calibration {
    let mut rng = rng(10);
    let rows: Vec<Vec<f32>> = (0..500).map(|_| logits(space, &mut rng)).collect();
    let cost = |route| shape.route_flops(space, route, 50) as f64 / shape.full_flops(space, 50) as f64;
    let point = |price: f64| {
        let bias: Vec<f32> = space.routes().map(|route| (-price * cost(route)) as f32).collect();
        let spent: f64 = rows.iter().map(|row| cost(choose_route(space, row, &bias).route)).sum();
        let budget = spent / rows.len() as f64;
        BudgetPoint { budget, bias, spent: budget }
    };
    let calibration = Calibration { points: [64.0, 32.0, 16.0, 8.0, 4.0, 0.0].map(point).into() };
    calibration.check(space.len()).unwrap();
    calibration
}

/// Rows a second where every batch of slices and of the router is full: what the device can do at its best.
fn capacity() -> f64 {
    let mut simulation = Simulation::new(Plan { rate: 1.0, limit: 1e6, lane: by_width, degrade: Rule::Never });
    simulation.arrive(20_000.0);
    let (space, shape) = (&simulation.space, &simulation.shape);
    let flops = simulation.arrived.iter().map(|row| {
        let route = choose_route(space, &row.logits, &[0.0; 36]).route;
        shape.route_flops(space, route, row.length) + shape.router_flops(space.len(), row.length)
    });
    let a_row = flops.sum::<u64>() as f64 / simulation.arrived.len() as f64;
    let batches = 2.0 / MAX_BATCH as f64;
    // One batch in a hundred takes three times as long.
    1.0 / (1.02 * (BATCH_SECONDS * batches + a_row / FLOPS_A_SECOND))
}

#[test]
fn at_three_times_the_capacity_the_goodput_stays_and_the_wait_is_bounded() {
    for lane in [by_route, by_width] {
        let capacity = capacity();
        let mut outcome = Simulation::run(Plan { rate: 3.0 * capacity, limit: LIMIT, lane, degrade: Rule::Never });
        let goodput = outcome.answered as f64 / SECONDS;
        let p99 = outcome.p99();
        assert!(goodput >= 0.9 * capacity, "{goodput} of {capacity}");
        assert!(p99 <= LIMIT + 2.0 * outcome.longest_batch, "{p99} {}", outcome.longest_batch);
        assert!(outcome.sent - outcome.refused - outcome.answered <= outcome.most_queued);
    }
}

#[test]
fn below_the_capacity_nobody_is_refused() {
    for lane in [by_route, by_width] {
        for degrade in [Rule::Cap, Rule::Curve] {
            let outcome = Simulation::run(Plan { rate: 0.6 * capacity(), limit: LIMIT, lane, degrade });
            assert!(outcome.refused == 0, "{} of {}", outcome.refused, outcome.sent);
            // A burst may come near the limit; it is over at once.
            assert!(outcome.degraded * 20 < outcome.sent, "{} of {}", outcome.degraded, outcome.sent);
        }
    }
}

#[test]
fn degrading_instead_of_refusing_halves_the_refusals_at_least() {
    for lane in [by_route, by_width] {
        let plan = Plan { rate: 3.0 * capacity(), limit: LIMIT, lane, degrade: Rule::Never };
        let refusing = Simulation::run(plan);
        for degrade in [Rule::Cap, Rule::Curve] {
            let mut degrading = Simulation::run(Plan { degrade, ..plan });
            let refused = (degrading.refused, refusing.refused);
            assert!(refused.0 * 2 < refused.1, "{degrade:?}: {refused:?}");
            assert!(degrading.p99() <= LIMIT + 2.0 * degrading.longest_batch, "{degrade:?}");
        }
    }
}
