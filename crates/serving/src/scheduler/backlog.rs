use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::cost::{CostModel, LinearCost};
use canet_domain::Flops;

/// The share of the full model's cost that a row is expected to run before any row was routed.
const EXPECTED_SHARE: f64 = 0.5;

/// The weight of one routed row in the expected share.
const SHARE_RATE: f64 = 0.02;

/// The work that waits, one row after another: a row is one unit of work, alone or in a call of many.
#[derive(Debug)]
pub(crate) struct Backlog<L> {
    rows: usize,
    lanes: HashMap<L, QueuedWork>,
    /// The router's work on rows that have no lane yet.
    unrouted: QueuedWork,
    /// What the rows without a lane would cost in the full slice.
    unrouted_full: Flops,
    /// The share of the full slice's cost that routed rows have run lately.
    share: f64,
}

/// What a waiting row asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand<L> {
    /// The row's route is known.
    Slice {
        /// The lane in which it waits.
        lane: L,
        /// The slice's cost.
        flops: Flops,
    },
    /// The router will choose.
    Router {
        /// The router's cost.
        flops: Flops,
        /// What the full slice would cost.
        full_flops: Flops,
    },
}

/// The rows that wait in one place.
#[derive(Clone, Copy, Debug, Default)]
struct QueuedWork {
    rows: usize,
    flops: Flops,
}

impl QueuedWork {
    fn seconds(self, cost: LinearCost, max_batch: usize) -> f64 {
        cost.seconds(self.rows.div_ceil(max_batch), self.flops)
    }

    fn add(&mut self, flops: Flops) {
        self.rows += 1;
        self.flops += flops;
    }

    fn subtract(&mut self, flops: Flops) {
        self.rows -= 1;
        self.flops -= flops;
    }
}

impl<L> Default for Backlog<L> {
    fn default() -> Backlog<L> {
        Backlog {
            rows: 0,
            lanes: HashMap::new(),
            unrouted: QueuedWork::default(),
            unrouted_full: 0,
            share: EXPECTED_SHARE,
        }
    }
}

impl<L: Copy + Eq + Hash> Backlog<L> {
    /// How many rows wait.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Counts a row.
    pub(crate) fn add(&mut self, demand: Demand<L>) {
        self.rows += 1;
        match demand {
            Demand::Slice { lane, flops } => self.lanes.entry(lane).or_default().add(flops),
            Demand::Router { flops, full_flops } => {
                self.unrouted.add(flops);
                self.unrouted_full += full_flops;
            }
        }
    }

    /// Counts a row no longer.
    pub(crate) fn remove(&mut self, demand: Demand<L>) {
        self.rows -= 1;
        match demand {
            Demand::Slice { lane, flops } => {
                let Some(load) = self.lanes.get_mut(&lane) else { return };
                load.subtract(flops);
                if load.rows == 0 {
                    self.lanes.remove(&lane);
                }
            }
            Demand::Router { flops, full_flops } => {
                self.unrouted.subtract(flops);
                self.unrouted_full -= full_flops;
            }
        }
    }

    /// The router has put a row into a lane: from now on it counts with the cost of its slice.
    pub(crate) fn route(&mut self, before: Demand<L>, lane: L, flops: Flops) {
        if let Demand::Router { full_flops, .. } = before
            && full_flops > 0
        {
            self.share += SHARE_RATE * (flops as f64 / full_flops as f64 - self.share);
        }
        self.remove(before);
        self.add(Demand::Slice { lane, flops });
    }

    /// The predicted seconds of the batches that the waiting rows will make, run one after another.
    ///
    /// A row without a lane counts with the router's cost and with the expected share of the full slice's cost.
    pub(crate) fn seconds(&self, costs: &CostModel<L>, max_batch: usize) -> f64 {
        let lanes: f64 = self.lanes.iter().map(|(lane, load)| load.seconds(costs.lane(*lane), max_batch)).sum();
        let expected = QueuedWork { flops: (self.unrouted_full as f64 * self.share) as Flops, ..self.unrouted };
        let routing = self.unrouted.seconds(costs.router(), max_batch);
        lanes + routing + expected.seconds(costs.any(), max_batch)
    }
}

/// Predicted seconds as a duration.
pub(crate) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
