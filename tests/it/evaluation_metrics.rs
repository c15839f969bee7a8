//! Ranks and metrics against numbers worked out by hand and against a full sort.

use std::collections::HashSet;

use canet_domain::{Candidates, Item, Selection, top_k};
use canet_evaluation::{Estimate, Metric, target_rank};
use proptest::prelude::*;

use super::evaluation::close;
use super::support::item;

fn items(ids: &[u32]) -> Vec<Item> {
    ids.iter().map(|id| item(*id)).collect()
}

#[test]
fn the_rank_counts_better_items_that_were_not_seen() {
    let scores = [9.0, 0.1, 0.5, 0.3, 0.9, 0.4];
    // By score: 4 (0.9), 2 (0.5), 5 (0.4), 3 (0.3), 1 (0.1); the padding's 9.0 does not count.
    assert_eq!(target_rank(&scores, &[], item(4)), Some(1));
    assert_eq!(target_rank(&scores, &[], item(3)), Some(4));
    assert_eq!(target_rank(&scores, &items(&[4, 4, 1]), item(3)), Some(3));
    assert_eq!(target_rank(&scores, &items(&[4, 2, 5, 4]), item(3)), Some(1));
}

#[test]
fn ties_go_to_the_lower_item() {
    let scores = [0.0, 1.0, 1.0, 1.0, 2.0];
    assert_eq!(target_rank(&scores, &[], item(1)), Some(2));
    assert_eq!(target_rank(&scores, &[], item(3)), Some(4));
    assert_eq!(target_rank(&scores, &items(&[1]), item(3)), Some(3));
}

#[test]
fn a_target_in_the_history_or_without_a_score_is_a_miss() {
    let scores = [0.0, 1.0, f32::NAN, 3.0];
    assert_eq!(target_rank(&scores, &items(&[1, 3]), item(3)), None);
    assert_eq!(target_rank(&scores, &[], item(2)), None);
    assert_eq!(target_rank(&scores, &[], item(4)), None);
    assert_eq!(target_rank(&scores, &[], item(1)), Some(2));
}

proptest! {
    #[test]
    fn the_rank_is_the_place_in_a_full_sort(
        // Few distinct scores, signed zeros and what is not a number: many ties.
        scores in prop::collection::vec(prop::sample::select(vec![-1.0, -0.0, 0.0, 0.5, 2.0, f32::NAN]), 2..40),
        history in prop::collection::vec(1_u32..40, 0..30),
        target in 1_u32..40,
    ) {
        let history: Vec<Item> = items(&history).into_iter().filter(|item| item.column() < scores.len()).collect();
        let excluded: HashSet<Item> = history.iter().copied().collect();
        let mut order: Vec<u32> = (1..scores.len() as u32)
            .filter(|id| !excluded.contains(&item(*id)) && !scores[*id as usize].is_nan())
            .collect();
        order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
        let expected = order.iter().position(|id| *id == target).map(|place| place as u32 + 1);
        prop_assert_eq!(target_rank(&scores, &history, item(target)), expected);
        let selection = Selection { k: scores.len(), excluded: &excluded, candidates: Candidates::All };
        let served = top_k(&scores, &selection).iter().position(|ranked| ranked.item == item(target));
        prop_assert_eq!(served.map(|place| place as u32 + 1), expected);
    }
}

#[test]
fn metrics_are_those_of_the_textbook() {
    for (rank, ndcg, hr, mrr, full) in [
        (Some(1), 1.0, 1.0, 1.0, 1.0),
        (Some(3), 0.5, 1.0, 1.0 / 3.0, 1.0 / 3.0),
        (Some(10), 1.0 / 11_f64.log2(), 1.0, 0.1, 0.1),
        (Some(11), 0.0, 0.0, 0.0, 1.0 / 11.0),
        (None, 0.0, 0.0, 0.0, 0.0),
    ] {
        close(Metric::Ndcg(10).value(rank), ndcg);
        close(Metric::Hr(10).value(rank), hr);
        close(Metric::MrrAt(10).value(rank), mrr);
        close(Metric::Mrr.value(rank), full);
    }
    let estimate = Estimate::of(&[1.0, 0.0, 0.5, 0.5]);
    close(estimate.mean, 0.5);
    // Squares 0.25 + 0.25, over 3, over 4.
    close(estimate.se.unwrap(), (0.5_f64 / 3.0 / 4.0).sqrt());
    assert_eq!(Estimate::of(&[1.0]).se, None);
}
