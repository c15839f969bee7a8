use super::rank::rank_by;
use canet_data::Case;

/// Ranks the targets by float64 scores that `fill` writes for each case: N + 1 columns, 0 being the padding.
pub(crate) fn ranks(cases: &[Case<'_>], items: usize, fill: impl Fn(&Case<'_>, &mut [f64])) -> Vec<Option<u32>> {
    let mut scores = vec![0.0; items + 1];
    let rank = |case: &Case<'_>| {
        fill(case, &mut scores);
        let own = *scores.get(case.target.column())?;
        rank_by(scores.len(), case.history, case.target, |column| scores[column].total_cmp(&own))
    };
    cases.iter().map(rank).collect()
}
