use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use canet_domain::Flops;

/// Share of an error that one observation corrects: about 20 batches follow a change.
const RATE: f64 = 0.1;

/// An observation counts as no less and no more than these parts of the prediction off: together with [`RATE`] an
/// outlier, however far, moves a prediction by 10 % at most.
const CREDIBLE: (f64, f64) = (-0.5, 1.0);

/// Seconds of fixed cost that a batch may be thought to have.
const OVERHEAD: (f64, f64) = (1e-6, 10.0);

/// Seconds a FLOP that a device may be thought to take: 100 TFLOP/s to 1 MFLOP/s.
const PER_FLOP: (f64, f64) = (1e-14, 1e-6);

/// Parts of an error that a parameter takes, at least and at most: one that has become negligible can grow again.
const SHARE: (f64, f64) = (0.1, 0.9);

/// Times that a calibration is gone through: few observations settle a fit as many live ones do.
const CALIBRATION_ROUNDS: usize = 400;

/// What a batch is thought to cost: a fixed time and a time a FLOP, learnt from what was run.
///
/// The fit is a gradient descent on the relative error in the logarithms of both parameters: each is corrected by the
/// part of the prediction that it makes up. Neither can become negative, and no observation can throw it off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchCost {
    overhead: f64,
    per_flop: f64,
}

/// A batch that was run and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it computed.
    pub flops: Flops,
    /// How long that took.
    pub took: Duration,
}

impl Default for BatchCost {
    /// A millisecond and 50 GFLOP/s: one CPU core, until something has run.
    fn default() -> BatchCost {
        BatchCost { overhead: 1e-3, per_flop: 1.0 / 50e9 }
    }
}

impl BatchCost {
    /// The predicted seconds of `flops` in `batches` batches.
    pub fn seconds(&self, batches: usize, flops: Flops) -> f64 {
        self.overhead * batches as f64 + self.per_flop * flops as f64
    }

    /// Learns from one batch.
    pub fn observe(&mut self, ran: Ran) {
        let predicted = self.seconds(1, ran.flops);
        let error = (ran.took.as_secs_f64() / predicted - 1.0).clamp(CREDIBLE.0, CREDIBLE.1);
        let share = (self.overhead / predicted).clamp(SHARE.0, SHARE.1);
        self.overhead = (self.overhead * (1.0 + RATE * error * share)).clamp(OVERHEAD.0, OVERHEAD.1);
        self.per_flop = (self.per_flop * (1.0 + RATE * error * (1.0 - share))).clamp(PER_FLOP.0, PER_FLOP.1);
    }

    /// Learns from a few batches what many live ones would teach.
    pub fn calibrate(&mut self, timed: &[Ran]) {
        for _ in 0..CALIBRATION_ROUNDS {
            timed.iter().for_each(|ran| self.observe(*ran));
        }
    }
}

/// What the batches of every lane cost.
///
/// A lane that has not run yet is taken for the mean of all. Pure: no clock, no thread.
#[derive(Clone, Debug)]
pub struct CostModel<K> {
    all: BatchCost,
    lanes: HashMap<K, BatchCost>,
}

impl<K> Default for CostModel<K> {
    fn default() -> CostModel<K> {
        CostModel { all: BatchCost::default(), lanes: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> CostModel<K> {
    /// The cost of the lane's batches.
    pub fn lane(&self, lane: K) -> BatchCost {
        self.lanes.get(&lane).copied().unwrap_or(self.all)
    }

    /// The cost of a batch of a lane that is not known yet.
    pub fn any(&self) -> BatchCost {
        self.all
    }

    /// Learns from one batch of a lane.
    pub fn observe(&mut self, lane: K, ran: Ran) {
        let all = self.all;
        self.lanes.entry(lane).or_insert(all).observe(ran);
        self.all.observe(ran);
    }

    /// Starts from batches that were timed before the lanes serve, and forgets every other lane.
    pub fn calibrate(&mut self, timed: &[(K, Ran)]) {
        self.lanes.clear();
        for _ in 0..CALIBRATION_ROUNDS {
            timed.iter().for_each(|(lane, ran)| self.observe(*lane, *ran));
        }
    }

    /// Gives new lanes the costs of old ones, `(old, new)`, and forgets every lane but these.
    pub fn adopt(&mut self, pairs: &[(K, K)]) {
        let known: Vec<(K, BatchCost)> =
            pairs.iter().flat_map(|(old, new)| [(*old, self.lane(*old)), (*new, self.lane(*old))]).collect();
        self.lanes.clear();
        self.lanes.extend(known);
    }
}
