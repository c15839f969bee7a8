use std::collections::HashMap;

use super::{Estimate, Metric, baseline};
use canet_data::{Case, Dataset, Split};
use canet_domain::Item;

/// Prior strengths that are tried, from "transitions decide, popularity breaks ties" to almost popularity alone.
const STRENGTHS: [f64; 9] = [1e-3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4];

/// The baseline that looks at the last item alone: a first-order Markov chain over the training part.
///
/// `P(j | i) = (c(i, j) + s·p(j)) / (c(i) + s)`, where c(i, j) counts how often j came right after i, c(i) how often
/// anything did, and p is the items' share of all training interactions: a Dirichlet prior of strength s, so an
/// item seldom seen falls back to popularity. s is the one of nine strengths from 0.001 to 10,000 with the highest
/// NDCG@10 on the validation part; the counts never see that part.
#[derive(Clone, Debug)]
pub struct Markov {
    /// What came next, with how often, by last item.
    next: HashMap<Item, HashMap<Item, u32>>,
    /// p(j) of item j at j - 1.
    popularity: Vec<f64>,
    strength: f64,
}

impl Markov {
    /// Counts the training part and chooses the strength on the validation part.
    pub fn fit(dataset: &Dataset) -> Markov {
        let counts = dataset.popularity();
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let mut next: HashMap<Item, HashMap<Item, u32>> = HashMap::new();
        for sequence in dataset.training_sequences() {
            for pair in sequence.windows(2) {
                *next.entry(pair[0]).or_default().entry(pair[1]).or_default() += 1;
            }
        }
        let popularity = counts.iter().map(|count| *count as f64 / total).collect();
        let mut best = Markov { next, popularity, strength: STRENGTHS[0] };
        let cases = dataset.cases(Split::Validation);
        let quality = |strength| {
            let values = best.ranks_with(strength, &cases).into_iter().map(|rank| Metric::Ndcg(10).value(rank));
            Estimate::of(&values.collect::<Vec<f64>>()).mean
        };
        // Of equal strengths the least is taken: max_by takes the last.
        let scored = STRENGTHS.into_iter().rev().map(|strength| (strength, quality(strength)));
        let chosen = scored.max_by(|a, b| a.1.total_cmp(&b.1));
        best.strength = chosen.map_or(STRENGTHS[0], |(strength, _)| strength);
        best
    }

    /// The prior's strength that was chosen.
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// Rank of each case's target.
    pub fn ranks(&self, cases: &[Case<'_>]) -> Vec<Option<u32>> {
        self.ranks_with(self.strength, cases)
    }

    fn ranks_with(&self, strength: f64, cases: &[Case<'_>]) -> Vec<Option<u32>> {
        baseline::ranks(cases, self.popularity.len(), |case, scores| {
            // The denominator is the same for every j, so it is left out.
            for (score, share) in scores.iter_mut().skip(1).zip(&self.popularity) {
                *score = strength * share;
            }
            let next = case.history.last().and_then(|last| self.next.get(last));
            for (item, count) in next.into_iter().flatten() {
                scores[item.column()] += f64::from(*count);
            }
        })
    }
}
