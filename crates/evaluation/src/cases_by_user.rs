use canet_data::Case;

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
