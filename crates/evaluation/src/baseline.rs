use std::cell::OnceCell;
use std::collections::HashMap;

use crate::target_rank::rank_by;
use crate::{Estimate, EvalRun, Metric, Ranker, SeenItems};
use canet_data::{Case, Dataset, Split};
use canet_domain::{Item, Route, RoutePolicy, RouteSpace};
use canet_model::ForwardError;

/// A run of an evaluation, by the name that a user types: the router itself, or a baseline to compare it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// `auto`: the router under the budget.
    Auto,
    /// `full`: the largest route for every user.
    Full,
    /// `smallest`: the smallest route for every user.
    Smallest,
    /// `statics`: one run for each route, under the route's name.
    Statics,
    /// `random`: routes drawn uniformly.
    Random,
    /// `random-matched`: routes drawn with the router's own frequencies.
    RandomMatched,
    /// `popularity`: see [`Popularity`].
    Popularity,
    /// `markov`: see [`Markov`].
    Markov,
    /// A route's name: this route for every user.
    Fixed(Route),
}

impl Baseline {
    /// The names that are not names of routes, in the order of a report.
    pub const NAMED: [(&'static str, Baseline); 8] = [
        ("auto", Baseline::Auto),
        ("full", Baseline::Full),
        ("smallest", Baseline::Smallest),
        ("random", Baseline::Random),
        ("random-matched", Baseline::RandomMatched),
        ("popularity", Baseline::Popularity),
        ("markov", Baseline::Markov),
        ("statics", Baseline::Statics),
    ];

    /// Its name, as [`Baseline::parse`] takes it.
    pub fn name(self, space: &RouteSpace) -> &str {
        match self {
            Baseline::Fixed(route) => space.name(route),
            named => Baseline::NAMED.iter().find(|(_, known)| *known == named).map_or("", |(name, _)| name),
        }
    }

    /// Parses a name: one of [`Baseline::NAMED`] or the name of a route.
    pub fn parse(space: &RouteSpace, name: &str) -> Option<Baseline> {
        let named = Baseline::NAMED.iter().find(|(known, _)| *known == name).map(|(_, baseline)| *baseline);
        named.or_else(|| space.parse(name).map(Baseline::Fixed))
    }
}

/// The inputs of the baselines besides the model.
#[derive(Debug)]
pub struct BaselineInputs<'a> {
    /// Training data of [`Popularity`] and [`Markov`]. The rankers' cases come from it too.
    dataset: &'a Dataset,
    /// What decides routes under the budget.
    policy: &'a RoutePolicy,
    /// The rule under which every ranker ranks.
    seen: SeenItems,
    /// Seed of the random baselines.
    seed: u64,
    /// Fitted once for all rankers, when it first runs.
    markov: OnceCell<Markov>,
}

impl<'a> BaselineInputs<'a> {
    /// Inputs for rankers over cases of this dataset, which rank under the rule `seen`. `seed` is that of the random
    /// baselines.
    pub fn new(dataset: &'a Dataset, policy: &'a RoutePolicy, seen: SeenItems, seed: u64) -> BaselineInputs<'a> {
        BaselineInputs { dataset, policy, seen, seed, markov: OnceCell::new() }
    }

    fn markov(&self) -> &Markov {
        self.markov.get_or_init(|| Markov::fit(self.dataset, self.seen))
    }
}

/// Runs the baselines over the ranker's cases, in the given order, and calls `begins` before each. Of several runs with
/// one name the first is kept.
///
/// # Errors
/// [`ForwardError`] if the device fails.
pub fn evaluate(
    ranker: &mut Ranker<'_>,
    inputs: &BaselineInputs<'_>,
    baselines: &[Baseline],
    begins: impl Fn(Baseline),
) -> Result<Vec<EvalRun>, ForwardError> {
    let (space, &BaselineInputs { dataset, policy, seen, seed, .. }) = (ranker.space(), inputs);
    let mut runs: Vec<EvalRun> = Vec::new();
    for baseline in baselines {
        begins(*baseline);
        let new = match *baseline {
            Baseline::Auto => vec![ranker.routed(policy)?],
            Baseline::Full => vec![ranker.fixed(space.full())?.named("full")],
            Baseline::Smallest => vec![ranker.fixed(space.smallest())?.named("smallest")],
            Baseline::Statics => space.routes().map(|route| ranker.fixed(route)).collect::<Result<_, _>>()?,
            Baseline::Random => vec![ranker.random(seed)?],
            Baseline::RandomMatched => vec![ranker.random_matched(policy, seed)?],
            Baseline::Popularity => {
                vec![ranker.without_network("popularity", Popularity::fit(dataset).ranks(ranker.cases(), seen))]
            }
            Baseline::Markov => vec![ranker.without_network("markov", inputs.markov().ranks(ranker.cases()))],
            Baseline::Fixed(route) => vec![ranker.fixed(route)?],
        };
        for run in new {
            if runs.iter().all(|known| known.name != run.name) {
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// The baseline that recommends the most popular items of the training part to every user.
#[derive(Clone, Debug)]
pub struct Popularity {
    /// Training interactions of item `i` at `i - 1`.
    counts: Vec<u64>,
}

impl Popularity {
    /// Counts the interactions of the training part.
    pub fn fit(dataset: &Dataset) -> Popularity {
        Popularity { counts: dataset.popularity() }
    }

    /// Rank of each case's target.
    pub fn ranks(&self, cases: &[Case<'_>], seen: SeenItems) -> Vec<Option<u32>> {
        ranks(cases, seen, self.counts.len(), |_, scores| {
            for (score, count) in scores.iter_mut().skip(1).zip(&self.counts) {
                *score = *count as f64;
            }
        })
    }
}

/// Prior strengths from which [`Markov::fit`] chooses.
const PRIOR_STRENGTHS: [f64; 9] = [1e-3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4];

/// The baseline that looks at the last item alone: a first-order Markov chain over the training part.
///
/// `P(j | i) = (c(i, j) + s·p(j)) / (c(i) + s)`, with
/// - c(i, j): how often item j came right after item i,
/// - c(i): how often any item came right after item i,
/// - p(j): item j's share of all training interactions,
/// - s: the strength of the Dirichlet prior.
///
/// The prior makes a seldom seen item fall back to popularity. Of nine strengths from 0.001 to 10,000, s is the one with
/// the highest NDCG@10 on the validation part. The counts never include that part.
#[derive(Clone, Debug)]
pub struct Markov {
    /// c(i, j), by i, then by j.
    transitions: HashMap<Item, HashMap<Item, u32>>,
    /// p(j) at j - 1.
    popularity: Vec<f64>,
    prior_strength: f64,
    /// The rule under which it was fitted and ranks.
    seen: SeenItems,
}

impl Markov {
    /// Counts the training part and chooses the prior's strength on the validation part.
    pub fn fit(dataset: &Dataset, seen: SeenItems) -> Markov {
        let counts = dataset.popularity();
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let mut transitions: HashMap<Item, HashMap<Item, u32>> = HashMap::new();
        for sequence in dataset.training_sequences() {
            for pair in sequence.windows(2) {
                *transitions.entry(pair[0]).or_default().entry(pair[1]).or_default() += 1;
            }
        }
        let popularity = counts.iter().map(|count| *count as f64 / total).collect();
        let mut markov = Markov { transitions, popularity, prior_strength: PRIOR_STRENGTHS[0], seen };
        let cases = dataset.cases(Split::Validation);
        let quality = |strength| {
            let values = markov.ranks_with(strength, &cases).into_iter().map(|rank| Metric::Ndcg(10).value(rank));
            Estimate::of(&values.collect::<Vec<f64>>()).mean
        };
        // max_by returns the last of equals, so the reversed order chooses the weakest of equal strengths.
        let scored = PRIOR_STRENGTHS.into_iter().rev().map(|strength| (strength, quality(strength)));
        let best = scored.max_by(|a, b| a.1.total_cmp(&b.1));
        markov.prior_strength = best.map_or(PRIOR_STRENGTHS[0], |(strength, _)| strength);
        markov
    }

    /// The chosen strength of the prior.
    pub fn prior_strength(&self) -> f64 {
        self.prior_strength
    }

    /// Rank of each case's target.
    pub fn ranks(&self, cases: &[Case<'_>]) -> Vec<Option<u32>> {
        self.ranks_with(self.prior_strength, cases)
    }

    fn ranks_with(&self, strength: f64, cases: &[Case<'_>]) -> Vec<Option<u32>> {
        ranks(cases, self.seen, self.popularity.len(), |case, scores| {
            // The denominator is the same for every j, so it does not change the order.
            for (score, share) in scores.iter_mut().skip(1).zip(&self.popularity) {
                *score = strength * share;
            }
            let next = case.history.last().and_then(|last| self.transitions.get(last));
            for (item, count) in next.into_iter().flatten() {
                scores[item.column()] += f64::from(*count);
            }
        })
    }
}

/// Ranks the targets by float64 scores. `fill` writes a case's scores: `items` + 1 columns, column 0 is the padding.
fn ranks(cases: &[Case<'_>], seen: SeenItems, items: usize, fill: impl Fn(&Case<'_>, &mut [f64])) -> Vec<Option<u32>> {
    let mut scores = vec![0.0; items + 1];
    let rank = |case: &Case<'_>| {
        fill(case, &mut scores);
        let target_score = *scores.get(case.target.column())?;
        rank_by(scores.len(), seen.masked(case.history), case.target, |column| scores[column].total_cmp(&target_score))
    };
    cases.iter().map(rank).collect()
}

#[cfg(test)]
mod tests;
