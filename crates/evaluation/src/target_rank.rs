use std::cmp::Ordering;

use canet_domain::Item;

/// Rank of the target, from 1, among all items outside the history. Among equal scores the lower item comes first.
///
/// `scores` has N + 1 columns. Column 0 is the padding and is never ranked, and neither is a NaN score. A target that
/// is in the history stays masked and gets no rank, which counts as a miss. The order equals that of
/// [`top_k`](canet_domain::top_k): the rank is at most k exactly if `top_k` returns the target.
pub fn target_rank(scores: &[f32], history: &[Item], target: Item) -> Option<u32> {
    let target_score = *scores.get(target.column())?;
    if target_score.is_nan() {
        return None;
    }
    rank_by(scores.len(), history, target, |column| {
        let score = scores[column];
        if score.is_nan() { Ordering::Less } else { score.total_cmp(&target_score) }
    })
}

/// [`target_rank`] for any type of score: `against_target` compares a column's score with the target's.
pub(crate) fn rank_by(
    columns: usize,
    history: &[Item],
    target: Item,
    against_target: impl Fn(usize) -> Ordering,
) -> Option<u32> {
    if history.contains(&target) {
        return None;
    }
    let place = target.column();
    let below = (1..place.min(columns)).filter(|column| against_target(*column).is_ge()).count();
    let above = (place + 1..columns).filter(|column| against_target(*column).is_gt()).count();
    let beats = |item: &Item| {
        let column = item.column();
        column < columns && if column < place { against_target(column).is_ge() } else { against_target(column).is_gt() }
    };
    // Deduplicating only the few items that beat the target is cheaper than a set of the whole history.
    let mut masked: Vec<Item> = history.iter().copied().filter(beats).collect();
    masked.sort_unstable();
    masked.dedup();
    u32::try_from(1 + below + above - masked.len()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use canet_domain::{Candidates, Selection, top_k};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{item, items};

    #[test]
    fn the_rank_counts_better_unseen_items() {
        let scores = [9.0, 0.1, 0.5, 0.3, 0.9, 0.4];
        // By score: 4 (0.9), 2 (0.5), 5 (0.4), 3 (0.3), 1 (0.1). The padding's 9.0 does not count.
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
            // Few distinct scores make many ties; the values include signed zeros and NaN.
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
}
