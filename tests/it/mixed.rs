//! Rows of many routes in one batch get the answers that each gets with its own route alone.

use std::collections::HashSet;

use canet_domain::{Candidates, History, Item, Ranked, Route, RouteSpace, Selection};
use canet_model::{Forward, ForwardError, ModelConfig, Query, Rows, WidthRule};
use proptest::prelude::*;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::import::{golden_draft, golden_histories, vectors};
use super::support::{Reference, any_config, forwards, random_history, random_weights, reference, rng};

/// Every score of every row: a ranking of the whole catalogue.
fn rank_all(forward: &dyn Forward, items: usize, rows: &[(Route, &History)]) -> Vec<Vec<Ranked>> {
    let nothing = HashSet::new();
    let selection = Selection { k: items, excluded: &nothing, candidates: Candidates::All };
    let rows: Vec<(Route, Query<'_>)> =
        rows.iter().map(|(route, history)| (*route, Query { history, selection })).collect();
    forward.rank(&rows).unwrap()
}

/// A score an item, column 0 left out.
fn by_item(ranked: &[Ranked], items: usize) -> Vec<f32> {
    let mut scores = vec![f32::NAN; items];
    for Ranked { item, score } in ranked {
        scores[item.column() - 1] = *score;
    }
    scores
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
        assert!(close, "{what}, item {}: {found} is not {expected}", column + 1);
    }
}

/// The same best ten, but for neighbours that tie.
fn assert_same_best(found: &[Ranked], expected: &[f32], tolerance: f32, what: &str) {
    let mut order: Vec<usize> = (0..expected.len()).collect();
    order.sort_by(|a, b| expected[*b].total_cmp(&expected[*a]));
    for (place, (found, expected_item)) in found.iter().zip(order).take(10).enumerate() {
        let (found, expected) = (expected[found.item.column() - 1], expected[expected_item]);
        let tie = (found - expected).abs() <= 2.0 * tolerance * expected.abs().max(1.0);
        assert!(tie, "{what}, place {place}: an item of {found} instead of {expected}");
    }
}

/// Random routes and histories, some of them twice.
fn mix(config: &ModelConfig, space: &RouteSpace, rows: usize, rng: &mut ChaCha8Rng) -> Vec<(Route, History)> {
    let row = |rng: &mut ChaCha8Rng| {
        let route = space.route(rng.gen_range(0..space.len())).unwrap();
        let length = rng.gen_range(1..=config.max_len);
        (route, random_history(config.items, length, rng))
    };
    (0..rows).map(|_| row(rng)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_mixed_batch_answers_as_each_route_alone(config in any_config(), rows in 1..=40_usize, seed in any::<u64>()) {
        let mut rng = rng(seed);
        let weights = random_weights(&config, &mut rng);
        let space = config.check().unwrap();
        let rows = mix(&config, &space, rows, &mut rng);
        let borrowed: Vec<(Route, &History)> = rows.iter().map(|(route, history)| (*route, history)).collect();
        for (backend, forward) in forwards(&config, &weights) {
            let mixed = rank_all(&*forward, config.items, &borrowed);
            prop_assert_eq!(mixed.len(), rows.len());
            for (place, ((route, history), found)) in borrowed.iter().zip(&mixed).enumerate() {
                let alone = forward.scores(*route, &[history]).unwrap();
                let what = format!("{backend}, row {place}, {}", space.name(*route));
                assert_near(&by_item(found, config.items), &alone.row(0).unwrap()[1..], 1e-5, &what);
                assert_same_best(found, &alone.row(0).unwrap()[1..], 1e-5, &what);
            }
        }
    }
}

#[test]
fn mixed_batches_of_an_imported_model_give_the_authors_scores() {
    for (rule, name) in [(WidthRule::Full, "scores_full_full"), (WidthRule::Slice, "scores_slice_slice")] {
        let draft = golden_draft(rule, rule);
        let space = draft.config.check().unwrap();
        let histories = golden_histories();
        let (shape, expected) = vectors(name);
        for (backend, forward) in forwards(&draft.config, &draft.weights) {
            let mut rng = rng(8);
            for _ in 0..8 {
                let picks: Vec<(Route, usize)> = (0..64)
                    .map(|_| (space.route(rng.gen_range(0..space.len())).unwrap(), rng.gen_range(0..histories.len())))
                    .collect();
                let rows: Vec<(Route, &History)> =
                    picks.iter().map(|(route, row)| (*route, &histories[*row])).collect();
                for ((route, row), found) in picks.iter().zip(rank_all(&*forward, draft.config.items, &rows)) {
                    let start = (route.index() * shape[1] + row) * shape[2];
                    let expected: Vec<f32> =
                        expected[start + 1..start + shape[2]].iter().map(|score| *score as f32).collect();
                    let what = format!("{backend}, {name}, {}, row {row}", space.name(*route));
                    assert_near(&by_item(&found, draft.config.items), &expected, 1e-4, &what);
                    assert_same_best(&found, &expected, 1e-4, &what);
                }
            }
        }
    }
}

/// A forward that shares nothing, as the trait has it.
struct Apart(Reference);

impl Forward for Apart {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.0.router_logits(histories)
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.0.scores(route, histories)
    }

    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    fn weight_bytes(&self) -> usize {
        self.0.weight_bytes()
    }
}

#[test]
fn a_forward_that_shares_nothing_answers_the_same_and_each_row_keeps_its_own_selection() {
    let config = super::support::small_config();
    let mut rng = rng(4);
    let weights = random_weights(&config, &mut rng);
    let space = config.check().unwrap();
    let rows = mix(&config, &space, 30, &mut rng);
    let excluded: Vec<HashSet<Item>> =
        rows.iter().map(|(_, history)| history.items().iter().copied().collect()).collect();
    let queries: Vec<(Route, Query<'_>)> = rows
        .iter()
        .zip(&excluded)
        .enumerate()
        .map(|(place, ((route, history), excluded))| {
            let selection = Selection { k: 1 + place % 7, excluded, candidates: Candidates::All };
            (*route, Query { history, selection })
        })
        .collect();
    let forward = reference(&config, &weights);
    assert_eq!(forward.shares_layers(), cfg!(feature = "libtorch"));
    let together = forward.rank(&queries).unwrap();
    let apart = Apart(forward);
    assert!(!apart.shares_layers());
    for (place, (found, expected)) in together.iter().zip(apart.rank(&queries).unwrap()).enumerate() {
        assert_eq!(found.len(), expected.len(), "row {place}");
        assert_eq!(found.len(), queries[place].1.selection.k.min(config.items - excluded[place].len()));
        for (found, expected) in found.iter().zip(&expected) {
            assert!(!excluded[place].contains(&found.item));
            assert!((found.score - expected.score).abs() <= 1e-5 * expected.score.abs().max(1.0), "row {place}");
        }
    }
    assert_eq!(apart.0.rank(&[]).unwrap(), Vec::<Vec<Ranked>>::new());
}
