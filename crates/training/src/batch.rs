use canet_domain::Item;
use tch::{Kind, TchError, Tensor};

use crate::tensors::{Span, gather};

/// A training example: some items of one user's sequence, and the items that follow the newest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The items that the model reads: 1 to `max_len`, oldest first.
    pub inputs: &'a [Item],
    /// The item after each of the newest inputs: at least 1, at most as many as there are inputs. These inputs are the
    /// positions that carry the loss. A sample with one target is scored like a request, at its newest item only.
    pub targets: &'a [Item],
}

/// Samples as tensors.
///
/// The tensors hold the items of all samples, one sample behind the other, without padding. Only attention pads, one
/// group of samples at a time.
///
/// Shapes in this crate: B samples (rows), T items of all rows, S positions that carry the loss, L items of the longest
/// row, h features.
pub struct Batch {
    /// Item ids: `[T]`
    pub items: Tensor,
    /// Position of each item, counted so that the newest of a row is at `max_len - 1`: `[T]`
    pub positions: Tensor,
    /// Position of each item, counted from the oldest of its row: `[T]`
    pub from_oldest: Tensor,
    /// Row of each item: `[T]`
    pub row_index: Tensor,
    /// Places among the T items of the positions that carry the loss: `[S]`
    pub scored: Tensor,
    /// The item after each of those positions: `[S]`
    pub targets: Tensor,
    /// Place among the T items of each row's newest item: `[B]`
    pub newest: Tensor,
    /// The item after each row's newest item: `[B]`
    pub last_targets: Tensor,
    /// Item ids of each row, padded with 0 behind the row's items: `[B, L]`
    pub histories: Tensor,
    /// Number of items of each row.
    pub lengths: Vec<usize>,
    pub(crate) scoring: Scoring,
    pub(crate) groups: Vec<Group>,
}

/// Which positions of a batch carry the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scoring {
    /// All positions: S = T.
    Every,
    /// The newest position of each row: S = B.
    Newest,
    /// The newest positions of each row, more than one and not all.
    Several,
}

/// Neighbouring rows that attention pads to one length. The padding stands behind a row's items.
///
/// Shapes: R rows, G items of these rows, L items of the longest one.
pub(crate) struct Group {
    /// The rows among the batch's B.
    pub rows: Span,
    /// Their items among the batch's T.
    pub tokens: Span,
    /// L
    pub length: i64,
    /// `None` if all rows have the same length.
    padding: Option<Padding>,
    /// Whether a padded place holds an item: `[R, L]`, bool
    real: Tensor,
    /// Minus infinity at every key that is newer than the query, else 0: `[L, L]`. Padding stands behind the items, so
    /// this hides it from them as well.
    pub causal_mask: Tensor,
    /// How many positions the key is before the query, 0 if it is after it, query by key: `[L·L]`
    pub distances: Tensor,
    /// How many positions each place is before its row's newest item, 0 for padding: `[R·L]`
    pub ages: Tensor,
}

/// Indices that pad rows and remove their padding.
struct Padding {
    /// Which of the group's items stands at each padded place. Padding repeats item 0: `[R·L]`
    item_at: Tensor,
    /// The padded place of each item: `[G]`
    place_of: Tensor,
}

impl Batch {
    /// Copies samples to a device. Expects at least one sample. Samples of descending length need the least padding.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub fn new(samples: &[Sample<'_>], max_len: usize, device: tch::Device) -> Result<Batch, TchError> {
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.inputs.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let mut histories = vec![0_i64; samples.len() * longest];
        let [mut items, mut positions, mut from_oldest, mut row_index] = [(); 4].map(|()| Vec::new());
        let [mut scored, mut targets, mut newest, mut last_targets] = [(); 4].map(|()| Vec::new());
        for (row, sample) in samples.iter().enumerate() {
            let first = max_len - sample.inputs.len();
            for (offset, input) in sample.inputs.iter().enumerate() {
                histories[row * longest + offset] = i64::from(input.id());
                items.push(i64::from(input.id()));
                positions.push((first + offset) as i64);
                from_oldest.push(offset as i64);
                row_index.push(row as i64);
            }
            let end = items.len() as i64;
            newest.push(end - 1);
            scored.extend(end - sample.targets.len() as i64..end);
            targets.extend(sample.targets.iter().map(|item| i64::from(item.id())));
            last_targets.extend(sample.targets.last().map(|item| i64::from(item.id())));
        }
        let scoring = match scored.len() {
            // Rows of one item are both `Every` and `Newest`. `Newest` computes less.
            count if count == samples.len() => Scoring::Newest,
            count if count == items.len() => Scoring::Every,
            _ => Scoring::Several,
        };
        let to_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Batch {
            items: to_device(&items)?,
            positions: to_device(&positions)?,
            from_oldest: to_device(&from_oldest)?,
            row_index: to_device(&row_index)?,
            scored: to_device(&scored)?,
            targets: to_device(&targets)?,
            newest: to_device(&newest)?,
            last_targets: to_device(&last_targets)?,
            histories: to_device(&histories)?.f_reshape([samples.len() as i64, longest as i64])?,
            scoring,
            groups: Group::split(&lengths, device)?,
            lengths,
        })
    }

    /// Number of samples.
    pub fn rows(&self) -> i64 {
        self.lengths.len() as i64
    }

    /// Selects the positions that carry the loss: `[T, h] -> [S, h]`
    pub(crate) fn at_scored(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match self.scoring {
            Scoring::Every => Ok(x.shallow_clone()),
            Scoring::Newest | Scoring::Several => gather(x, &self.scored),
        }
    }
}

impl Group {
    /// Splits rows into groups. A row opens a new group if it is longer than the group's first row or less than half as
    /// long. A GPU gets one group, because padding costs it less than more kernels do.
    fn split(lengths: &[usize], device: tch::Device) -> Result<Vec<Group>, TchError> {
        let (mut groups, mut row, mut token) = (Vec::new(), 0, 0);
        while let Some(longest) = lengths.get(row).copied() {
            let shortest = if device.is_cuda() { 0 } else { longest.div_ceil(2) };
            let alike = lengths[row..].iter().take_while(|length| (shortest..=longest).contains(length)).count();
            let lengths = &lengths[row..row + alike];
            let rows = Span { first: row as i64, count: alike as i64 };
            let tokens = Span { first: token, count: lengths.iter().sum::<usize>() as i64 };
            groups.push(Group::new(rows, tokens, lengths, device)?);
            (row, token) = (row + alike, token + tokens.count);
        }
        Ok(groups)
    }

    fn new(rows: Span, tokens: Span, lengths: &[usize], device: tch::Device) -> Result<Group, TchError> {
        let longest = lengths.first().copied().unwrap_or_default();
        let padded = lengths.len() * longest;
        let (mut item_at, mut real, mut ages) = (vec![0_i64; padded], vec![false; padded], vec![0_i64; padded]);
        let mut place_of = Vec::with_capacity(tokens.count as usize);
        for (row, length) in lengths.iter().enumerate() {
            for (offset, place) in (row * longest..row * longest + length).enumerate() {
                item_at[place] = place_of.len() as i64;
                place_of.push(place as i64);
                real[place] = true;
                ages[place] = (length - 1 - offset) as i64;
            }
        }
        let distances: Vec<i64> =
            (0..longest * longest).map(|pair| (pair / longest).saturating_sub(pair % longest) as i64).collect();
        let to_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Group {
            rows,
            tokens,
            length: longest as i64,
            padding: match place_of.len() < padded {
                true => Some(Padding { item_at: to_device(&item_at)?, place_of: to_device(&place_of)? }),
                false => None,
            },
            real: Tensor::f_from_slice(&real)?.f_reshape([rows.count, longest as i64])?.f_to_device(device)?,
            causal_mask: Tensor::f_full([longest as i64; 2], f64::NEG_INFINITY, (Kind::Float, device))?.f_triu(1)?,
            distances: to_device(&distances)?,
            ages: to_device(&ages)?,
        })
    }

    /// Takes the group's items out of the batch's and pads them: `[T, h] -> [R, L, h]`
    pub(crate) fn pad(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let own = self.tokens.of(x)?; // [G, h]
        let padded = match &self.padding {
            Some(padding) => gather(&own, &padding.item_at)?, // [R·L, h]
            None => own,
        };
        padded.f_reshape([self.rows.count, self.length, -1])
    }

    /// Removes the padding: `[R, L, h] -> [G, h]`
    pub(crate) fn unpad(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let flat = x.f_flatten(0, 1)?; // [R·L, h]
        match &self.padding {
            Some(padding) => gather(&flat, &padding.place_of),
            None => Ok(flat),
        }
    }

    /// Minus infinity at padding, else 0: `[R, 1, 1, L]`
    pub(crate) fn padding_mask(&self) -> Result<Tensor, TchError> {
        let zeros = self.real.f_zeros_like()?.f_to_kind(Kind::Float)?;
        zeros.f_masked_fill(&self.real.f_logical_not()?, f64::NEG_INFINITY)?.f_unsqueeze(1)?.f_unsqueeze(1)
    }
}
