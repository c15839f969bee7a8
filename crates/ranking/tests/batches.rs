//! Batches of users against scores that are ranked by hand.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::collections::HashSet;
use std::sync::Arc;

use canet_catalogue::{FilterExpression, ItemIndex};
use canet_cpu::CpuBackend;
use canet_data::ItemTableBuilder;
use canet_domain::{History, Item};
use canet_model::Model;
use canet_model::checkpoint::ModelDirectory;
use canet_ranking::{BatchRanker, OptionsError, RankingOptions, Recommended, UserItems};
use canet_testing::{BrokenPart, draft, item, overflowing, rng, small_config};
use rand::Rng;
use tempfile::TempDir;

struct Setting {
    _scratch: TempDir,
    model: Model,
}

impl Setting {
    fn new() -> Setting {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("m");
        draft(small_config(), 7).write(&root).unwrap();
        let directory = ModelDirectory::open(&root).unwrap();
        Setting { _scratch: scratch, model: Model::open(&directory, None, &CpuBackend::single_threaded()).unwrap() }
    }
}

fn options(k: usize, route: &str) -> RankingOptions<'_> {
    RankingOptions {
        k,
        route,
        budget: 0.3,
        exclude_seen: true,
        excluded: &[],
        candidates: None,
        index: None,
        filter: None,
    }
}

/// Users of 0 to 30 items each, and what they must not get.
fn users(items: usize) -> Vec<(Vec<Item>, Vec<Item>)> {
    let mut rng = rng(5);
    let mut some = |most: usize| -> Vec<Item> {
        (0..rng.gen_range(0..=most)).filter_map(|_| Item::new(rng.gen_range(1..=items as u32))).collect()
    };
    (0..50).map(|_| (some(30), some(4))).chain([(Vec::new(), Vec::new())]).collect()
}

fn batch(users: &[(Vec<Item>, Vec<Item>)]) -> Vec<UserItems<'_>> {
    users.iter().map(|(sequence, excluded)| UserItems { sequence, excluded, candidates: None }).collect()
}

/// The best items by their scores alone; by popularity if the user has no item.
fn by_hand(model: &Model, user: &UserItems<'_>, found: &Recommended, allowed: impl Fn(Item) -> bool) -> Vec<Item> {
    let denied: HashSet<Item> = user.sequence.iter().chain(user.excluded).copied().collect();
    let mut items: Vec<Item> = (1..=model.catalogue().len() as u32).filter_map(Item::new).collect();
    items.retain(|item| allowed(*item) && !denied.contains(item));
    let score = |item: &Item, scores: Option<&[f32]>| match scores {
        Some(scores) => scores[item.column()],
        None => model.catalogue().popularity()[item.column() - 1] as f32,
    };
    let scores = found.route.map(|route| {
        let history = History::in_window(user.sequence, model.config().window(), 0).unwrap();
        model.forward().scores(route, &[&history]).unwrap()
    });
    let row = scores.as_ref().and_then(|scores| scores.row(0));
    items.sort_by(|a, b| score(b, row).total_cmp(&score(a, row)).then(a.cmp(b)));
    items
}

#[test]
fn users_get_their_best_allowed_items() {
    let Setting { model, .. } = &Setting::new();
    let items = model.catalogue().len();
    let mut table = ItemTableBuilder::new();
    let key = table.key("parity").unwrap();
    for (place, id) in model.catalogue().ids().iter().enumerate() {
        table.value(key, if place % 2 == 0 { "odd" } else { "even" }).unwrap();
        table.item(id, "", place % 5 == 0).unwrap();
    }
    let index = Arc::new(ItemIndex::new(Arc::new(table.finish(String::new())), model.catalogue()));
    let odd: FilterExpression = serde_json::from_str(r#"{"parity": "odd"}"#).unwrap();
    let hidden = |item: Item| (item.column() - 1).is_multiple_of(5);
    let users = users(items);
    let users = batch(&users);
    for route in ["auto", "smallest", "full"] {
        for (index, filter) in [(None, None), (Some(&index), None), (Some(&index), Some(&odd))] {
            let options = RankingOptions { index, filter, ..options(items, route) };
            let found = BatchRanker::new(model, options).unwrap().rank(&users).unwrap();
            for (user, found) in users.iter().zip(&found) {
                let allowed = |item: Item| {
                    !(index.is_some() && hidden(item) || filter.is_some() && item.column().is_multiple_of(2))
                };
                let expected = by_hand(model, user, found, allowed);
                assert_eq!(found.items.iter().map(|ranked| ranked.item).collect::<Vec<_>>(), expected);
                assert_eq!(found.read, user.sequence.len().min(model.config().max_len));
                let fixed = model.space().named(route);
                let route_is_right = match fixed {
                    _ if user.sequence.is_empty() => found.route.is_none(),
                    Some(fixed) => found.route == Some(fixed),
                    None => found.route.is_some(),
                };
                assert!(route_is_right, "{route}: {:?}", found.route);
            }
        }
    }
}

#[test]
fn users_get_items_of_their_candidates_alone() {
    let Setting { model, .. } = &Setting::new();
    let items = model.catalogue().len();
    let users = users(items);
    let has = |list: &[u32], item: Item| list.contains(&item.id());
    let (own, everybody, nobody) = ([2, 3, 3, 5, 8, 13, 21], [1, 2, 3, 4, 5, 8, 9, 10, 20], [3, 4, 9]);
    let [own_items, candidates, excluded] =
        [&own[..], &everybody, &nobody].map(|ids| ids.iter().copied().filter_map(Item::new).collect::<Vec<_>>());
    for with_own in [false, true] {
        let mut users = batch(&users);
        if with_own {
            users.iter_mut().step_by(2).for_each(|user| user.candidates = Some(&own_items));
            users.iter_mut().skip(1).step_by(9).for_each(|user| user.candidates = Some(&[]));
        }
        for (candidates, excluded) in [(None, &[][..]), (Some(&*candidates), &[]), (Some(&*candidates), &excluded)] {
            let options = RankingOptions { candidates, excluded, ..options(items, "auto") };
            let found = BatchRanker::new(model, options).unwrap().rank(&users).unwrap();
            for (user, found) in users.iter().zip(&found) {
                let is_own = |item: Item| match user.candidates {
                    Some([]) => false,
                    Some(_) => has(&own, item),
                    None => true,
                };
                let is_everybodys = |item| candidates.is_none() || has(&everybody, item);
                let allowed = |item| is_own(item) && is_everybodys(item) && !excluded.contains(&item);
                let expected = by_hand(model, user, found, allowed);
                assert_eq!(found.items.iter().map(|ranked| ranked.item).collect::<Vec<_>>(), expected);
            }
        }
    }
}

#[test]
fn scores_are_those_of_the_route_and_nan_without_a_known_item() {
    let Setting { model, .. } = &Setting::new();
    let items = model.catalogue().len();
    let users = users(items);
    let ranker = BatchRanker::new(model, RankingOptions { exclude_seen: false, ..options(items, "auto") }).unwrap();
    let sequences: Vec<&[Item]> = users.iter().map(|(sequence, _)| &**sequence).collect();
    let mut scores = vec![0.0; sequences.len() * items];
    ranker.scores(&sequences, &mut scores).unwrap();
    let users: Vec<UserItems<'_>> =
        sequences.iter().map(|sequence| UserItems { sequence, excluded: &[], candidates: None }).collect();
    for (row, found) in scores.chunks(items).zip(ranker.rank(&users).unwrap()) {
        match found.route {
            None => assert!(row.iter().all(|score| score.is_nan())),
            Some(_) => assert!(found.items.iter().all(|ranked| row[ranked.item.column() - 1] == ranked.score)),
        }
    }
}

#[test]
fn wrong_options_are_named() {
    let Setting { model, .. } = &Setting::new();
    let items = model.catalogue().len();
    let error = |options: RankingOptions<'_>| BatchRanker::new(model, options).unwrap_err();
    for k in [0, items + 1] {
        assert_eq!(error(options(k, "auto")), OptionsError::K { k, most: items });
    }
    for budget in [0.0, -0.1, 1.1, f64::NAN] {
        assert!(matches!(error(RankingOptions { budget, ..options(1, "auto") }), OptionsError::Budget(_)));
    }
    let message = error(options(1, "h5")).to_string();
    assert!(message.contains("\"h5\"") && message.contains(model.space().name(model.space().smallest())), "{message}");
    let filter: FilterExpression = serde_json::from_str(r#"{"a": 1}"#).unwrap();
    let with_filter = RankingOptions { filter: Some(&filter), ..options(1, "auto") };
    assert_eq!(error(with_filter), OptionsError::NoCatalogueFile);
    let index = Arc::new(ItemIndex::new(Arc::new(ItemTableBuilder::new().finish(String::new())), model.catalogue()));
    assert!(matches!(error(RankingOptions { index: Some(&index), ..with_filter }), OptionsError::Filter(_)));
}

#[test]
fn a_user_whose_scores_are_not_finite_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("m");
    overflowing(draft(small_config(), 3), item(40), BrokenPart::Backbone).write(&root).unwrap();
    let directory = ModelDirectory::open(&root).unwrap();
    let model = Model::open(&directory, None, &CpuBackend::single_threaded()).unwrap();
    let ranker = BatchRanker::new(&model, options(3, "full")).unwrap();
    let sequences = [vec![item(1)], Vec::new(), vec![item(3), item(40)]];
    let users: Vec<UserItems<'_>> =
        sequences.iter().map(|sequence| UserItems { sequence, excluded: &[], candidates: None }).collect();
    let message = ranker.rank(&users).unwrap_err().to_string();
    assert!(message.starts_with("user 2 of the batch: the scores are not finite"), "{message}");
    let sequences: Vec<&[Item]> = sequences.iter().map(|sequence| &**sequence).collect();
    let mut scores = vec![0.0; 3 * model.catalogue().len()];
    assert_eq!(ranker.scores(&sequences, &mut scores).unwrap_err().to_string(), message);
}
