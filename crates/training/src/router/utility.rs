use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::TrainError;
use canet_data::Case;
use canet_domain::{History, RouteSpace};
use canet_evaluation::{Metric, target_rank};
use canet_model::{Forward, ForwardError, HostTensor};

/// At which place each route ranked what held-out users came to: what a slice is worth to a user.
///
/// Rows are cases in the [order](order) in which they are measured, columns routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Utilities {
    routes: usize,
    /// From 1; 0 where the item has no place. Row-major.
    ranks: Vec<f32>,
}

/// Cases between two looks at the clock.
pub(super) const CHUNK: usize = 512;

/// How a rank becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// NDCG@10: what is wanted, and mostly zero.
    Ndcg,
    /// Minus the logarithm of the rank: smoother, and not quite what is wanted.
    LogRank,
}

impl Kind {
    pub(super) const ALL: [Kind; 2] = [Kind::Ndcg, Kind::LogRank];

    /// Its name in the run's log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Ndcg => "ndcg@10",
            Kind::LogRank => "log_rank",
        }
    }
}

/// The order in which cases are measured, so that what is measured when time runs out is a fair sample.
pub(super) fn order(cases: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cases).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

impl Utilities {
    /// Cases measured.
    pub(super) fn cases(&self) -> usize {
        self.ranks.len().checked_div(self.routes).unwrap_or_default()
    }

    /// Measures further cases on every route, `batch` histories a forward pass.
    ///
    /// # Errors
    /// [`TrainError`] where the device fails.
    pub(super) fn measure(
        &mut self,
        forward: &dyn Forward,
        space: &RouteSpace,
        (max_len, batch): (usize, usize),
        cases: &[Case<'_>],
    ) -> Result<(), TrainError> {
        let histories =
            cases.iter().map(|case| History::new(case.history, max_len)).collect::<Result<Vec<History>, _>>()?;
        let mut by_length: Vec<usize> = (0..cases.len()).collect();
        by_length.sort_by_key(|case| histories[*case].len());
        let mut ranks = vec![0.0; cases.len() * space.len()];
        for batch in by_length.chunks(batch) {
            let read: Vec<&History> = batch.iter().map(|case| &histories[*case]).collect();
            for route in space.routes() {
                let scores = forward.scores(route, &read)?;
                for (place, case) in batch.iter().enumerate() {
                    let row =
                        scores.row(place).ok_or(ForwardError::Shape { columns: place + 1, values: scores.len() })?;
                    let rank = target_rank(row, cases[*case].history, cases[*case].target);
                    ranks[case * space.len() + route.index()] = rank.map_or(0.0, |rank| rank as f32);
                }
            }
        }
        self.routes = space.len();
        self.ranks.extend(ranks);
        Ok(())
    }

    /// The utilities as numbers, row-major.
    pub(super) fn values(&self, kind: Kind) -> Vec<f64> {
        let worst = f64::from(self.ranks.iter().copied().fold(1.0, f32::max));
        let value = |rank: &f32| match kind {
            Kind::Ndcg => Metric::Ndcg(10).value((*rank > 0.0).then_some(*rank as u32)),
            Kind::LogRank if *rank > 0.0 => -f64::from(*rank).ln(),
            Kind::LogRank => -worst.ln(),
        };
        self.ranks.iter().map(value).collect()
    }

    /// For the state file; `None` where nothing is measured.
    pub(crate) fn to_tensor(&self) -> Option<HostTensor> {
        let shape = vec![self.cases(), self.routes];
        (!self.ranks.is_empty()).then(|| HostTensor { shape, data: self.ranks.clone() })
    }

    /// Out of the state file.
    pub(crate) fn from_tensor(tensor: &HostTensor) -> Utilities {
        Utilities { routes: tensor.shape.last().copied().unwrap_or_default(), ranks: tensor.data.clone() }
    }
}
