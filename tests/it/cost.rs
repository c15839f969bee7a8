//! What batches are predicted to cost, against devices whose true cost the test knows.

use std::time::Duration;

use canet_serving::{BatchCost, CostModel, Ran};
use rand::Rng;

use super::support::rng;

/// A device that takes `overhead` seconds a batch, computes at `gflops`, and is off by up to `noise` of that.
struct Device {
    overhead: f64,
    gflops: f64,
    noise: f64,
}

impl Device {
    fn seconds(&self, flops: u64) -> f64 {
        self.overhead + flops as f64 / (self.gflops * 1e9)
    }

    fn run(&self, flops: u64, rng: &mut impl Rng) -> Ran {
        let factor = 1.0 + self.noise * rng.gen_range(-1.0..=1.0);
        Ran { flops, took: Duration::from_secs_f64(self.seconds(flops) * factor) }
    }
}

/// Batches of 1 to 64 rows of 10 MFLOP.
fn flops(rng: &mut impl Rng) -> u64 {
    10_000_000 * rng.gen_range(1..=64)
}

/// The largest error of a prediction, as a part of the truth, over all sizes of batch.
fn worst(cost: BatchCost, device: &Device) -> f64 {
    let error = |rows: u64| cost.seconds(1, rows * 10_000_000) / device.seconds(rows * 10_000_000) - 1.0;
    (1..=64).map(|rows| error(rows).abs()).fold(0.0, f64::max)
}

#[test]
fn predictions_converge_to_what_batches_take() {
    let mut rng = rng(1);
    let slow = Device { overhead: 8e-3, gflops: 9.0, noise: 0.2 };
    let fast = Device { overhead: 1e-4, gflops: 900.0, noise: 0.2 };
    for device in [slow, fast] {
        let mut cost = BatchCost::default();
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
    let mut cost = BatchCost::default();
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
    let before = BatchCost::default();
    for took in [Duration::ZERO, Duration::from_secs(3600), Duration::MAX] {
        let mut after = before;
        after.observe(Ran { flops: 1_000_000_000, took });
        let moved = after.seconds(1, 1_000_000_000) / before.seconds(1, 1_000_000_000) - 1.0;
        assert!(moved.abs() <= 0.1 + 1e-9, "{took:?}: {moved}");
    }
}

#[test]
fn no_observation_makes_a_cost_negative_or_endless() {
    let mut cost = BatchCost::default();
    for (flops, took) in [(0, Duration::ZERO), (u64::MAX, Duration::ZERO), (0, Duration::MAX), (1, Duration::MAX)] {
        for _ in 0..10_000 {
            cost.observe(Ran { flops, took });
            let seconds = cost.seconds(1, 1_000_000);
            assert!(seconds > 0.0 && seconds < 100.0, "{cost:?}");
        }
    }
    // And it finds back.
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
    // A lane of a model that serves no more.
    costs.observe('z', Ran { flops: 1, took: Duration::from_secs(1) });
    let timed = devices
        .each_ref()
        .map(|(lane, device)| [10_000_000, 80_000_000, 640_000_000].map(|flops| (*lane, device.run(flops, &mut rng))));
    costs.calibrate(timed.as_flattened());
    for (lane, device) in &devices {
        assert!(worst(costs.lane(*lane), device) < 0.25, "{lane}: {costs:?}");
    }
    assert_eq!(costs.lane('z'), costs.any());
    // A lane that nobody timed is taken for the others' mean.
    let (a, b) = (devices[0].1.seconds(300_000_000), devices[1].1.seconds(300_000_000));
    let unknown = costs.lane('c').seconds(1, 300_000_000);
    assert!(unknown > b * 0.9 && unknown < a * 1.1, "{a} {b} {unknown}");
}

#[test]
fn a_lane_that_takes_the_place_of_another_starts_from_its_cost_and_strangers_are_forgotten() {
    let mut costs = CostModel::default();
    let ran = |milliseconds| Ran { flops: 10_000_000, took: Duration::from_millis(milliseconds) };
    costs.calibrate(&[("old", ran(2)), ("stranger", ran(50))]);
    let (old, any) = (costs.lane("old"), costs.any());
    costs.adopt(&[("old", "new")]);
    assert_eq!((costs.lane("new"), costs.lane("old"), costs.lane("stranger")), (old, old, any));
    assert_ne!(old, any);
}
