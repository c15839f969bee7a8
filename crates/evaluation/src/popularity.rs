use super::baseline;
use canet_data::{Case, Dataset};

/// The baseline that answers everybody with the most popular items of the training part.
#[derive(Clone, Debug)]
pub struct Popularity {
    /// Interactions of item `i` in the training part at `i - 1`.
    counts: Vec<u64>,
}

impl Popularity {
    /// Counts the training part.
    pub fn fit(dataset: &Dataset) -> Popularity {
        Popularity { counts: dataset.popularity() }
    }

    /// Rank of each case's target.
    pub fn ranks(&self, cases: &[Case<'_>]) -> Vec<Option<u32>> {
        baseline::ranks(cases, self.counts.len(), |_, scores| {
            for (score, count) in scores.iter_mut().skip(1).zip(&self.counts) {
                *score = *count as f64;
            }
        })
    }
}
