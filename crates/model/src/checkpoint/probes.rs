use std::collections::HashSet;

use crate::{Forward, ForwardError, ModelConfig, Query};
use canet_domain::{Candidates, History, Ranked, Route, RouteSpace, Selection, choose_route};

/// A few histories with the answers that the model gave when it was written, in float32 on the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Probes {
    pub(super) list: Vec<Probe>,
}

/// One recorded answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) history: History,
    /// Argmax of the router's logits, without a bias.
    pub(super) route: Route,
    /// The best items of that route, nothing masked, with their scores.
    pub(super) top: Vec<Ranked>,
}

/// Why probes cannot be a model's answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbesError {
    /// None, or more than anybody needs.
    #[error("{0} probes: from 1 to {max} are needed", max = Probes::MAX)]
    Count(usize),
    /// A history that the model cannot have read.
    #[error("`histories[{probe}]` is not 1 to {max_len} items from 1 to {items}, 0-padded on the left")]
    History {
        /// Place of the probe.
        probe: usize,
        /// Longest history of the model.
        max_len: usize,
        /// Items of the model.
        items: usize,
    },
    /// A route that the model does not have.
    #[error("`routes[{probe}]` is not from 0 to {last}")]
    Route {
        /// Place of the probe.
        probe: usize,
        /// The last route.
        last: usize,
    },
    /// Best items that no ranking gives; a model whose scores are not finite has no others.
    #[error("`items[{probe}]` and `scores[{probe}]` are not {count} items of the model with finite descending scores")]
    Top {
        /// Place of the probe.
        probe: usize,
        /// Length that the list must have.
        count: usize,
    },
}

impl Probes {
    /// Bound on the number of probes: each is a forward pass at every load.
    pub const MAX: usize = 256;

    /// Best items kept of each answer, fewer where the catalogue is smaller.
    pub const TOP: usize = 10;

    /// Lets a model answer histories and records what it says. The model should be the float32 one on the CPU.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn record(forward: &dyn Forward, space: &RouteSpace, histories: &[History]) -> Result<Probes, ForwardError> {
        let nothing = HashSet::new();
        let selection = Selection { k: Probes::TOP, excluded: &nothing, candidates: Candidates::All };
        let mut list = Vec::with_capacity(histories.len());
        for history in histories {
            let route = routed(forward, space, history)?.0;
            let top = forward.rank(route, &[Query { history, selection }])?.pop().unwrap_or_default();
            list.push(Probe { history: history.clone(), route, top });
        }
        Ok(Probes { list })
    }

    /// Number of probes.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no probe; never so in a checkpoint.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The histories, in order: also what a warm-up may run.
    pub fn histories(&self) -> impl ExactSizeIterator<Item = &History> {
        self.list.iter().map(|probe| &probe.history)
    }

    /// Length of the list of best items in a model.
    pub(super) fn top_length(config: &ModelConfig) -> usize {
        Probes::TOP.min(config.items)
    }

    /// Checks that the probes are of a model of this configuration.
    pub(super) fn check(&self, config: &ModelConfig, space: &RouteSpace) -> Result<(), ProbesError> {
        if self.list.is_empty() || self.list.len() > Probes::MAX {
            return Err(ProbesError::Count(self.list.len()));
        }
        let (items, max_len, count) = (config.items, config.max_len, Probes::top_length(config));
        for (probe, Probe { history, route, top }) in self.list.iter().enumerate() {
            if history.len() > max_len || history.items().iter().any(|item| item.column() > items) {
                return Err(ProbesError::History { probe, max_len, items });
            }
            if route.index() >= space.len() {
                return Err(ProbesError::Route { probe, last: space.len() - 1 });
            }
            let ranking = top.len() == count
                && top.iter().all(|ranked| ranked.score.is_finite() && ranked.item.column() <= items)
                && top.windows(2).all(|pair| pair[0].score >= pair[1].score)
                && top.iter().map(|ranked| ranked.item).collect::<HashSet<_>>().len() == count;
            if !ranking {
                return Err(ProbesError::Top { probe, count });
            }
        }
        Ok(())
    }
}

/// The route that the router picks without a bias, and its logits.
pub(super) fn routed(
    forward: &dyn Forward,
    space: &RouteSpace,
    history: &History,
) -> Result<(Route, Vec<f32>), ForwardError> {
    let logits = forward.router_logits(&[history])?.row(0).map(<[f32]>::to_vec).unwrap_or_default();
    Ok((choose_route(space, &logits, &vec![0.0; space.len()]).route, logits))
}
