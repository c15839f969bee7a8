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
    let mut best = BinaryHeap::with_capacity(selection.k + 1);
    let mut offer = |item: Item| {
        let Some(&score) = scores.get(item.column()) else { return };
        let entry = Worst(Ranked { item, score });
        // The exclusion is looked up only for the few scores that would enter.
        if best.len() == selection.k && best.peek().is_none_or(|worst| entry >= *worst) {
            return;
        }
        if score.is_nan() || selection.excluded.contains(&item) {
            return;
        }
        best.push(entry);
        if best.len() > selection.k {
            best.pop();
        }
    };
    match selection.candidates {
        Candidates::All => (1..).map_while(Item::new).take(scores.len().saturating_sub(1)).for_each(&mut offer),
        Candidates::Only(items) => {
            let mut offered = HashSet::with_capacity(items.len());
            items.iter().copied().filter(|item| offered.insert(*item)).for_each(&mut offer);
        }
    }
    best.into_sorted_vec().into_iter().map(|Worst(ranked)| ranked).collect()
}

/// Orders a worse entry as greater, so that the heap's top is the one to drop.
#[derive(PartialEq)]
struct Worst(Ranked);

impl Eq for Worst {}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.score.total_cmp(&self.0.score).then(self.0.item.cmp(&other.0.item))
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
