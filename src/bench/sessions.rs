use rand::Rng;
use rand_chacha::ChaCha8Rng;

use canet_domain::{History, HistoryError, Item, Window};

/// The most users who may return.
const ACTIVE: usize = 1000;

/// The most items that a user brings back.
const NEW_ITEMS: usize = 3;

/// How the requests of the workload `sessions` follow one another.
#[derive(Clone, Copy)]
pub(super) struct SessionMix {
    /// The share of requests of users who return.
    pub(super) returning: f64,
    /// Which items of a history the model reads.
    pub(super) window: Window,
    /// Size of the catalogue, for users of random items.
    pub(super) items: u32,
}

/// Users who come, and who return with one to three new items.
///
/// A user's items are a sequence of the histories file, entered at a random place, or random items. A new user replaces
/// one of those who may return, so users make about `1 / (1 - returning)` requests each.
pub(super) struct Sessions<'a> {
    mix: SessionMix,
    /// Whole sequences of users; none for random items.
    sequences: &'a [Vec<Item>],
    next: usize,
    active: Vec<User>,
}

/// A user and how many of the items are known.
struct User {
    items: Vec<Item>,
    known: usize,
}

impl<'a> Sessions<'a> {
    pub(super) fn new(mix: SessionMix, sequences: &'a [Vec<Item>]) -> Sessions<'a> {
        Sessions { mix, sequences, next: 0, active: Vec::new() }
    }

    /// The history of the next request.
    pub(super) fn request(&mut self, rng: &mut ChaCha8Rng) -> Result<History, HistoryError> {
        let returning = !self.active.is_empty() && rng.gen_bool(self.mix.returning);
        let place = match returning {
            true => rng.gen_range(0..self.active.len()),
            false => self.admit(rng),
        };
        let user = &mut self.active[place];
        if returning {
            let new = rng.gen_range(1..=NEW_ITEMS);
            if user.known + new > user.items.len() {
                // The sequence is at its end: somebody else comes.
                let user = self.new_user(rng);
                self.active[place] = user;
            } else {
                user.known += new;
            }
        }
        let User { items, known } = &self.active[place];
        History::in_window(&items[..*known], self.mix.window, 0)
    }

    /// A new user takes a place.
    fn admit(&mut self, rng: &mut ChaCha8Rng) -> usize {
        let user = self.new_user(rng);
        if self.active.len() < ACTIVE {
            self.active.push(user);
            return self.active.len() - 1;
        }
        let place = rng.gen_range(0..ACTIVE);
        self.active[place] = user;
        place
    }

    fn new_user(&mut self, rng: &mut ChaCha8Rng) -> User {
        let SessionMix { window, items, .. } = self.mix;
        let items: Vec<Item> = match self.sequences.get(self.next) {
            Some(sequence) => sequence.clone(),
            None => (0..4 * window.max_len).filter_map(|_| Item::new(rng.gen_range(1..=items))).collect(),
        };
        self.next = (self.next + 1).checked_rem(self.sequences.len()).unwrap_or(0);
        let known = rng.gen_range(1..=items.len().max(1)).min(items.len());
        User { items, known }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn users_return_as_often_as_told_with_one_to_three_new_items() {
        // The window holds a whole sequence, and no two sequences have an item in common.
        let mix = SessionMix { returning: 0.8, window: Window { max_len: 1000, stride: 1 }, items: 1_000_000 };
        let items = |user: u32| (1 + 1000 * user..=1000 * (user + 1)).filter_map(Item::new).collect();
        let sequences: Vec<Vec<Item>> = (0..1000).map(items).collect();
        let (mut sessions, mut rng) = (Sessions::new(mix, &sequences), ChaCha8Rng::seed_from_u64(3));
        let (mut before, mut returned) = (Vec::<History>::new(), 0);
        for _ in 0..2000 {
            let history = sessions.request(&mut rng).unwrap();
            let extends = |earlier: &&History| history.items().starts_with(earlier.items());
            if let Some(earlier) = before.iter().rev().find(extends) {
                assert!((1..=NEW_ITEMS).contains(&(history.len() - earlier.len())));
                returned += 1;
            }
            before.push(history);
        }
        assert!((1520..1680).contains(&returned), "{returned}");
    }

    #[test]
    fn a_user_of_a_file_walks_along_the_sequence_and_then_makes_room() {
        let items = |first: u32| (first..first + 6).filter_map(Item::new).collect();
        let sequences: Vec<Vec<Item>> = vec![items(1), items(11)];
        let mix = SessionMix { returning: 1.0, window: Window { max_len: 4, stride: 2 }, items: 20 };
        let (mut sessions, mut rng) = (Sessions::new(mix, &sequences), ChaCha8Rng::seed_from_u64(5));
        for _ in 0..50 {
            let history = sessions.request(&mut rng).unwrap();
            assert!(sequences.iter().any(|sequence| sequence.windows(history.len()).any(|run| run == history.items())));
            assert!(history.len() <= 4);
        }
    }
}
