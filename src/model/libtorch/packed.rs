use std::cmp::Reverse;
use std::ops::Range;

use tch::{TchError, Tensor};

use crate::domain::History;

/// A batch of histories as one run of real tokens: nothing is padded.
///
/// Rows stand by depth, the deepest first, and then by length. So the rows that leave at a depth are the last ones
/// and those that go on keep the numbers of their tokens; and histories of equal length stand side by side and share
/// one attention call.
pub(super) struct Packed {
    /// Item ids of all tokens: [T]
    pub(super) items: Tensor,
    /// Their positions, right aligned: the newest item of each history is at `max_len - 1`. [T]
    positions: Tensor,
    /// The token index of each row's newest item, in the order of the batch: [B]
    last: Tensor,
    /// Items a row, in the order of the batch.
    lengths: Vec<i64>,
    /// For each row of the batch, its place among those that came.
    order: Vec<usize>,
    /// For each row as it came, its place in the batch: [B]
    unsort: Tensor,
}

/// Neighbouring rows of a batch; rows and tokens of its groups count from its own first ones.
pub(super) struct Run {
    /// First row in the batch.
    row: i64,
    /// Number of rows.
    pub(super) rows: i64,
    /// First token in the batch.
    pub(super) token: i64,
    /// Number of tokens.
    pub(super) tokens: i64,
    /// Runs of rows of equal length.
    pub(super) groups: Vec<Group>,
}

/// Tensors of rows under each other; one alone is not copied.
pub(super) fn join(mut parts: Vec<Tensor>) -> Result<Tensor, TchError> {
    match parts.len() {
        1 => Ok(parts.swap_remove(0)),
        _ => Tensor::f_cat(&parts, 0),
    }
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
    /// `depth` says how many blocks each row as it came runs through.
    pub(super) fn new(
        histories: &[&History],
        depth: impl Fn(usize) -> usize,
        max_len: usize,
        device: tch::Device,
    ) -> Result<Packed, TchError> {
        let mut order: Vec<usize> = (0..histories.len()).collect();
        order.sort_by_key(|row| (Reverse(depth(*row)), histories[*row].len()));
        let mut unsort = vec![0_i64; histories.len()];
        let tokens = histories.iter().map(|history| history.len()).sum();
        let (mut items, mut positions) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        let (mut last, mut lengths) = (Vec::with_capacity(histories.len()), Vec::with_capacity(histories.len()));
        for (place, row) in order.iter().enumerate() {
            unsort[*row] = place as i64;
            let history = histories[*row];
            // A history made for a longer model keeps its newest items, as it would at the door.
            let kept = &history.items()[history.len().saturating_sub(max_len)..];
            items.extend(kept.iter().map(|item| i64::from(item.id())));
            positions.extend((max_len - kept.len()..max_len).map(|position| position as i64));
            last.push(items.len() as i64 - 1);
            lengths.push(kept.len() as i64);
        }
        let to_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Packed {
            items: to_device(&items)?,
            positions: to_device(&positions)?,
            last: to_device(&last)?,
            unsort: to_device(&unsort)?,
            lengths,
            order,
        })
    }

    /// Rows of the batch.
    pub(super) fn run(&self, rows: Range<usize>) -> Run {
        let mut run = Run {
            row: rows.start as i64,
            rows: rows.len() as i64,
            token: self.lengths[..rows.start].iter().sum(),
            tokens: 0,
            groups: Vec::new(),
        };
        for (row, length) in self.lengths[rows].iter().enumerate() {
            match run.groups.last_mut() {
                Some(group) if group.length == *length => group.rows += 1,
                _ => run.groups.push(Group { token: run.tokens, row: row as i64, rows: 1, length: *length }),
            }
            run.tokens += length;
        }
        run
    }

    /// How many rows stand before the first one for which `leaves` holds of its place among those that came.
    pub(super) fn staying(&self, leaves: impl Fn(usize) -> bool) -> usize {
        self.order.iter().position(|row| leaves(*row)).unwrap_or(self.order.len())
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.order.len()
    }

    /// A value a row as it came, for each token of the batch: [T]
    pub(super) fn by_token(&self, value: impl Fn(usize) -> i64) -> Result<Tensor, TchError> {
        let rows = self.order.iter().zip(&self.lengths);
        let values: Vec<i64> =
            rows.flat_map(|(row, length)| std::iter::repeat_n(value(*row), *length as usize)).collect();
        Tensor::f_from_slice(&values)?.f_to_device(self.items.device())
    }

    /// The embeddings of all tokens: item + position, the first `width` features. [T, width]
    pub(super) fn embed(&self, items: &Tensor, positions: &Tensor, width: usize) -> Result<Tensor, TchError> {
        let rows = |table: &Tensor, index: &Tensor| table.f_narrow(1, 0, width as i64)?.f_index_select(0, index);
        rows(items, &self.items)?.f_add(&rows(positions, &self.positions)?)
    }

    /// The newest tokens of a run of rows: [T, h] -> [R, h]
    pub(super) fn newest(&self, x: &Tensor, run: &Run) -> Result<Tensor, TchError> {
        x.f_index_select(0, &self.last.f_narrow(0, run.row, run.rows)?)
    }

    /// Rows in the order of the batch, back in the order in which they came: [B, ..] -> [B, ..]
    pub(super) fn restore(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        rows.f_index_select(0, &self.unsort)
    }
}
