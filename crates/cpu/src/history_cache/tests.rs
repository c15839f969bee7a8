//! Threads that share a cache, in every order of their locks.

use canet_testing::item;
use loom::sync::Arc;
use loom::thread;

use super::super::kept_states::KeptStates;
use super::super::simd::RowMajor;
use super::{Found, Key, Request, StateCache};
use canet_domain::Item;

const KEY: Key = Key { owner: 0, slice: 0 };

/// States that tell whose they are: the features of a position are the ids of the items up to it.
fn states(items: &[Item]) -> KeptStates {
    let mut states = KeptStates::new();
    states.deepen(2, 0, 1);
    extend(&mut states, items);
    states
}

fn extend(states: &mut KeptStates, items: &[Item]) {
    for position in states.tokens(0)..items.len() {
        let id = |item: Option<&Item>| item.map_or(0.0, |item| item.id() as f32);
        let row = [id(items.get(position)), id(position.checked_sub(1).map(|before| &items[before]))];
        states.inputs[0].append(RowMajor { data: &row, stride: 2 }, 1);
    }
}

fn assert_states_of(states: &KeptStates, items: &[Item], tokens: usize) {
    let expected = self::states(&items[..tokens]);
    assert!(states.tokens(0) >= tokens);
    assert_eq!(states.inputs[0].rows().data[..2 * tokens], expected.inputs[0].rows().data[..2 * tokens]);
}

/// What a row does: looks its history up, computes what it lacks, and stores the result.
fn run(cache: &StateCache, items: &[Item]) {
    let mut found = cache.look_up([Request { key: KEY, depth: 0, items }].into_iter());
    let mut own = match found.pop() {
        Some(Found::Complete(states)) => return assert_states_of(&states, items, items.len()),
        Some(Found::Taken(states)) => Arc::try_unwrap(states).unwrap_or_else(|states| (*states).clone()),
        Some(Found::Prefix(states, tokens)) => states.prefix(tokens),
        Some(Found::Store) => KeptStates::new(),
        Some(Found::Skip) | None => return,
    };
    if own.inputs.is_empty() {
        own.deepen(2, 0, 1);
    }
    assert_states_of(&own, items, own.tokens(0));
    extend(&mut own, items);
    assert_states_of(&own, items, items.len());
    cache.store([(KEY, items, own)].into_iter());
}

fn items(ids: &[u32]) -> Vec<Item> {
    ids.iter().map(|id| item(*id)).collect()
}

/// Runs histories on threads of their own, after the cache has seen `before`.
fn in_every_order(budget: usize, before: &'static [u32], histories: [&'static [u32]; 2], close: bool) {
    loom::model(move || {
        let cache = Arc::new(StateCache::new(budget, vec![0]));
        run(&cache, &items(before));
        let threads = histories.map(|history| {
            let cache = Arc::clone(&cache);
            thread::spawn(move || run(&cache, &items(history)))
        });
        if close {
            cache.close();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let stats = cache.stats();
        assert_eq!(stats.hits + stats.misses_of_history, 3);
        let state = cache.lock();
        assert_eq!(stats.entries, if close { 0 } else { state.tree.len() as u64 });
        assert!(state.taken() <= budget || state.tree.len() == 0);
    });
}

#[test]
fn two_rows_that_extend_one_history_get_its_states_or_none() {
    in_every_order(1 << 20, &[1, 2], [&[1, 2, 3], &[1, 2, 4]], false);
    in_every_order(1 << 20, &[1, 2], [&[1, 2, 3], &[1, 2, 3]], false);
    in_every_order(1 << 20, &[1, 2], [&[1, 2], &[1, 2, 3]], false);
}

#[test]
fn entries_that_leave_while_rows_use_them_stay_right() {
    let room = 1500;
    in_every_order(room, &[1, 2], [&[1, 2, 3], &[5, 6]], false);
    in_every_order(0, &[1, 2], [&[1, 2, 3], &[1, 2]], false);
}

#[test]
fn an_entry_larger_than_the_cache_pushes_no_other_out() {
    loom::model(|| {
        let cache = StateCache::new(1500, vec![0]);
        run(&cache, &items(&[1, 2]));
        let long: Vec<u32> = (10..1000).collect();
        run(&cache, &items(&long));
        let stats = cache.stats();
        assert_eq!((stats.entries, stats.evictions), (1, 0));
    });
}

#[test]
fn a_closed_cache_keeps_nothing() {
    in_every_order(1 << 20, &[1, 2], [&[1, 2, 3], &[1, 2]], true);
}
