use tch::{Kind, TchError, Tensor};

use super::tensors::to_host;
use canet_domain::{Candidates, Item, Ranked, Selection, TopK, top_k};

/// The whole row is copied if at least one in so many items is picked: that costs no more.
const COPY_ALL_FROM: usize = 4;

/// The best items of each row of scores, [B, N + 1], with one selection a row. Equals [`top_k`].
///
/// The device picks as many items as can matter, including excluded ones, and only those are copied. It may pick any of
/// several equal scores. So a row is copied whole if its last picked score is not below its k-th allowed score.
///
/// # Errors
/// [`TchError`] if the device fails.
pub(crate) fn device_top_k(scores: &Tensor, selections: &[Selection<'_>]) -> Result<Vec<Vec<Ranked>>, TchError> {
    let columns = scores.size().last().copied().unwrap_or_default() as usize;
    let items = columns.saturating_sub(1);
    let matter = |selection: &Selection<'_>| match selection.candidates {
        Candidates::All => selection.k.saturating_add(selection.excluded.len()).saturating_add(1),
        // Any item may be the best of those that are allowed.
        Candidates::Only(_) | Candidates::Set(_) => items,
    };
    let picked = selections.iter().map(matter).max().unwrap_or_default();
    if picked.saturating_mul(COPY_ALL_FROM) >= items {
        let rows = to_host(scores)?.data; // [B, N + 1]
        return Ok(selections
            .iter()
            .zip(rows.chunks_exact(columns))
            .map(|(selection, row)| top_k(row, selection))
            .collect());
    }
    // Column 0 is padding.
    let (values, places) = scores.f_narrow(1, 1, items as i64)?.f_topk(picked as i64, 1, true, true)?;
    // One copy for both, with places as the bits of floats.
    let places = places.f_to_kind(Kind::Int)?.f_view_dtype(Kind::Float)?;
    let both = to_host(&Tensor::f_cat(&[values, places], 1)?)?.data; // [B, 2 picked]
    let rows = selections.iter().zip(both.chunks_exact(2 * picked)).enumerate();
    rows.map(|(row, (selection, both))| {
        let (values, places) = both.split_at(picked);
        let mut best = TopK::new(selection);
        for (value, place) in values.iter().zip(places) {
            if let Some(item) = Item::new(place.to_bits() + 1) {
                best.offer(item, *value);
            }
        }
        if values.last().is_some_and(|last| *last < best.bar()) {
            return Ok(best.into_ranking());
        }
        Ok(top_k(&to_host(&scores.f_narrow(0, row as i64, 1)?)?.data, selection))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use canet_domain::ItemSet;

    use super::*;

    /// Compares with the ranking of whole rows, with ties, NaN and too few numbers.
    #[test]
    fn device_top_k_ranks_as_top_k_does() {
        tch::manual_seed(5);
        let options = (Kind::Float, tch::Device::Cpu);
        let (rows, items) = (40_i64, 900_i64);
        let scores = Tensor::randn([rows, items + 1], options);
        // Few distinct values, for ties; then rows with holes.
        scores.narrow(0, 8, 8).copy_(&(Tensor::randn([8, items + 1], options) * 3.0).round());
        let _ = scores.narrow(0, 16, 4).narrow(1, 1, 500).fill_(f64::NAN);
        let _ = scores.narrow(0, 20, 4).narrow(1, 1, 895).fill_(f64::NEG_INFINITY);
        let _ = scores.narrow(0, 24, 2).fill_(0.0);
        let _ = scores.narrow(1, 0, 1).fill_(1e9);
        let item = |id: i64| Item::new(id as u32).unwrap();
        let excluded: Vec<HashSet<Item>> =
            (0..rows).map(|row| (1..=row).map(|place| item(1 + (place * 37 + row) % items)).collect()).collect();
        let few = [item(3), item(700), item(12)];
        let mut set = ItemSet::empty(items as usize);
        (1..=items).step_by(7).map(item).for_each(|item| set.insert(item));
        for (k, every) in [(1, true), (10, true), (100, true), (10, false), (899, true)] {
            let selections: Vec<Selection<'_>> = excluded
                .iter()
                .enumerate()
                .map(|(row, excluded)| {
                    let candidates = match row {
                        30 if !every => Candidates::Only(&few),
                        10 | 31 if !every => Candidates::Set(&set),
                        _ => Candidates::All,
                    };
                    Selection { k, excluded, candidates }
                })
                .collect();
            let found = device_top_k(&scores, &selections).unwrap();
            let whole = to_host(&scores).unwrap().data;
            for (row, (selection, scores)) in selections.iter().zip(whole.chunks_exact(items as usize + 1)).enumerate()
            {
                assert_eq!(found[row], top_k(scores, selection), "k {k}, row {row}");
            }
        }
    }
}
