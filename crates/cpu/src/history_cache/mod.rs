//! States of histories, kept from one request to the next.
//!
//! - An entry holds the states of one history at one width and embedding. A history that begins with the same items reuses
//!   them up to the first item that differs. If it goes on where the entry ends, as a session does, the row takes the
//!   entry out, extends it and stores it under the longer history, without a copy. Otherwise the row copies what both
//!   have in common.
//! - A lookup compares items. No hash stands for them.
//! - Histories of different owners share nothing, so the saving of a row tells nothing about others.
//! - One lock guards the entries. It is held for lookups and list operations alone: nothing is copied, computed or freed
//!   under it.
//! - Entries that nobody used for the longest time leave first. [`Admission`] keeps histories that never return from
//!   costing time.

mod admission;
mod prefix_tree;
#[cfg(test)]
mod tests;

use self::admission::Admission;
use self::prefix_tree::PrefixTree;
use super::kept_states::KeptStates;
use super::sync::{Arc, Mutex, PoisonError};
use canet_domain::Item;
use canet_model::HistoryCacheStats;

/// The kept states of one forward.
pub(crate) struct StateCache {
    /// The most bytes that entries may take together.
    budget: usize,
    /// Every [`Key::slice`].
    slices: Vec<u32>,
    state: Mutex<State>,
}

struct State {
    tree: PrefixTree<Key, Entry>,
    /// Bytes of all entries' states.
    bytes: usize,
    admission: Admission,
    stats: HistoryCacheStats,
    /// Whether nothing is stored any more.
    closed: bool,
}

struct Entry {
    states: Arc<KeptStates>,
    bytes: usize,
    /// Whether a row has reused it.
    used: bool,
}

/// Which histories may share states.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The owner of the histories.
    pub(crate) owner: u64,
    /// Place of the width and the embedding among all such pairs.
    pub(crate) slice: u32,
}

/// What a row needs.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) key: Key,
    /// Place of the depth in the ascending list.
    pub(crate) depth: usize,
    /// The items that the model reads, at least one.
    pub(crate) items: &'a [Item],
}

/// What a row finds.
pub(crate) enum Found {
    /// The states of all positions, which other rows may read too.
    Complete(Arc<KeptStates>),
    /// An entry that ends where the new items begin. It is no longer in the cache.
    Taken(Arc<KeptStates>),
    /// An entry that agrees with the history on so many items.
    Prefix(Arc<KeptStates>, usize),
    /// Nothing. The row stores what it computes.
    Store,
    /// Nothing that is worth its cost, and the row stores nothing.
    Skip,
}

impl StateCache {
    /// A cache of at most `budget` bytes for these slices.
    pub(crate) fn new(budget: usize, slices: Vec<u32>) -> StateCache {
        let state = State {
            tree: PrefixTree::default(),
            bytes: 0,
            admission: Admission::default(),
            stats: HistoryCacheStats::default(),
            closed: false,
        };
        StateCache { budget, slices, state: Mutex::new(state) }
    }

    /// Looks up the rows of a batch.
    pub(crate) fn look_up<'a>(&self, requests: impl Iterator<Item = Request<'a>>) -> Vec<Found> {
        let mut state = self.lock();
        requests.map(|request| state.look_up(request, &self.slices)).collect()
    }

    /// Reads the states that a row would reuse now, and for how many positions. Counts as no use.
    pub(crate) fn peek<T>(&self, request: Request<'_>, read: impl FnOnce(&KeptStates, usize) -> T) -> Option<T> {
        let mut state = self.lock();
        let found = state.tree.longest(request.key, request.items)?;
        let entry = state.tree.get(found)?;
        Some(read(&entry.states, found.tokens))
    }

    /// Stores the states of histories.
    pub(crate) fn store<'a>(&self, rows: impl Iterator<Item = (Key, &'a [Item], KeptStates)>) {
        let rows: Vec<_> = rows.map(|(key, items, states)| (key, items, Entry::new(states))).collect();
        let mut removed = Vec::new();
        let mut state = self.lock();
        for (key, items, entry) in rows {
            // It would push every other entry out before it had to leave too.
            if entry.bytes > self.budget {
                removed.push(entry);
                continue;
            }
            removed.extend(state.store(key, items, entry));
            while state.taken() > self.budget
                && let Some(oldest) = state.evict()
            {
                removed.push(oldest);
            }
        }
        drop(state);
        // Freeing memory takes longer than all of the above.
        drop(removed);
    }

    /// Drops every entry. From now on nothing is stored.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.bytes = 0;
        let tree = std::mem::take(&mut state.tree);
        drop(state);
        drop(tree);
    }

    /// What it holds and what it has done.
    pub(crate) fn stats(&self) -> HistoryCacheStats {
        let state = self.lock();
        HistoryCacheStats { bytes: state.taken() as u64, entries: state.tree.len() as u64, ..state.stats }
    }

    fn lock(&self) -> super::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(states: KeptStates) -> Entry {
        // An `Arc` has two counters.
        let bytes = states.bytes() + 2 * size_of::<usize>();
        Entry { states: Arc::new(states), bytes, used: false }
    }
}

impl State {
    fn look_up(&mut self, request: Request<'_>, slices: &[u32]) -> Found {
        let Request { key, depth, items } = request;
        let found = self.tree.longest(key, items);
        // Fewer positions in common come from popular first items, not from the same user.
        let Some(found) = found.filter(|found| 2 * found.tokens >= items.len()) else {
            match self.knows_other_slice(request, slices) {
                true => self.stats.misses_of_slice += 1,
                false => self.stats.misses_of_history += 1,
            }
            let stores = !self.closed && self.admission.admits();
            return match found {
                _ if !stores => Found::Skip,
                Some(found) => self
                    .tree
                    .get(found)
                    .map_or(Found::Store, |entry| Found::Prefix(Arc::clone(&entry.states), found.tokens)),
                None => Found::Store,
            };
        };
        self.stats.hits += 1;
        let Some(entry) = self.tree.get(found) else { return Found::Skip };
        entry.used = true;
        let states = Arc::clone(&entry.states);
        if found.tokens == items.len() && states.tokens(depth) >= items.len() {
            self.tree.touch(found);
            return Found::Complete(states);
        }
        if !found.whole {
            self.tree.touch(found);
            return Found::Prefix(states, found.tokens);
        }
        drop(states);
        match self.tree.remove(found) {
            Some(entry) => {
                self.bytes -= entry.bytes;
                self.admission.left(true);
                Found::Taken(entry.states)
            }
            None => Found::Skip,
        }
    }

    /// Whether another slice knows most of the history: the router changed the width or the embedding.
    fn knows_other_slice(&self, Request { key, items, .. }: Request<'_>, slices: &[u32]) -> bool {
        let knows = |slice| {
            let other = self.tree.longest(Key { slice, ..key }, items);
            other.is_some_and(|found| 2 * found.tokens >= items.len())
        };
        slices.iter().any(|other| *other != key.slice && knows(*other))
    }

    /// Stores an entry. Returns the one that it replaces, or itself if it is not wanted.
    fn store(&mut self, key: Key, items: &[Item], entry: Entry) -> Option<Entry> {
        let same = self.tree.longest(key, items).filter(|found| found.whole && found.tokens == items.len());
        let deeper = same.and_then(|same| self.tree.get(same)).is_some_and(|same| same.states.is_deeper(&entry.states));
        if self.closed || deeper {
            return Some(entry);
        }
        self.bytes += entry.bytes;
        let replaced = self.tree.insert(key, items, entry)?;
        self.bytes -= replaced.bytes;
        Some(replaced)
    }

    fn evict(&mut self) -> Option<Entry> {
        let entry = self.tree.remove_oldest()?;
        self.bytes -= entry.bytes;
        self.stats.evictions += 1;
        self.admission.left(entry.used);
        Some(entry)
    }

    fn taken(&self) -> usize {
        self.bytes + self.tree.bytes()
    }
}
