use tch::{TchError, Tensor};

use crate::domain::History;

/// A batch of histories as one run of real tokens: nothing is padded.
///
/// Rows are sorted by length, so that histories of equal length stand side by side and share one attention call.
pub(super) struct Packed {
    /// Item ids of all tokens: [T]
    pub(super) items: Tensor,
    /// Their positions, right aligned: the newest item of each history is at `max_len - 1`. [T]
    pub(super) positions: Tensor,
    /// The token index of each row's newest item, rows sorted by length: [B]
    pub(super) last: Tensor,
    /// Runs of rows of equal length.
    pub(super) groups: Vec<Group>,
    /// For each row as it came, its place in the sorted order: [B]
    unsort: Tensor,
}

/// Rows of equal length, side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// First token.
    pub(super) token: i64,
    /// First row.
    pub(super) row: i64,
    /// Number of rows.
    pub(super) rows: i64,
    /// Items a row.
    pub(super) length: i64,
}

impl Packed {
    pub(super) fn new(histories: &[&History], max_len: usize, device: tch::Device) -> Result<Packed, TchError> {
        let mut order: Vec<usize> = (0..histories.len()).collect();
        order.sort_by_key(|row| histories[*row].len());
        let mut unsort = vec![0_i64; histories.len()];
        let tokens = histories.iter().map(|history| history.len()).sum();
        let (mut items, mut positions) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        let mut last = Vec::with_capacity(histories.len());
        let mut groups: Vec<Group> = Vec::new();
        for (place, row) in order.into_iter().enumerate() {
            unsort[row] = place as i64;
            let history = histories[row];
            // A history made for a longer model keeps its newest items, as it would at the door.
            let kept = &history.items()[history.len().saturating_sub(max_len)..];
            let length = kept.len() as i64;
            match groups.last_mut() {
                Some(group) if group.length == length => group.rows += 1,
                _ => groups.push(Group { token: items.len() as i64, row: place as i64, rows: 1, length }),
            }
            items.extend(kept.iter().map(|item| i64::from(item.id())));
            positions.extend((max_len - kept.len()..max_len).map(|position| position as i64));
            last.push(items.len() as i64 - 1);
        }
        let to_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Packed {
            items: to_device(&items)?,
            positions: to_device(&positions)?,
            last: to_device(&last)?,
            unsort: to_device(&unsort)?,
            groups,
        })
    }

    /// The embeddings of all tokens: item + position, the first `width` features. [T, width]
    pub(super) fn embed(&self, items: &Tensor, positions: &Tensor, width: usize) -> Result<Tensor, TchError> {
        let rows = |table: &Tensor, index: &Tensor| table.f_narrow(1, 0, width as i64)?.f_index_select(0, index);
        rows(items, &self.items)?.f_add(&rows(positions, &self.positions)?)
    }

    /// Rows sorted by length, back in the order in which they came: [B, ..] -> [B, ..]
    pub(super) fn restore(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        rows.f_index_select(0, &self.unsort)
    }
}
