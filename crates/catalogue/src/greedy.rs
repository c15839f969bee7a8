use canet_domain::{Item, ItemSet};
use hashbrown::HashMap;

use super::expression::MaxPer;
use super::filter::{UnknownName, find_key};
use super::index::ItemIndex;

/// The most items that an answer may have of each value of some keys.
///
/// The definition is greedy: from the best item down, an item is taken if none of its values is full yet. An item counts for
/// each of its values, and an item without a value of a key is not limited by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    limits: Vec<Limit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    key: usize,
    most: u64,
}

impl Quotas {
    /// How many of the best items to look at first, for an answer of `k`. More are needed if few values have the best items.
    pub fn lookahead(k: usize) -> usize {
        const FEW: usize = 64;
        const MORE: usize = 4096;
        k.saturating_mul(4).min(k.saturating_add(MORE)).max(FEW)
    }

    /// Finds the names of `max_per`.
    pub(crate) fn new(max_per: &MaxPer, index: &ItemIndex) -> Result<Quotas, UnknownName> {
        let limit = |(name, most): &(Box<str>, u64)| Ok(Limit { key: find_key(index, name, "max_per")?, most: *most });
        Ok(Quotas { limits: max_per.limits.iter().map(limit).collect::<Result<_, _>>()? })
    }
}

/// Takes items greedily, the best first, until quotas are full.
#[derive(Debug)]
pub struct Greedy<'a> {
    quotas: &'a Quotas,
    index: &'a ItemIndex,
    /// How many items were taken of a value of the key at a place of the quotas.
    taken: HashMap<(usize, u32), u64>,
    /// Values that became full since the last [`remove_full`](Self::remove_full).
    full: Vec<(usize, u32)>,
}

impl<'a> Greedy<'a> {
    pub(crate) fn new(quotas: &'a Quotas, index: &'a ItemIndex) -> Greedy<'a> {
        Greedy { quotas, index, taken: HashMap::new(), full: Vec::new() }
    }

    /// Whether the next best item is taken.
    pub fn take(&mut self, item: Item) -> bool {
        let limits = self.quotas.limits.iter().enumerate();
        let values = || {
            limits.clone().flat_map(|(place, limit)| {
                self.index.values_of(limit.key, item).iter().map(move |value| (place, *value, limit))
            })
        };
        if values()
            .any(|(place, value, limit)| self.taken.get(&(place, value)).is_some_and(|taken| *taken >= limit.most))
        {
            return false;
        }
        for (place, value, limit) in values() {
            let taken = self.taken.entry((place, value)).or_default();
            *taken += 1;
            if *taken == limit.most {
                self.full.push((limit.key, value));
            }
        }
        true
    }

    /// Removes from a set the items of every value that is full, of which no later item is taken. Returns whether a value became
    /// full since the last call.
    pub fn remove_full(&mut self, from: &mut ItemSet) -> bool {
        let any = !self.full.is_empty();
        for (key, value) in self.full.drain(..) {
            self.index.remove_items(key, value, from);
        }
        any
    }
}
