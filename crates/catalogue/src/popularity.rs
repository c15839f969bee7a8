//! Rankings by popularity, for histories without a known item.

use std::cmp::Reverse;
use std::collections::HashSet;

use canet_domain::{Catalogue, Item};

use super::pool::SetPool;
use super::restriction::Restriction;

/// If fewer than one item in so many is allowed, they are sorted. A scan by popularity could go through the whole catalogue.
const SORTED_ONE_IN: usize = 16;

/// A request for a ranking by popularity.
#[derive(Clone, Debug)]
pub struct ColdStart {
    /// Number of items, at most.
    pub k: usize,
    /// Items that must not appear.
    pub excluded: HashSet<Item>,
    /// The items to choose from, within the restriction.
    pub candidates: Option<HashSet<Item>>,
    /// What the catalogue file allows, and the request's filter and quotas.
    pub restriction: Option<Restriction>,
}

/// The most popular items that a request allows, the most popular first.
pub fn most_popular(catalogue: &Catalogue, cold: &ColdStart) -> Vec<Item> {
    let is_allowed = |item: &Item| !cold.excluded.contains(item);
    match (&cold.candidates, &cold.restriction) {
        (None, None) => catalogue.by_popularity().iter().copied().filter(is_allowed).take(cold.k).collect(),
        // Candidates are few compared with the catalogue.
        (Some(candidates), restriction) => {
            let items = candidates.iter().copied().filter(is_allowed).collect();
            sorted(catalogue, items, restriction.as_ref(), cold.k)
        }
        (None, Some(restriction)) => scanned(catalogue, restriction, cold),
    }
}

/// The best of a few items.
fn sorted(catalogue: &Catalogue, mut items: Vec<Item>, restriction: Option<&Restriction>, k: usize) -> Vec<Item> {
    let count = |item: Item| catalogue.popularity()[item.column() - 1];
    let mut greedy = restriction.and_then(Restriction::greedy);
    items.sort_unstable_by_key(|item| (Reverse(count(*item)), *item));
    items.retain(|item| greedy.as_mut().is_none_or(|greedy| greedy.take(*item)));
    items.truncate(k);
    items
}

/// The best of a large part of the catalogue.
fn scanned(catalogue: &Catalogue, restriction: &Restriction, cold: &ColdStart) -> Vec<Item> {
    let mut open = restriction.allowed(&mut SetPool::default()).into_set();
    cold.excluded.iter().for_each(|item| open.remove(*item));
    let mut left = open.len();
    if left < catalogue.len() / SORTED_ONE_IN {
        return sorted(catalogue, open.iter().collect(), Some(restriction), cold.k);
    }
    let (mut greedy, mut best) = (restriction.greedy(), Vec::new());
    for item in catalogue.by_popularity() {
        if best.len() == cold.k || left == 0 {
            break;
        }
        if !open.contains(*item) {
            continue;
        }
        left -= 1;
        match &mut greedy {
            None => best.push(*item),
            Some(greedy) => {
                if greedy.take(*item) {
                    best.push(*item);
                    open.remove(*item);
                    // What is left may be full all the same: then the scan ends here.
                    if greedy.remove_full(&mut open) {
                        left = open.len();
                    }
                } else {
                    open.remove(*item);
                }
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use canet_data::ItemTableBuilder;
    use canet_domain::{Catalogue, Item};
    use canet_testing::rng;
    use rand::Rng;

    use super::{ColdStart, most_popular};
    use crate::{ItemIndex, MaxPer, Restriction};

    /// Items with a few values, of which some are hidden and some are not in the file.
    fn index(catalogue: &Catalogue, rng: &mut impl Rng) -> Arc<ItemIndex> {
        let mut builder = ItemTableBuilder::new();
        let key = builder.key("category").unwrap();
        for id in catalogue.ids() {
            if rng.gen_range(0..10) == 0 {
                continue;
            }
            for _ in 0..rng.gen_range(0..3) {
                // Value 0 has most of the items, and value 4 has a few.
                let value = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4][rng.gen_range(0..15)];
                builder.value(key, &value.to_string()).unwrap();
            }
            builder.item(id, "", rng.gen_range(0..10) == 0).unwrap();
        }
        Arc::new(ItemIndex::new(Arc::new(builder.finish(String::new())), catalogue))
    }

    fn some(items: usize, count: usize, rng: &mut impl Rng) -> HashSet<Item> {
        (0..count).filter_map(|_| Item::new(rng.gen_range(1..=items as u32))).collect()
    }

    #[test]
    fn the_most_popular_items_that_are_allowed_are_found_on_every_way() {
        let mut rng = rng(2);
        for round in 0..300 {
            let items = rng.gen_range(1..300);
            let ids = (0..items).map(|id| id.to_string().into()).collect();
            let catalogue = Catalogue::new(ids, (0..items).map(|_| rng.gen_range(0..20)).collect()).unwrap();
            let index = index(&catalogue, &mut rng);
            let filter = rng.gen_bool(0.7).then(|| {
                let value = rng.gen_range(0..5).to_string();
                let known = index.keys().next().unwrap().values.iter().any(|known| **known == *value);
                serde_json::from_value(if known {
                    serde_json::json!({"category": value})
                } else {
                    serde_json::json!({})
                })
            });
            let filter = filter.transpose().unwrap();
            let max_per = rng.gen_bool(0.5).then(|| MaxPer::new([("category".into(), rng.gen_range(1..4))]));
            let restriction = Restriction::new(&index, filter.as_ref(), max_per.as_ref()).unwrap();
            let allows = |item: &Item| restriction.as_ref().is_none_or(|restriction| restriction.allows(*item));
            let candidates = rng.gen_bool(0.3).then(|| some(items, 20, &mut rng).into_iter().filter(allows).collect());
            let excluded = some(items, [0, 5, 300][round % 3], &mut rng);
            let k = rng.gen_range(1..=items);
            let cold = ColdStart { k, excluded, candidates, restriction };

            // By the definition.
            let mut greedy = cold.restriction.as_ref().and_then(Restriction::greedy);
            let listed =
                |item: &Item| cold.candidates.as_ref().is_none_or(|listed: &HashSet<Item>| listed.contains(item));
            let allows = |item: &Item| cold.restriction.as_ref().is_none_or(|restriction| restriction.allows(*item));
            let by_popularity = catalogue.by_popularity().iter().copied();
            let allowed = by_popularity.filter(|item| listed(item) && allows(item) && !cold.excluded.contains(item));
            let taken = allowed.filter(|item| greedy.as_mut().is_none_or(|greedy| greedy.take(*item)));
            assert_eq!(most_popular(&catalogue, &cold), taken.take(k).collect::<Vec<_>>(), "round {round}");
        }
    }
}
