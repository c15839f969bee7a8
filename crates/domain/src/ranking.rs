use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use crate::{Item, ItemSet};

/// An item and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// The item.
    pub item: Item,
    /// Its score, an unrounded logit.
    pub score: f32,
}

/// The items to rank.
#[derive(Clone, Copy, Debug)]
pub enum Candidates<'a> {
    /// The whole catalogue.
    All,
    /// Only these. Items may be named twice and need not exist.
    Only(&'a [Item]),
    /// The items of a set of the catalogue.
    Set(&'a ItemSet),
}

/// The selection of items from a row of scores.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Number of items, at most.
    pub k: usize,
    /// Items that must not appear, such as seen and denied ones.
    pub excluded: &'a HashSet<Item>,
    /// The items to choose from.
    pub candidates: Candidates<'a>,
}

impl Selection<'_> {
    /// Whether a ranking of a catalogue of `items` items is complete and its scores are finite.
    ///
    /// [`TopK`] drops NaN, because a comparison with it has no meaning, and every backend ranks through [`TopK`]. A model
    /// whose layer norms divide by NaN gives NaN to every item, so its ranking is empty. This check finds such a ranking
    /// without a look at all scores. It counts the allowed items only if the ranking is shorter than `k`.
    ///
    /// ```
    /// use std::collections::HashSet;
    ///
    /// use canet_domain::{Candidates, Selection, top_k};
    ///
    /// let nothing = HashSet::new();
    /// let selection = Selection { k: 3, excluded: &nothing, candidates: Candidates::All };
    /// let complete = |scores: &[f32]| selection.is_complete(&top_k(scores, &selection), scores.len() - 1);
    /// assert!(complete(&[0.0, 0.5, 0.25]));
    /// assert!(!complete(&[0.0, 0.5, f32::NAN]));
    /// ```
    pub fn is_complete(&self, ranking: &[Ranked], items: usize) -> bool {
        ranking.iter().all(|ranked| ranked.score.is_finite())
            && (ranking.len() >= self.k || ranking.len() >= self.allowed(items))
    }

    /// Number of items out of `items` that may be ranked.
    fn allowed(&self, items: usize) -> usize {
        let exists = |item: &&Item| item.column() <= items;
        match self.candidates {
            Candidates::All => items - self.excluded.iter().filter(exists).count(),
            Candidates::Only(candidates) => {
                let distinct: HashSet<&Item> = candidates.iter().filter(exists).collect();
                distinct.into_iter().filter(|item| !self.excluded.contains(item)).count()
            }
            Candidates::Set(set) => set.len() - self.excluded.iter().filter(|item| set.contains(**item)).count(),
        }
    }
}

/// The `k` best allowed items of a row of scores, best first. The lower item wins a tie.
///
/// `scores` has N + 1 columns. Column 0 is padding and never ranked, and neither is NaN. If fewer than `k` items are allowed,
/// the result is shorter. [`Selection::is_complete`] tells this from a result that lacks items because of NaN.
///
/// ```
/// use std::collections::HashSet;
///
/// use canet_domain::{Candidates, Item, Selection, top_k};
///
/// let scores = [0.0, 0.1, 0.9, 0.9, 0.5];
/// let excluded = HashSet::from_iter(Item::new(2));
/// let best = top_k(&scores, &Selection { k: 2, excluded: &excluded, candidates: Candidates::All });
/// let ids: Vec<u32> = best.iter().map(|ranked| ranked.item.id()).collect();
/// assert_eq!(ids, [3, 4]);
/// ```
pub fn top_k(scores: &[f32], selection: &Selection<'_>) -> Vec<Ranked> {
    let mut best = TopK::new(selection);
    let mut offer = |item: Item| {
        if let Some(&score) = scores.get(item.column()) {
            best.offer(item, score);
        }
    };
    match selection.candidates {
        Candidates::All => (1..).map_while(Item::new).take(scores.len().saturating_sub(1)).for_each(&mut offer),
        Candidates::Only(items) => items.iter().copied().collect::<HashSet<_>>().into_iter().for_each(&mut offer),
        Candidates::Set(set) => set.iter().for_each(&mut offer),
    }
    best.into_ranking()
}

/// Collects the best allowed items. The order of the offers does not matter.
pub struct TopK<'a> {
    k: usize,
    excluded: &'a HashSet<Item>,
    candidates: Allowed<'a>,
    best: BinaryHeap<Worst>,
}

/// The candidates, for lookups.
enum Allowed<'a> {
    All,
    Only(HashSet<Item>),
    Set(&'a ItemSet),
}

impl Allowed<'_> {
    #[inline]
    fn contains(&self, item: Item) -> bool {
        match self {
            Allowed::All => true,
            Allowed::Only(items) => items.contains(&item),
            Allowed::Set(set) => set.contains(item),
        }
    }
}

impl<'a> TopK<'a> {
    /// An empty collection.
    pub fn new(selection: &Selection<'a>) -> TopK<'a> {
        let candidates = match selection.candidates {
            Candidates::All => Allowed::All,
            Candidates::Only(items) => Allowed::Only(items.iter().copied().collect()),
            Candidates::Set(set) => Allowed::Set(set),
        };
        let best = BinaryHeap::with_capacity(selection.k + 1);
        TopK { k: selection.k, excluded: selection.excluded, candidates, best }
    }

    /// The score below which no offer is taken: that of the worst of `k` items.
    #[inline]
    pub fn bar(&self) -> f32 {
        if self.best.len() < self.k {
            return f32::NEG_INFINITY;
        }
        self.best.peek().map_or(f32::INFINITY, |worst| worst.0.score)
    }

    /// The set that holds every allowed item, if the candidates are a set. A caller that tests many items at once by it offers
    /// fewer.
    #[inline]
    pub fn set(&self) -> Option<&'a ItemSet> {
        match self.candidates {
            Allowed::Set(set) => Some(set),
            Allowed::All | Allowed::Only(_) => None,
        }
    }

    /// Takes the item if it is allowed and good enough. The caller must not offer an item twice.
    #[inline]
    pub fn offer(&mut self, item: Item, score: f32) {
        let entry = Worst(Ranked { item, score });
        // Most offers fail this comparison, which is cheaper than the lookups below.
        if self.best.len() == self.k && self.best.peek().is_none_or(|worst| entry >= *worst) {
            return;
        }
        if score.is_nan() || !self.candidates.contains(item) || self.excluded.contains(&item) {
            return;
        }
        self.best.push(entry);
        if self.best.len() > self.k {
            self.best.pop();
        }
    }

    /// Takes the best of another collection, whose offers were other items.
    pub fn merge(&mut self, other: TopK<'_>) {
        other.best.into_iter().for_each(|Worst(ranked)| self.offer(ranked.item, ranked.score));
    }

    /// The items, best first. The lower item wins a tie.
    pub fn into_ranking(self) -> Vec<Ranked> {
        self.best.into_sorted_vec().into_iter().map(|Worst(ranked)| ranked).collect()
    }
}

/// Orders a worse entry as greater, so the heap's top is the entry to drop.
#[derive(PartialEq)]
struct Worst(Ranked);

impl Eq for Worst {}

impl Ord for Worst {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.score.total_cmp(&self.0.score).then(self.0.item.cmp(&other.0.item))
    }
}

impl PartialOrd for Worst {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: u32) -> Item {
        Item::new(id).unwrap()
    }

    fn ids(ranking: &[Ranked]) -> Vec<u32> {
        ranking.iter().map(|ranked| ranked.item.id()).collect()
    }

    #[test]
    fn ties_padding_and_nan() {
        let scores = [9.0, 1.0, f32::NAN, 2.0, 1.0, f32::NEG_INFINITY];
        let nothing = HashSet::new();
        let mut set = ItemSet::empty(5);
        [item(4), item(6), item(1), item(2)].into_iter().for_each(|item| set.insert(item));
        let best =
            |k, candidates: Candidates<'_>| ids(&top_k(&scores, &Selection { k, excluded: &nothing, candidates }));
        assert_eq!(best(9, Candidates::All), [3, 1, 4, 5]);
        assert_eq!(best(2, Candidates::All), [3, 1]);
        assert_eq!(best(0, Candidates::All), [] as [u32; 0]);
        // Item 6 has no column, and item 4 is named twice.
        assert_eq!(best(9, Candidates::Only(&[item(4), item(6), item(1), item(4)])), [1, 4]);
        assert_eq!(best(9, Candidates::Set(&set)), [1, 4]);
        assert_eq!(best(1, Candidates::Set(&set)), [1]);
    }

    #[test]
    fn a_ranking_that_lacks_allowed_items_or_has_an_infinite_score_is_not_complete() {
        let (nothing, excluded) = (HashSet::new(), HashSet::from([item(2), item(9)]));
        let candidates = [item(1), item(1), item(2), item(7)];
        let complete = |scores: &[f32], selection: Selection<'_>| {
            selection.is_complete(&top_k(scores, &selection), scores.len() - 1)
        };
        let all = |k| Selection { k, excluded: &nothing, candidates: Candidates::All };
        let fine = [0.0, 0.1, 0.2, 0.3];
        assert!(complete(&fine, all(2)) && complete(&fine, all(3)) && complete(&fine, all(0)));
        // Items 7 and 9 do not exist, and item 1 is named twice.
        assert!(complete(&fine, Selection { excluded: &excluded, ..all(3) }));
        assert!(complete(&fine, Selection { candidates: Candidates::Only(&candidates), ..all(3) }));
        assert!(complete(&fine, Selection { excluded: &excluded, candidates: Candidates::Only(&candidates), k: 3 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!complete(&[0.0, bad, 0.2, 0.3], all(3)), "{bad}");
            assert!(!complete(&[0.0, bad, bad, bad], all(1)), "{bad}");
            let only = Selection { candidates: Candidates::Only(&candidates), ..all(3) };
            assert!(!complete(&[0.0, bad, 0.2, 0.3], only), "{bad}");
        }
        // Of a set of two items one is excluded.
        let mut set = ItemSet::empty(3);
        [item(1), item(2)].into_iter().for_each(|item| set.insert(item));
        let of_set = Selection { excluded: &excluded, candidates: Candidates::Set(&set), ..all(3) };
        assert!(complete(&fine, of_set) && !complete(&[0.0, f32::NAN, 0.2, 0.3], of_set));
        // An excluded item may have any score.
        assert!(complete(&[0.0, 0.1, f32::NAN, 0.3], Selection { excluded: &excluded, ..all(3) }));
    }

    #[test]
    fn merged_parts_give_the_whole_ranking() {
        let scores = [0.0, 0.3, 0.7, 0.7, 0.1, 0.9];
        let excluded = HashSet::from([item(2)]);
        let selection = Selection { k: 3, excluded: &excluded, candidates: Candidates::All };
        let part = |range: std::ops::Range<u32>| {
            let mut part = TopK::new(&selection);
            range.for_each(|id| part.offer(item(id), scores[id as usize]));
            part
        };
        let mut whole = part(4..6);
        assert_eq!(whole.bar(), f32::NEG_INFINITY);
        whole.merge(part(1..4));
        assert_eq!(whole.bar(), 0.3);
        assert_eq!(whole.into_ranking(), top_k(&scores, &selection));
    }
}
