use canet_data::Case;

/// Which cases are whose. A user is one observation however many cases they have: what one person does is alike, so
/// standard errors and tests go over users, each with the mean of their cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByUser {
    /// Where the cases of each user end: those of user `u` are `ends[u - 1]..ends[u]`, at least one.
    ends: Vec<usize>,
}

impl ByUser {
    /// The users of cases in which each user's stand together, as [`Dataset::held_out`] gives them.
    ///
    /// [`Dataset::held_out`]: canet_data::Dataset::held_out
    pub fn of(cases: &[Case<'_>]) -> ByUser {
        let mut end = 0;
        let ends = cases.chunk_by(|a, b| a.user == b.user).map(|own| {
            end += own.len();
            end
        });
        ByUser { ends: ends.collect() }
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.ends.len()
    }

    /// Number of cases.
    pub fn cases(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Mean over each user's cases, by user.
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
