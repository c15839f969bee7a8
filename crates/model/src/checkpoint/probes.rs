use std::collections::HashSet;
use std::path::Path;

use canet_domain::{Candidates, History, Item, Ranked, Route, RouteSpace, Selection, choose_route, top_k};
use safetensors::Dtype;

use crate::tensor_file::{TensorFile, TensorSpec, size_limit};
use crate::{Forward, ForwardError, ModelConfig, Rows, TensorFileError, TensorToWrite, write_tensors};

/// Histories with the answers that the model gave when it was written, in float32 on the CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Probes {
    list: Vec<Probe>,
}

/// One recorded answer.
#[derive(Clone, Debug, PartialEq)]
struct Probe {
    history: History,
    /// The router's choice without a bias.
    route: Route,
    /// The best items of that route, out of the whole catalogue.
    top: Vec<Ranked>,
}

/// Why probes do not fit a model.
#[derive(Debug, thiserror::Error)]
pub enum ProbesError {
    /// The file is damaged, or holds other tensors.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// There are no probes, or too many.
    #[error("{0} probes: from 1 to {max} are needed", max = Probes::MAX)]
    Count(usize),
    /// The model cannot read the history.
    #[error("`histories[{probe}]` is not 1 to {max_len} items from 1 to {items}, 0-padded on the left")]
    History {
        /// Index of the probe.
        probe: usize,
        /// Length of the longest history that the model reads.
        max_len: usize,
        /// Items of the model.
        items: usize,
    },
    /// The model does not have the route.
    #[error("`routes[{probe}]` is not from 0 to {last}")]
    Route {
        /// Index of the probe.
        probe: usize,
        /// Index of the last route.
        last: usize,
    },
    /// The best items are not a ranking of the model's items. This also happens when its scores are not finite.
    #[error("`items[{probe}]` and `scores[{probe}]` are not {count} items of the model with finite descending scores")]
    Top {
        /// Index of the probe.
        probe: usize,
        /// Number of items in a ranking.
        count: usize,
    },
}

impl Probes {
    /// Limit on the number of probes. Every load runs each of them.
    pub const MAX: usize = 256;

    /// Number of best items in an answer. A smaller catalogue has fewer.
    pub const TOP: usize = 10;

    /// Records a model's answers to histories. The model should run in float32 on the CPU.
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails or an answer is not finite.
    pub fn record(forward: &dyn Forward, space: &RouteSpace, histories: &[History]) -> Result<Probes, ForwardError> {
        let nothing = HashSet::new();
        let selection = Selection { k: Probes::TOP, excluded: &nothing, candidates: Candidates::All };
        let mut list = Vec::with_capacity(histories.len());
        for history in histories {
            let route = unbiased_route(forward, space, history)?.0;
            let scores = finite_scores(forward, route, history)?;
            let top = top_k(scores.row(0).unwrap_or_default(), &selection);
            list.push(Probe { history: history.clone(), route, top });
        }
        Ok(Probes { list })
    }

    /// Runs the probes on a model and compares its answers with the recorded ones. Scores and best items must agree within
    /// the tolerance. Routes must be equal, unless their logits tie within the tolerance.
    ///
    /// # Errors
    /// [`ReplayError`] for the first answer that differs. Such a checkpoint must not be served.
    pub fn replay(&self, forward: &dyn Forward, space: &RouteSpace, tolerance: Tolerance) -> Result<(), ReplayError> {
        self.list.iter().enumerate().try_for_each(|(index, probe)| probe.replay(index, forward, space, tolerance))
    }

    /// Number of probes.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no probe. A checkpoint always has one.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The histories, in order.
    pub fn histories(&self) -> impl ExactSizeIterator<Item = &History> {
        self.list.iter().map(|probe| &probe.history)
    }

    /// Number of items in each ranking of a model.
    fn top_length(config: &ModelConfig) -> usize {
        Probes::TOP.min(config.items)
    }

    /// Checks that the probes fit a model.
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
            let is_ranking = top.len() == count
                && top.iter().all(|ranked| ranked.score.is_finite() && ranked.item.column() <= items)
                && top.windows(2).all(|pair| pair[0].score >= pair[1].score)
                && top.iter().map(|ranked| ranked.item).collect::<HashSet<_>>().len() == count;
            if !is_ranking {
                return Err(ProbesError::Top { probe, count });
            }
        }
        Ok(())
    }
}

/// The router's choice without a bias, and its logits.
fn unbiased_route(
    forward: &dyn Forward,
    space: &RouteSpace,
    history: &History,
) -> Result<(Route, Vec<f32>), ForwardError> {
    let logits = forward.router_logits(&[history])?;
    if !logits.is_finite() {
        return Err(ForwardError::NotFinite("the router's logits"));
    }
    let logits = logits.row(0).map(<[f32]>::to_vec).unwrap_or_default();
    Ok((choose_route(space, &logits, &vec![0.0; space.len()]).route, logits))
}

/// The scores of one history.
fn finite_scores(forward: &dyn Forward, route: Route, history: &History) -> Result<Rows, ForwardError> {
    let scores = forward.scores(route, &[history])?;
    if scores.is_finite() { Ok(scores) } else { Err(ForwardError::NotFinite("the scores")) }
}

const HISTORIES: &str = "histories";
const ROUTES: &str = "routes";
const TOP_ITEMS: &str = "items";
const TOP_SCORES: &str = "scores";

/// The tensors of `probes.safetensors` with `count` probes: histories padded with 0 on the left, indices of routes, and
/// dense ids and scores of the best items.
fn specs(count: usize, config: &ModelConfig) -> Vec<TensorSpec> {
    let top = Probes::top_length(config);
    [
        (HISTORIES, Dtype::I64, vec![count, config.max_len]),
        (ROUTES, Dtype::I64, vec![count]),
        (TOP_ITEMS, Dtype::I64, vec![count, top]),
        (TOP_SCORES, Dtype::F32, vec![count, top]),
    ]
    .map(|(name, dtype, shape)| TensorSpec { name: name.to_owned(), dtype, shape })
    .into()
}

impl Probes {
    /// The size in bytes of a model's largest probe file.
    pub(super) fn file_limit(config: &ModelConfig) -> u64 {
        size_limit(&specs(Probes::MAX, config))
    }

    /// Writes probes that were checked.
    pub(super) fn write(&self, path: &Path, config: &ModelConfig) -> Result<(), TensorFileError> {
        let (count, max_len, top) = (self.list.len(), config.max_len, Probes::top_length(config));
        let mut histories = Vec::with_capacity(count * max_len);
        for probe in &self.list {
            histories.resize(histories.len() + max_len - probe.history.len(), 0);
            histories.extend(probe.history.items().iter().map(|item| i64::from(item.id())));
        }
        let routes: Vec<i64> = self.list.iter().map(|probe| probe.route.index() as i64).collect();
        let ranked = || self.list.iter().flat_map(|probe| &probe.top);
        let items: Vec<i64> = ranked().map(|ranked| i64::from(ranked.item.id())).collect();
        let scores: Vec<f32> = ranked().map(|ranked| ranked.score).collect();
        let tensors = vec![
            (HISTORIES, TensorToWrite::integers(vec![count, max_len], &histories)),
            (ROUTES, TensorToWrite::integers(vec![count], &routes)),
            (TOP_ITEMS, TensorToWrite::integers(vec![count, top], &items)),
            (TOP_SCORES, TensorToWrite::floats(vec![count, top], &scores)),
        ];
        write_tensors(path, tensors, None)
    }

    /// Reads probes and checks that they fit a model.
    pub(super) fn read(file: &mut TensorFile, config: &ModelConfig, space: &RouteSpace) -> Result<Probes, ProbesError> {
        let count = file.shape(ROUTES).and_then(<[usize]>::first).copied().unwrap_or(0);
        if count == 0 || count > Probes::MAX {
            return Err(ProbesError::Count(count));
        }
        file.check(&specs(count, config))?;
        let (histories, routes) = (file.integers(HISTORIES)?, file.integers(ROUTES)?);
        let (items, scores) = (file.integers(TOP_ITEMS)?, file.floats(TOP_SCORES)?);
        let (max_len, top) = (config.max_len, Probes::top_length(config));
        let rows =
            histories.chunks_exact(max_len).zip(&routes).zip(items.chunks_exact(top).zip(scores.chunks_exact(top)));
        let mut list = Vec::with_capacity(count);
        for (probe, ((history, route), (items, scores))) in rows.enumerate() {
            let history =
                parse_history(history, max_len).ok_or(ProbesError::History { probe, max_len, items: config.items })?;
            let route = usize::try_from(*route)
                .ok()
                .and_then(|index| space.route(index))
                .ok_or(ProbesError::Route { probe, last: space.len() - 1 })?;
            let ranked = items.iter().zip(scores).map(|(id, score)| Some(Ranked { item: item(*id)?, score: *score }));
            let top = ranked.collect::<Option<_>>().ok_or(ProbesError::Top { probe, count: top })?;
            list.push(Probe { history, route, top });
        }
        let probes = Probes { list };
        probes.check(config, space)?;
        Ok(probes)
    }
}

/// The items after the padding. A zero between them is refused.
fn parse_history(row: &[i64], max_len: usize) -> Option<History> {
    let items: Option<Vec<Item>> = row.iter().skip_while(|id| **id == 0).map(|id| item(*id)).collect();
    History::new(&items?, max_len).ok()
}

fn item(id: i64) -> Option<Item> {
    u32::try_from(id).ok().and_then(Item::new)
}

/// How far a replayed answer may be from the recorded one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Difference of two scores, relative to the recorded score if that is above 1.
    score: f32,
    /// Share of the recorded best items that must be among the best again. Items that tie with the last one count.
    overlap: f64,
    /// Whether the scores at each rank must agree too, so that lists differ by ties only.
    ranks: bool,
}

impl Tolerance {
    /// For float32 on any device: scores to 1e-4, and the same best items up to ties.
    pub const FP32: Tolerance = Tolerance { score: 1e-4, overlap: 1.0, ranks: true };
    /// For bfloat16: scores to 2e-2, and 8 of 10 best items.
    pub const BF16: Tolerance = Tolerance { score: 2e-2, overlap: 0.8, ranks: false };

    /// Whether a score agrees with the recorded one. NaN never does.
    fn agrees(self, found: f32, recorded: f32) -> bool {
        (found - recorded).abs() <= self.score * recorded.abs().max(1.0)
    }
}

/// How a replayed answer differs from the recorded one.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The device failed, or an answer is not finite.
    #[error("probe {probe}: {source}")]
    Forward {
        /// Index of the probe.
        probe: usize,
        /// The device's error.
        source: ForwardError,
    },
    /// The router chose another route.
    #[error("probe {probe}: the router chose {found}, recorded was {recorded}; this checkpoint is not served")]
    Route {
        /// Index of the probe.
        probe: usize,
        /// The route chosen now.
        found: String,
        /// The recorded one.
        recorded: String,
    },
    /// A score differs.
    #[error("probe {probe}: item {item} scored {found}, recorded was {recorded}; this checkpoint is not served")]
    Score {
        /// Index of the probe.
        probe: usize,
        /// The item's dense id.
        item: u32,
        /// The score now.
        found: f32,
        /// The recorded one.
        recorded: f32,
    },
    /// The best items differ.
    #[error("probe {probe}: the best items are {found:?}, recorded were {recorded:?}; this checkpoint is not served")]
    Ranking {
        /// Index of the probe.
        probe: usize,
        /// Dense ids now.
        found: Vec<u32>,
        /// The recorded ones.
        recorded: Vec<u32>,
    },
}

impl Probe {
    fn replay(
        &self,
        probe: usize,
        forward: &dyn Forward,
        space: &RouteSpace,
        tolerance: Tolerance,
    ) -> Result<(), ReplayError> {
        let failed = |source| ReplayError::Forward { probe, source };
        let (route, logits) = unbiased_route(forward, space, &self.history).map_err(failed)?;
        let logit = |route: Route| logits.get(route.index()).copied().unwrap_or(f32::NAN);
        if route != self.route && !tolerance.agrees(logit(self.route), logit(route)) {
            let [found, recorded] = [route, self.route].map(|route| space.name(route).to_owned());
            return Err(ReplayError::Route { probe, found, recorded });
        }
        let scores = finite_scores(forward, self.route, &self.history).map_err(failed)?;
        let row = scores.row(0).unwrap_or_default();
        let score = |column: usize| row.get(column).copied().unwrap_or(f32::NAN);
        for recorded in &self.top {
            let found = score(recorded.item.column());
            if !tolerance.agrees(found, recorded.score) {
                return Err(ReplayError::Score { probe, item: recorded.item.id(), found, recorded: recorded.score });
            }
        }
        let nothing = HashSet::new();
        let selection = Selection { k: self.top.len(), excluded: &nothing, candidates: Candidates::All };
        let top = top_k(row, &selection);
        let last = top.last().map_or(f32::NAN, |ranked| ranked.score);
        let in_top = |column: usize| score(column) >= last || tolerance.agrees(score(column), last);
        let found_again = self.top.iter().filter(|recorded| in_top(recorded.item.column())).count();
        let same_ranks = top.len() == self.top.len()
            && top.iter().zip(&self.top).all(|(found, recorded)| tolerance.agrees(found.score, recorded.score));
        if (found_again as f64) < tolerance.overlap * self.top.len() as f64 || (tolerance.ranks && !same_ranks) {
            let ids = |list: &[Ranked]| list.iter().map(|ranked| ranked.item.id()).collect();
            return Err(ReplayError::Ranking { probe, found: ids(&top), recorded: ids(&self.top) });
        }
        Ok(())
    }
}
