use std::collections::BTreeMap;

use canet_data::Case;

use crate::Estimate;

/// Which cases belong to which user.
///
/// A user counts as one observation, however many cases they have: one person's choices resemble each other. So
/// standard errors and tests go over users, and a user's value is the mean over their cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CasesByUser {
    /// End of each user's cases: user `u` has the cases `ends[u - 1]..ends[u]`, at least one.
    ends: Vec<usize>,
}

impl CasesByUser {
    /// Groups cases by user. The cases of one user must be adjacent, as [`Dataset::held_out`] returns them.
    ///
    /// [`Dataset::held_out`]: canet_data::Dataset::held_out
    pub fn of(cases: &[Case<'_>]) -> CasesByUser {
        let mut end = 0;
        let ends = cases.chunk_by(|a, b| a.user == b.user).map(|own| {
            end += own.len();
            end
        });
        CasesByUser { ends: ends.collect() }
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.ends.len()
    }

    /// Number of cases.
    pub fn cases(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Mean of `value` over each user's cases, by user.
    pub fn means(&self, value: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut start = 0;
        let mean = |end: &usize| {
            let own = start..*end;
            start = *end;
            let count = own.len() as f64;
            own.map(&value).sum::<f64>() / count
        };
        self.ends.iter().map(mean).collect()
    }
}

/// Means over users of values that come case by case. Unlike [`CasesByUser`], it takes the cases in any order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserMeans {
    /// The sum of each user's values, and their number.
    sums: BTreeMap<usize, (f64, f64)>,
}

impl UserMeans {
    /// Adds the value of one of a user's cases.
    pub fn add(&mut self, user: usize, value: f64) {
        let (sum, count) = self.sums.entry(user).or_default();
        (*sum, *count) = (*sum + value, *count + 1.0);
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.sums.len()
    }

    /// Mean and standard error over the users of each one's mean value.
    pub fn estimate(&self) -> Estimate {
        Estimate::of(&self.sums.values().map(|(sum, count)| sum / count).collect::<Vec<f64>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_counts_once_however_many_cases_come_in_whatever_order() {
        let mut means = UserMeans::default();
        for (user, value) in [(7, 1.0), (2, 4.0), (7, 3.0), (2, 6.0), (9, 5.0), (2, 2.0)] {
            means.add(user, value);
        }
        assert_eq!((means.users(), means.estimate()), (3, Estimate::of(&[4.0, 2.0, 5.0])));
        assert_eq!(UserMeans::default().estimate(), Estimate::of(&[]));
    }
}
