//! Live accuracy: whether the answer that a user last got had the item that the user took next.
//!
//! [`Judge`] remembers the last answer to each user. When that user's next request continues the history, its first added
//! item that the model knows decides: a hit, if it is among the first ten items of that answer. This is the hit rate at ten
//! that an offline evaluation measures. As there, an item of the history that `exclude_seen` kept out of the answer is a
//! miss.
//!
//! A history **continues** the remembered one if it begins with it, item by item. A client that sends only its newest items
//! drops old ones at the front. Then the history continues the remembered one if it begins with the end of the remembered one and
//! at least half of it is this overlap. The overlap is compared in its newest eight items.
//!
//! Items are compared by a hash of their external ids, so that answers of the version before are judged too. Nothing of this
//! is written to a disk.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use lru::LruCache;

use super::{Answer, Generation};
use crate::metrics::{Judgements, Metrics};
use canet_domain::{Reason, Route};
use parking_lot::{Mutex, MutexGuard};

/// How many of the best items of an answer are judged.
pub const JUDGED: usize = 10;

/// How many of a history's newest items count. It bounds what a request with a long history costs.
const READ: usize = 4096;

/// How many items of an overlap are compared.
const COMPARED: usize = 8;

/// Requests of different users wait for each other only within a shard.
const SHARDS: usize = 16;

/// Bytes that a user takes: an entry, its allocation, and its place in the table.
const USER_BYTES: usize = size_of::<Remembered>() + 72;

/// Judges answers by what users do next. It remembers as many users as fit into its memory, and forgets first whom it has not
/// answered for the longest time.
pub struct Judge {
    shards: Box<[Mutex<LruCache<u64, Remembered>>]>,
    /// The most users of a shard.
    users: usize,
    /// Random for each process: nobody can make ids that collide, and the hashes tell nothing outside of it.
    hasher: RandomState,
    metrics: Arc<Metrics>,
}

/// What a request says about its user. `H` are the external ids of the history.
pub struct UserRequest<'a, H> {
    /// The user's id.
    pub user: &'a str,
    /// The history, oldest first, with the items that the model does not know.
    pub history: H,
}

/// The answer to a request of a user.
pub struct UserAnswer<'a> {
    /// The generation that answered.
    pub generation: &'a Generation,
    /// The answer.
    pub answer: &'a Answer,
    /// Ids of the request's history that the model does not know.
    pub unknown: &'a [Box<str>],
    /// Whether it can be judged: the request asked for at least [`JUDGED`] items, out of the whole catalogue.
    pub judgeable: bool,
}

/// A request of a user, as far as judging needs it.
pub struct Visit {
    user: u64,
    /// A hash of each item of the history, oldest first.
    items: Vec<u64>,
}

/// The last answer to a user.
struct Remembered {
    history: Fingerprint,
    /// Hashes of the best items, the best first.
    best: [u32; JUDGED],
    items: u8,
    /// Whether the user's next item has decided already.
    is_judged: bool,
    reason: Reason,
    route: Route,
    /// Gone once the version has not served for long.
    judgements: Weak<Judgements>,
}

/// What suffices to see that another history continues this one.
struct Fingerprint {
    length: u32,
    all: u64,
    /// Hashes of the newest items, the newest last.
    newest: [u32; COMPARED],
}

impl Judge {
    /// A judge that takes at most `bytes` of memory, but remembers a few users at least.
    pub fn new(bytes: usize, metrics: Arc<Metrics>) -> Judge {
        // A bounded cache would allocate its table at once, however large.
        let shards = (0..SHARDS).map(|_| Mutex::new(LruCache::unbounded())).collect();
        Judge { shards, users: (bytes / USER_BYTES / SHARDS).max(1), hasher: RandomState::new(), metrics }
    }

    /// Takes from a request what [`answered`](Judge::answered) needs.
    pub fn visit<'a>(&self, request: UserRequest<'_, impl ExactSizeIterator<Item = &'a str>>) -> Visit {
        let UserRequest { user, history } = request;
        let skipped = history.len().saturating_sub(READ);
        Visit { user: self.hasher.hash_one(user), items: history.skip(skipped).map(|id| self.hash(id)).collect() }
    }

    /// Judges the answer before with what this request adds, and remembers the answer to it.
    pub fn answered(&self, visit: &Visit, answer: &UserAnswer<'_>) {
        let UserAnswer { generation, answer: Answer { ranked, routing, .. }, unknown, judgeable } = answer;
        let unknown: HashSet<u64> = unknown.iter().map(|id| self.hash(id)).collect();
        let answer = judgeable.then(|| {
            let catalogue = generation.model.catalogue();
            let mut best = [0; JUDGED];
            for (place, ranked) in best.iter_mut().zip(ranked) {
                *place = short(self.hash(catalogue.id(ranked.item)));
            }
            Remembered {
                history: Fingerprint::of(&visit.items),
                best,
                items: ranked.len().min(JUDGED) as u8,
                is_judged: false,
                reason: routing.reason,
                route: routing.route,
                judgements: Arc::downgrade(&generation.judgements),
            }
        });
        let mut shard = self.shard(visit.user);
        let judgement = shard.peek_mut(&visit.user).and_then(|before| before.judge(&visit.items, &unknown));
        if let Some(answer) = answer {
            shard.put(visit.user, answer);
        }
        let is_evicted = shard.len() > self.users && shard.pop_lru().is_some_and(|(_, evicted)| !evicted.is_judged);
        drop(shard);
        if is_evicted {
            self.metrics.judge_evicted();
        }
        if let Some(Judgement { judgements, route, reason, rank }) = judgement {
            judgements.judged(route, reason, rank);
        }
    }

    fn hash(&self, id: &str) -> u64 {
        self.hasher.hash_one(id)
    }

    fn shard(&self, user: u64) -> MutexGuard<'_, LruCache<u64, Remembered>> {
        // The table within a shard uses the other bits.
        let shard = (user >> 32) as usize % self.shards.len();
        self.shards[shard].lock()
    }
}

/// What a user's next item says of an answer.
struct Judgement {
    judgements: Arc<Judgements>,
    route: Route,
    reason: Reason,
    /// The item's place in the answer, from 1.
    rank: Option<usize>,
}

impl Remembered {
    /// The judgement of a history's first added known item, if there is one.
    fn judge(&mut self, items: &[u64], unknown: &HashSet<u64>) -> Option<Judgement> {
        if self.is_judged {
            return None;
        }
        let added = self.history.added(items)?;
        let next = added.iter().find(|item| !unknown.contains(*item))?;
        self.is_judged = true;
        let best = &self.best[..self.items.into()];
        let rank = best.iter().position(|item| *item == short(*next)).map(|place| place + 1);
        let judgements = self.judgements.upgrade()?;
        Some(Judgement { judgements, route: self.route, reason: self.reason, rank })
    }
}

impl Fingerprint {
    fn of(items: &[u64]) -> Fingerprint {
        let mut newest = [0; COMPARED];
        for (place, item) in newest.iter_mut().rev().zip(items.iter().rev()) {
            *place = short(*item);
        }
        Fingerprint { length: items.len() as u32, all: combined(items), newest }
    }

    /// The items that a history adds to this one. `None` if it does not continue this one.
    fn added<'i>(&self, items: &'i [u64]) -> Option<&'i [u64]> {
        let length = self.length as usize;
        if let Some((beginning, added)) = items.split_at_checked(length)
            && combined(beginning) == self.all
        {
            return Some(added);
        }
        if items.len() > length {
            return None;
        }
        // The longest overlap adds the fewest items.
        let shortest = items.len().div_ceil(2).max(1);
        (shortest..=items.len()).rev().find(|end| self.ends_with(&items[..*end])).map(|end| &items[end..])
    }

    /// Whether this history ends with an overlap.
    fn ends_with(&self, overlap: &[u64]) -> bool {
        let known = COMPARED.min(self.length as usize);
        let newest = self.newest[COMPARED - known..].iter().rev();
        newest.zip(overlap.iter().rev()).all(|(item, other)| *item == short(*other))
    }
}

/// A hash of items in their order.
///
/// It needs no key of its own: the items are hashes under the judge's key, so nobody can choose histories that collide. It
/// takes the step of FxHash, one multiplication an item, because every judged request hashes up to [`READ`] items twice.
fn combined(items: &[u64]) -> u64 {
    items.iter().fold(0, |all, item| (all.rotate_left(5) ^ item).wrapping_mul(0x517c_c1b7_2722_0a95))
}

/// The upper half of a hash. Ten of them hold that of another item by mistake once in 400 million times.
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;

    /// Items whose hashes differ in their upper half.
    fn items(numbers: &[u64]) -> Vec<u64> {
        numbers.iter().map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
    }

    /// What `later` adds to `earlier`, as numbers.
    fn added(earlier: &[u64], later: &[u64]) -> Option<Vec<u64>> {
        let hashed = items(later);
        let added = Fingerprint::of(&items(earlier)).added(&hashed)?;
        Some(later[later.len() - added.len()..].to_vec())
    }

    #[test]
    fn a_history_that_begins_with_the_remembered_one_continues_it() {
        assert_eq!(added(&[1, 2, 3], &[1, 2, 3]), Some(vec![]));
        assert_eq!(added(&[1, 2, 3], &[1, 2, 3, 9]), Some(vec![9]));
        // The longest match at the end would find nothing added.
        assert_eq!(added(&[1], &[1, 2, 1]), Some(vec![2, 1]));
        assert_eq!(added(&[], &[5]), Some(vec![5]));
        assert_eq!(added(&[1, 2, 3], &[1, 2, 4, 9]), None);
        assert_eq!(added(&[1, 2, 3], &[7, 1, 2, 3, 9]), None);
    }

    #[test]
    fn a_window_that_moves_on_continues_too() {
        let before: Vec<u64> = (1..=20).collect();
        for moved in 1..=10 {
            let later: Vec<u64> = (1 + moved..=20 + moved).collect();
            assert_eq!(added(&before, &later), Some((21..=20 + moved).collect()), "{moved}");
        }
        // Less than half of it is the overlap.
        assert_eq!(added(&before, &(12..=31).collect::<Vec<_>>()), None);
        assert_eq!(added(&[1, 2], &[2, 3]), Some(vec![3]));
        assert_eq!(added(&[1], &[2]), None);
        // The client shortened the history and added nothing.
        assert_eq!(added(&before, &(11..=20).collect::<Vec<_>>()), Some(vec![]));
        // It went back.
        assert_eq!(added(&before, &(1..=19).collect::<Vec<_>>()), None);
    }
}
