use canet_data::Case;
use canet_domain::{History, RouteSpace, Window};
use canet_evaluation::{Metric, SeenItems, rank_targets};
use canet_model::{Forward, HostTensor};

use crate::error::TrainError;

/// The rank that each route gives to the true next item of held-out cases.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RouteRanks {
    routes: usize,
    /// Ranks from 1, or 0 if the item does not rank: `[cases, routes]`, row-major
    ranks: Vec<f32>,
}

/// A model whose routes are measured.
pub(crate) struct RankedModel<'a> {
    pub forward: &'a dyn Forward,
    pub space: &'a RouteSpace,
    /// Which items of a history the model reads.
    pub window: Window,
    /// Histories in one forward pass.
    pub batch: usize,
    /// The rule for items of a user's own history.
    pub seen: SeenItems,
}

/// The utility of a route for a case, as a function of the rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Utility {
    /// NDCG@10. It is the metric of the whole training, but zero for most cases.
    Ndcg,
    /// Minus the logarithm of the rank. It is not zero anywhere, so it is easier to learn.
    LogRank,
}

impl Utility {
    /// Its name in the run log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Utility::Ndcg => "ndcg@10",
            Utility::LogRank => "log_rank",
        }
    }
}

impl RouteRanks {
    /// Number of cases measured so far.
    pub(crate) fn cases(&self) -> usize {
        self.ranks.len().checked_div(self.routes).unwrap_or_default()
    }

    /// Whether they may be the ranks of some of this many cases on this many routes.
    pub(crate) fn belong_to(&self, cases: usize, routes: usize) -> bool {
        self.cases() <= cases && (self.ranks.is_empty() || self.routes == routes)
    }

    /// Measures further cases on every route.
    ///
    /// # Errors
    /// [`TrainError`], if the device fails.
    pub(crate) fn measure(&mut self, model: &RankedModel<'_>, cases: &[Case<'_>]) -> Result<(), TrainError> {
        let histories = cases
            .iter()
            .map(|case| History::in_window(case.history, model.window, 0))
            .collect::<Result<Vec<History>, _>>()?;
        let mut by_length: Vec<usize> = (0..cases.len()).collect();
        by_length.sort_by_key(|case| histories[*case].len());
        let routes = model.space.len();
        let mut ranks = vec![0.0; cases.len() * routes];
        for batch in by_length.chunks(model.batch) {
            let read: Vec<(&History, Case<'_>)> = batch.iter().map(|case| (&histories[*case], cases[*case])).collect();
            for route in model.space.routes() {
                let found = rank_targets(model.forward, route, &read, model.seen)?;
                for (case, rank) in batch.iter().zip(found) {
                    ranks[case * routes + route.index()] = rank.map_or(0.0, |rank| rank as f32);
                }
            }
        }
        self.routes = routes;
        self.ranks.extend(ranks);
        Ok(())
    }

    /// Utilities of all cases: `[cases, routes]`, row-major
    pub(crate) fn utilities(&self, utility: Utility) -> Vec<f64> {
        let worst = f64::from(self.ranks.iter().copied().fold(1.0, f32::max));
        let value = |rank: &f32| match utility {
            Utility::Ndcg => Metric::Ndcg(10).value((*rank > 0.0).then_some(*rank as u32)),
            Utility::LogRank if *rank > 0.0 => -f64::from(*rank).ln(),
            Utility::LogRank => -worst.ln(),
        };
        self.ranks.iter().map(value).collect()
    }

    /// The ranks for the state file, `None` if there are none: `[cases, routes]`
    pub(crate) fn to_tensor(&self) -> Option<HostTensor> {
        let shape = vec![self.cases(), self.routes];
        (!self.ranks.is_empty()).then(|| HostTensor { shape, data: self.ranks.clone() })
    }

    /// The ranks from the state file.
    pub(crate) fn from_tensor(tensor: &HostTensor) -> RouteRanks {
        RouteRanks { routes: tensor.shape.last().copied().unwrap_or_default(), ranks: tensor.data.clone() }
    }
}
