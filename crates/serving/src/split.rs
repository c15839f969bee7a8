use std::hash::Hasher;

use twox_hash::XxHash64;

use super::uniform::uniform;

/// Which requests the candidate answers: a fixed share of all users, the same users on every server.
///
/// A request is on the candidate's side if the hash of its user, or of its history if it names no user, is below the share.
/// The seed is the candidate's name and version, so that each candidate meets other users. A larger share keeps the users of
/// a smaller one. The hash is XXH64, which does not change with the program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UserSplit {
    seed: u64,
    share: f64,
}

/// What a request is split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitBy<'a> {
    /// The user's id.
    User(&'a str),
    /// The external ids of the history, for a request that names no user.
    History,
}

impl UserSplit {
    /// The split of a candidate that answers `share` of the users, above 0 and at most 1.
    pub fn new(name: &str, version: u64, share: f64) -> UserSplit {
        let mut seed = XxHash64::with_seed(version);
        seed.write(name.as_bytes());
        UserSplit { seed: seed.finish(), share }
    }

    /// The same split of another share.
    pub(crate) fn with_share(self, share: f64) -> UserSplit {
        UserSplit { share, ..self }
    }

    /// The share of the users whom the candidate answers.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Whether the candidate answers a request. `history` is read only if the request is split by it.
    pub fn takes<'a>(&self, by: SplitBy<'_>, history: impl IntoIterator<Item = &'a str>) -> bool {
        let mut hasher = XxHash64::with_seed(self.seed);
        let mut add = |part: &str| {
            // The lengths keep `ab, c` and `a, bc` apart.
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part.as_bytes());
        };
        match by {
            SplitBy::User(user) => {
                add("user");
                add(user);
            }
            SplitBy::History => {
                add("history");
                history.into_iter().for_each(add);
            }
        }
        uniform(hasher.finish()) < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the candidate answers each of 20,000 users.
    fn sides(split: UserSplit) -> Vec<bool> {
        (0..20_000).map(|user| split.takes(SplitBy::User(&format!("user-{user}")), [])).collect()
    }

    fn taken(sides: &[bool]) -> usize {
        sides.iter().filter(|taken| **taken).count()
    }

    #[test]
    fn each_share_is_met_within_its_binomial_bounds() {
        for share in [0.01, 0.05, 0.5, 0.9] {
            for version in 2..6 {
                let found = taken(&sides(UserSplit::new("shop", version, share))) as f64;
                let sd = (20_000.0 * share * (1.0 - share)).sqrt();
                assert!((found - 20_000.0 * share).abs() < 4.0 * sd, "{share}, version {version}: {found}");
            }
        }
        assert_eq!(taken(&sides(UserSplit::new("shop", 2, 1.0))), 20_000);
    }

    #[test]
    fn a_larger_share_keeps_its_users_and_another_candidate_meets_others() {
        let small = sides(UserSplit::new("shop", 2, 0.05));
        let large = sides(UserSplit::new("shop", 2, 0.05).with_share(0.2));
        assert!(small.iter().zip(&large).all(|(small, large)| large | !small));
        let other = sides(UserSplit::new("shop", 3, 0.05));
        let both = small.iter().zip(&other).filter(|(a, b)| **a && **b).count();
        // Independent draws share 50 of them.
        assert!((15..100).contains(&both), "{both}");
    }

    #[test]
    fn a_history_is_split_by_all_its_items_in_their_order() {
        let split = UserSplit::new("shop", 2, 0.5);
        let histories = (0..4000).map(|n| (format!("{}", n % 63), format!("{}", n / 63)));
        let takes = |items: [&str; 2]| split.takes(SplitBy::History, items);
        let swapped = histories.filter(|(a, b)| takes([a, b]) != takes([b, a])).count();
        assert!((1800..2200).contains(&swapped), "{swapped}");
        assert_eq!(split.takes(SplitBy::User("u"), ["1"]), split.takes(SplitBy::User("u"), ["2"]));
    }

    /// Servers of another build must agree on every user.
    #[test]
    fn the_users_of_a_candidate_never_change() {
        let split = UserSplit::new("ml-100k", 3, 0.2);
        let users: Vec<u32> = (0..60).filter(|user| split.takes(SplitBy::User(&user.to_string()), [])).collect();
        assert_eq!(users, KNOWN_USERS);
    }

    /// Computed by an implementation of XXH64 in Python.
    const KNOWN_USERS: [u32; 10] = [6, 7, 24, 25, 37, 40, 44, 45, 49, 59];
}
