use std::collections::HashSet;

use super::Probes;
use super::probes::{Probe, routed};
use crate::{Forward, ForwardError};
use canet_domain::{Candidates, Ranked, Route, RouteSpace, Selection, top_k};

/// How far a replayed answer may be from the recorded one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Distance of two scores, relative to the recorded score where that is above 1.
    score: f32,
    /// Share of the recorded best items that must be found again, those that tie with the last place aside.
    overlap: f64,
    /// Whether the scores of each place must agree too: the same list but for ties.
    places: bool,
}

impl Tolerance {
    /// Float32 on any device: scores to 1e-4, the same best items but for ties.
    pub const FP32: Tolerance = Tolerance { score: 1e-4, overlap: 1.0, places: true };
    /// bfloat16: scores to 2e-2, 8 of 10 best items.
    pub const BF16: Tolerance = Tolerance { score: 2e-2, overlap: 0.8, places: false };

    /// Whether a score agrees with the recorded one; never where it is not a number.
    fn agrees(self, found: f32, recorded: f32) -> bool {
        (found - recorded).abs() <= self.score * recorded.abs().max(1.0)
    }
}

/// How a model's answer differs from the recorded one.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The model could not answer.
    #[error("probe {probe}: {source}")]
    Forward {
        /// Place of the probe.
        probe: usize,
        /// What failed.
        source: ForwardError,
    },
    /// The router picked another route.
    #[error("probe {probe}: the router picks {found}, recorded was {recorded}; this checkpoint is not served")]
    Route {
        /// Place of the probe.
        probe: usize,
        /// The route picked now.
        found: String,
        /// The recorded one.
        recorded: String,
    },
    /// A score moved.
    #[error("probe {probe}: item {item} scores {found}, recorded was {recorded}; this checkpoint is not served")]
    Score {
        /// Place of the probe.
        probe: usize,
        /// The item's dense id.
        item: u32,
        /// The score now.
        found: f32,
        /// The recorded one.
        recorded: f32,
    },
    /// The best items are others.
    #[error("probe {probe}: the best items are {found:?}, recorded were {recorded:?}; this checkpoint is not served")]
    Ranking {
        /// Place of the probe.
        probe: usize,
        /// Dense ids now.
        found: Vec<u32>,
        /// The recorded ones.
        recorded: Vec<u32>,
    },
}

impl Probes {
    /// Lets a model on its device answer the probes again and compares: the route exactly (but for logits that tie
    /// within the tolerance), scores and best items within the tolerance.
    ///
    /// # Errors
    /// [`ProbeError`] for the first answer that differs: such a checkpoint must not be served.
    pub fn replay(&self, forward: &dyn Forward, space: &RouteSpace, tolerance: Tolerance) -> Result<(), ProbeError> {
        let mut list = self.list.iter().enumerate();
        list.try_for_each(|(place, probe)| probe.replay(place, forward, space, tolerance))
    }
}

impl Probe {
    fn replay(
        &self,
        probe: usize,
        forward: &dyn Forward,
        space: &RouteSpace,
        tolerance: Tolerance,
    ) -> Result<(), ProbeError> {
        let failed = |source| ProbeError::Forward { probe, source };
        let (route, logits) = routed(forward, space, &self.history).map_err(failed)?;
        let logit = |route: Route| logits.get(route.index()).copied().unwrap_or(f32::NAN);
        if route != self.route && !tolerance.agrees(logit(self.route), logit(route)) {
            let [found, recorded] = [route, self.route].map(|route| space.name(route).to_owned());
            return Err(ProbeError::Route { probe, found, recorded });
        }
        let scores = forward.scores(self.route, &[&self.history]).map_err(failed)?;
        let row = scores.row(0).unwrap_or_default();
        let score = |column: usize| row.get(column).copied().unwrap_or(f32::NAN);
        for recorded in &self.top {
            let found = score(recorded.item.column());
            if !tolerance.agrees(found, recorded.score) {
                return Err(ProbeError::Score { probe, item: recorded.item.id(), found, recorded: recorded.score });
            }
        }
        let nothing = HashSet::new();
        let selection = Selection { k: self.top.len(), excluded: &nothing, candidates: Candidates::All };
        let top = top_k(row, &selection);
        let last = top.last().map_or(f32::NAN, |ranked| ranked.score);
        let in_top = |column: usize| score(column) >= last || tolerance.agrees(score(column), last);
        let found_again = self.top.iter().filter(|recorded| in_top(recorded.item.column())).count();
        let same_places = top.len() == self.top.len()
            && top.iter().zip(&self.top).all(|(found, recorded)| tolerance.agrees(found.score, recorded.score));
        if (found_again as f64) < tolerance.overlap * self.top.len() as f64 || (tolerance.places && !same_places) {
            let ids = |list: &[Ranked]| list.iter().map(|ranked| ranked.item.id()).collect();
            return Err(ProbeError::Ranking { probe, found: ids(&top), recorded: ids(&self.top) });
        }
        Ok(())
    }
}
