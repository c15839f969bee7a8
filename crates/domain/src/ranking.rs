use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use super::Item;

/// An item and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// The item.
    pub item: Item,
    /// Its unrounded score (a logit).
    pub score: f32,
}

/// Which items may be ranked.
#[derive(Clone, Copy, Debug)]
pub enum Candidates<'a> {
    /// The whole catalogue.
    All,
    /// These alone.
    Only(&'a [Item]),
}

/// What to take from a row of scores.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// At most this many items.
    pub k: usize,
    /// Items that must not appear: seen ones and denied ones.
    pub excluded: &'a HashSet<Item>,
    /// Where to choose from.
    pub candidates: Candidates<'a>,
}

/// The `k` best allowed items of a score row, best first; ties go to the lower item.
///
/// `scores` has N + 1 columns, column 0 being the padding, which is never ranked; nor is a score that is not
/// a number. Fewer than `k` items come back where fewer are allowed.
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
    }
    best.into_ranking()
}

/// The best allowed items among those offered so far; the order of the offers does not matter.
pub struct TopK<'a> {
    k: usize,
    excluded: &'a HashSet<Item>,
    /// Where not the whole catalogue is to choose from.
    candidates: Option<HashSet<Item>>,
    best: BinaryHeap<Worst>,
}

impl<'a> TopK<'a> {
    /// Nothing yet.
    pub fn new(selection: &Selection<'a>) -> TopK<'a> {
        let candidates = match selection.candidates {
            Candidates::All => None,
            Candidates::Only(items) => Some(items.iter().copied().collect()),
        };
        let best = BinaryHeap::with_capacity(selection.k + 1);
        TopK { k: selection.k, excluded: selection.excluded, candidates, best }
    }

    /// The score below which no offer enters: that of the last of `k` items.
    #[inline]
    pub fn bar(&self) -> f32 {
        if self.best.len() < self.k {
            return f32::NEG_INFINITY;
        }
        self.best.peek().map_or(f32::INFINITY, |worst| worst.0.score)
    }

    /// Takes an item that is allowed and good enough. No item may be offered twice.
    #[inline]
    pub fn offer(&mut self, item: Item, score: f32) {
        let entry = Worst(Ranked { item, score });
        // What is allowed is looked up only for the few scores that would enter.
        if self.best.len() == self.k && self.best.peek().is_none_or(|worst| entry >= *worst) {
            return;
        }
        let candidate = self.candidates.as_ref().is_none_or(|candidates| candidates.contains(&item));
        if score.is_nan() || !candidate || self.excluded.contains(&item) {
            return;
        }
        self.best.push(entry);
        if self.best.len() > self.k {
            self.best.pop();
        }
    }

    /// Takes what was best among other items.
    pub fn merge(&mut self, other: TopK<'_>) {
        other.best.into_iter().for_each(|Worst(ranked)| self.offer(ranked.item, ranked.score));
    }

    /// Best first; ties go to the lower item.
    pub fn into_ranking(self) -> Vec<Ranked> {
        self.best.into_sorted_vec().into_iter().map(|Worst(ranked)| ranked).collect()
    }
}

/// Orders a worse entry as greater, so that the heap's top is the one to drop.
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
