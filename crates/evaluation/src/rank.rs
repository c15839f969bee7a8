use std::cmp::Ordering;

use canet_domain::Item;

/// Place of the target among all items that are not in the history, from 1; ties go to the lower item.
///
/// `scores` has N + 1 columns, column 0 being the padding, which is never ranked; nor is a score that is not a
/// number. A target that stands in the history stays masked, so it has no place: a miss. The order is
/// [`top_k`](canet_domain::top_k)'s, so a target has a place up to k where `top_k` answers it.
pub fn target_rank(scores: &[f32], history: &[Item], target: Item) -> Option<u32> {
    let own = *scores.get(target.column())?;
    if own.is_nan() {
        return None;
    }
    rank_by(scores.len(), history, target, |column| {
        let score = scores[column];
        if score.is_nan() { Ordering::Less } else { score.total_cmp(&own) }
    })
}

/// The same for any kind of score: `against_target` compares a column's score with the target's.
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
    // Only the few that would stand before the target have to be told apart from their repetitions.
    let mut masked: Vec<Item> = history.iter().copied().filter(beats).collect();
    masked.sort_unstable();
    masked.dedup();
    u32::try_from(1 + below + above - masked.len()).ok()
}
