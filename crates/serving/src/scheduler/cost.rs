use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use canet_domain::Flops;

/// The share of an error that one observation corrects: a prediction follows a change within about 20 observations.
const RATE: f64 = 0.1;

/// The bounds of an observation's relative error. With [`RATE`] they keep one outlier, however far, from moving a
/// prediction by more than 10 %.
const ERROR: (f64, f64) = (-0.5, 1.0);

/// The bounds of a batch's fixed cost, in seconds.
const OVERHEAD: (f64, f64) = (1e-6, 10.0);

/// The bounds of the seconds a FLOP: 100 TFLOP/s to 1 MFLOP/s.
const PER_FLOP: (f64, f64) = (1e-14, 1e-6);

/// The bounds of the share of an error that one parameter takes: a parameter that has become negligible can grow again.
const SHARE: (f64, f64) = (0.1, 0.9);

/// How often a calibration repeats its observations: a few of them then settle the fit as well as many live ones do.
const CALIBRATION_ROUNDS: usize = 400;

/// What a batch is predicted to cost: a fixed time and a time a FLOP, learnt from batches that ran.
///
/// The fit is a gradient descent on the relative error in the logarithms of both parameters. Each is corrected by the
/// part of the prediction that it makes up. Neither can become negative, and no observation can upset the fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LinearCost {
    overhead: f64,
    per_flop: f64,
}

/// A batch that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTiming {
    /// What it computed.
    pub flops: Flops,
    /// How long it took.
    pub took: Duration,
}

impl Default for LinearCost {
    /// A millisecond and 50 GFLOP/s: one CPU core, until a batch has run.
    fn default() -> LinearCost {
        LinearCost { overhead: 1e-3, per_flop: 1.0 / 50e9 }
    }
}

impl LinearCost {
    /// The predicted seconds of `flops` in `batches` batches.
    pub(crate) fn seconds(&self, batches: usize, flops: Flops) -> f64 {
        self.overhead * batches as f64 + self.per_flop * flops as f64
    }

    /// Learns from one batch.
    pub(crate) fn observe(&mut self, ran: BatchTiming) {
        let predicted = self.seconds(1, ran.flops);
        let change = correction(ran.took.as_secs_f64(), predicted);
        let share = (self.overhead / predicted).clamp(SHARE.0, SHARE.1);
        self.overhead = (self.overhead * (1.0 + change * share)).clamp(OVERHEAD.0, OVERHEAD.1);
        self.per_flop = (self.per_flop * (1.0 + change * (1.0 - share))).clamp(PER_FLOP.0, PER_FLOP.1);
    }

    /// Learns from a few batches as from many live ones.
    fn calibrate(&mut self, timed: &[BatchTiming]) {
        for _ in 0..CALIBRATION_ROUNDS {
            timed.iter().for_each(|ran| self.observe(*ran));
        }
    }
}

/// The predicted costs of the router's batches and of each lane's.
///
/// A lane that has not run yet costs as much as the mean of all lanes.
#[derive(Clone, Debug)]
pub(crate) struct CostModel<L> {
    router: LinearCost,
    all: LinearCost,
    lanes: HashMap<L, LinearCost>,
}

impl<L> Default for CostModel<L> {
    fn default() -> CostModel<L> {
        CostModel { router: LinearCost::default(), all: LinearCost::default(), lanes: HashMap::new() }
    }
}

impl<L: Copy + Eq + Hash> CostModel<L> {
    /// The cost of the router's micro-batches.
    pub(crate) fn router(&self) -> LinearCost {
        self.router
    }

    /// The cost of a lane's batches.
    pub(crate) fn lane(&self, lane: L) -> LinearCost {
        self.lanes.get(&lane).copied().unwrap_or(self.all)
    }

    /// The cost of a batch whose lane is not known yet.
    pub(crate) fn any(&self) -> LinearCost {
        self.all
    }

    /// Learns from one micro-batch of the router.
    pub(crate) fn observe_router(&mut self, ran: BatchTiming) {
        self.router.observe(ran);
    }

    /// Learns from one batch of a lane.
    pub(crate) fn observe(&mut self, lane: L, ran: BatchTiming) {
        let all = self.all;
        self.lanes.entry(lane).or_insert(all).observe(ran);
        self.all.observe(ran);
    }

    /// Starts from batches that were timed before the lanes serve, and forgets every other lane.
    pub(crate) fn calibrate(&mut self, lanes: &[(L, BatchTiming)], router: &[BatchTiming]) {
        self.lanes.clear();
        for _ in 0..CALIBRATION_ROUNDS {
            lanes.iter().for_each(|(lane, ran)| self.observe(*lane, *ran));
        }
        self.router.calibrate(router);
    }

    /// Gives new lanes the costs of old ones, as pairs `(old, new)`, and forgets every lane that is not to be kept.
    pub(crate) fn adopt(&mut self, pairs: &[(L, L)], keep: impl Fn(L) -> bool) {
        let known: Vec<(L, LinearCost)> = pairs.iter().map(|(old, new)| (*new, self.lane(*old))).collect();
        self.lanes.extend(known);
        self.lanes.retain(|lane, _| keep(*lane));
    }
}

/// The relative change by which a prediction follows one observation: from -5 % to +10 %.
pub(crate) fn correction(observed: f64, predicted: f64) -> f64 {
    RATE * (observed / predicted - 1.0).clamp(ERROR.0, ERROR.1)
}

#[cfg(test)]
mod tests {
    use canet_testing::rng;
    use rand::Rng;

    use super::*;

    /// A device that takes `overhead` seconds a batch and computes at `gflops`. Its times vary by up to `noise`, a share.
    struct Device {
        overhead: f64,
        gflops: f64,
        noise: f64,
    }

    impl Device {
        fn seconds(&self, flops: u64) -> f64 {
            self.overhead + flops as f64 / (self.gflops * 1e9)
        }

        fn run(&self, flops: u64, rng: &mut impl Rng) -> BatchTiming {
            let factor = 1.0 + self.noise * rng.gen_range(-1.0..=1.0);
            BatchTiming { flops, took: Duration::from_secs_f64(self.seconds(flops) * factor) }
        }
    }

    /// Batches of 1 to 64 rows of 10 MFLOP.
    fn flops(rng: &mut impl Rng) -> u64 {
        10_000_000 * rng.gen_range(1..=64)
    }

    /// The largest relative error of a prediction over all sizes of batch.
    fn worst(cost: LinearCost, device: &Device) -> f64 {
        let error = |rows: u64| cost.seconds(1, rows * 10_000_000) / device.seconds(rows * 10_000_000) - 1.0;
        (1..=64).map(|rows| error(rows).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn predictions_converge_to_the_times_of_batches() {
        let mut rng = rng(1);
        let slow = Device { overhead: 8e-3, gflops: 9.0, noise: 0.2 };
        let fast = Device { overhead: 1e-4, gflops: 900.0, noise: 0.2 };
        for device in [slow, fast] {
            let mut cost = LinearCost::default();
            for _ in 0..2000 {
                let flops = flops(&mut rng);
                cost.observe(device.run(flops, &mut rng));
            }
            assert!(worst(cost, &device) < 0.15, "{cost:?}");
        }
    }

    #[test]
    fn predictions_follow_a_device_that_becomes_slower() {
        let mut rng = rng(2);
        let mut cost = LinearCost::default();
        for gflops in [50.0, 15.0, 50.0] {
            let device = Device { overhead: 1e-3, gflops, noise: 0.0 };
            for _ in 0..100 {
                let flops = flops(&mut rng);
                cost.observe(device.run(flops, &mut rng));
            }
            assert!(worst(cost, &device) < 0.15, "{gflops}: {cost:?}");
        }
    }

    #[test]
    fn an_outlier_moves_a_prediction_little_however_far_it_is() {
        let before = LinearCost::default();
        for took in [Duration::ZERO, Duration::from_secs(3600), Duration::MAX] {
            let mut after = before;
            after.observe(BatchTiming { flops: 1_000_000_000, took });
            let moved = after.seconds(1, 1_000_000_000) / before.seconds(1, 1_000_000_000) - 1.0;
            assert!(moved.abs() <= 0.1 + 1e-9, "{took:?}: {moved}");
        }
    }

    #[test]
    fn no_observation_makes_a_cost_negative_or_infinite() {
        let mut cost = LinearCost::default();
        for (flops, took) in [(0, Duration::ZERO), (u64::MAX, Duration::ZERO), (0, Duration::MAX), (1, Duration::MAX)] {
            for _ in 0..10_000 {
                cost.observe(BatchTiming { flops, took });
                let seconds = cost.seconds(1, 1_000_000);
                assert!(seconds > 0.0 && seconds < 100.0, "{cost:?}");
            }
        }
        // The fit recovers.
        let device = Device { overhead: 1e-3, gflops: 50.0, noise: 0.0 };
        let mut rng = rng(3);
        for _ in 0..20_000 {
            let flops = flops(&mut rng);
            cost.observe(device.run(flops, &mut rng));
        }
        assert!(worst(cost, &device) < 0.1, "{cost:?}");
    }

    #[test]
    fn a_few_timed_batches_are_enough_to_start_from() {
        let devices = [('a', 2e-3, 30.0), ('b', 1e-3, 60.0)]
            .map(|(lane, overhead, gflops)| (lane, Device { overhead, gflops, noise: 0.0 }));
        let mut rng = rng(4);
        let mut costs = CostModel::default();
        // A lane of a replaced model.
        costs.observe('z', BatchTiming { flops: 1, took: Duration::from_secs(1) });
        let timed = devices.each_ref().map(|(lane, device)| {
            [10_000_000, 80_000_000, 640_000_000].map(|flops| (*lane, device.run(flops, &mut rng)))
        });
        costs.calibrate(timed.as_flattened(), &[]);
        for (lane, device) in &devices {
            assert!(worst(costs.lane(*lane), device) < 0.25, "{lane}: {costs:?}");
        }
        assert_eq!(costs.lane('z'), costs.any());
        // An unknown lane costs as much as the mean of the others.
        let (a, b) = (devices[0].1.seconds(300_000_000), devices[1].1.seconds(300_000_000));
        let unknown = costs.lane('c').seconds(1, 300_000_000);
        assert!(unknown > b * 0.9 && unknown < a * 1.1, "{a} {b} {unknown}");
    }

    #[test]
    fn a_new_lane_starts_from_the_cost_of_its_counterpart_and_other_lanes_are_forgotten() {
        let mut costs = CostModel::default();
        let ran = |milliseconds| BatchTiming { flops: 10_000_000, took: Duration::from_millis(milliseconds) };
        costs.calibrate(&[("old", ran(2)), ("other", ran(50))], &[]);
        let (old, any) = (costs.lane("old"), costs.any());
        costs.adopt(&[("old", "new")], |lane| lane != "other");
        assert_eq!((costs.lane("new"), costs.lane("old"), costs.lane("other")), (old, old, any));
        assert_ne!(old, any);
    }
}
