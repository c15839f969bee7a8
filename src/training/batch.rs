use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, TchError, Tensor};

use crate::domain::Item;

/// A stretch of one user's training sequence: what is read, and at each place what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// 1 to `max_len` items, oldest first.
    pub inputs: &'a [Item],
    /// The item after each of `inputs`.
    pub targets: &'a [Item],
}

/// Cuts sequences into windows of at most `max_len` inputs, from the newest item backwards, so that each pair of
/// neighbours is trained exactly once an epoch. Sequences of one item teach nothing and give none.
pub fn windows<'a>(sequences: &[&'a [Item]], max_len: usize) -> Vec<Window<'a>> {
    let mut windows = Vec::new();
    for sequence in sequences {
        let mut end = sequence.len().saturating_sub(1);
        while end > 0 {
            let start = end.saturating_sub(max_len);
            windows.push(Window { inputs: &sequence[start..end], targets: &sequence[start + 1..=end] });
            end = start;
        }
    }
    windows
}

/// The order of the windows in an epoch: the same for the same seed and epoch.
pub(super) fn epoch_order(windows: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..windows).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch + 1);
    order.shuffle(&mut rng);
    order
}

/// Windows as tensors: their real items alone, row behind row, T in all. Attention pads them, a group at a time.
pub struct Batch {
    /// Item ids: [T]
    pub items: Tensor,
    /// Their positions, the newest of a row at `max_len - 1`: [T]
    pub positions: Tensor,
    /// The row of each: [T]
    pub row: Tensor,
    /// The item after each: [T]
    pub targets: Tensor,
    /// Place of each row's newest item among the T: [B]
    pub newest: Tensor,
    /// The item after each row's newest item: [B]
    pub last_targets: Tensor,
    /// Each row's items, 0-padded: [B, L]
    pub histories: Tensor,
    /// Items of each row.
    pub lengths: Vec<usize>,
    /// The rows in stretches of similar length.
    pub(super) groups: Vec<Group>,
}

/// Neighbouring rows that are padded to one length, the padding behind their items.
pub(super) struct Group {
    /// The first row, and how many.
    pub rows: [i64; 2],
    /// The first of their items among the batch's T, and how many.
    pub tokens: [i64; 2],
    /// The length of the longest.
    pub length: i64,
    /// Where that is not every row's length: which item stands at each padded place, counted in the group; padding
    /// repeats its first: [rows·length]. And the padded place of each item: [tokens]
    pub padding: Option<[Tensor; 2]>,
    /// Whether a place holds an item of its own: [rows, length], bool
    pub real: Tensor,
    /// What an item may not see of its row, as minus infinity: what comes after it. Padding stands behind the items, so
    /// none of them sees it. [length, length]
    pub later: Tensor,
}

impl Batch {
    /// Puts windows, at least one, on a device. The longest first make the least padding.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn new(windows: &[Window<'_>], max_len: usize, device: tch::Device) -> Result<Batch, TchError> {
        let lengths: Vec<usize> = windows.iter().map(|window| window.inputs.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let mut histories = vec![0_i64; windows.len() * longest];
        let [mut items, mut positions, mut rows, mut targets] = [(); 4].map(|()| Vec::new());
        let (mut newest, mut last_targets) = (Vec::new(), Vec::new());
        for (row, window) in windows.iter().enumerate() {
            let first = max_len - window.inputs.len();
            for (offset, (input, target)) in window.inputs.iter().zip(window.targets).enumerate() {
                histories[row * longest + offset] = i64::from(input.id());
                items.push(i64::from(input.id()));
                positions.push((first + offset) as i64);
                rows.push(row as i64);
                targets.push(i64::from(target.id()));
            }
            newest.push(items.len() as i64 - 1);
            last_targets.extend(window.targets.last().map(|item| i64::from(item.id())));
        }
        let to_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Batch {
            items: to_device(&items)?,
            positions: to_device(&positions)?,
            row: to_device(&rows)?,
            targets: to_device(&targets)?,
            newest: to_device(&newest)?,
            last_targets: to_device(&last_targets)?,
            histories: to_device(&histories)?.f_reshape([windows.len() as i64, longest as i64])?,
            groups: Group::all(&lengths, device)?,
            lengths,
        })
    }

    /// Number of windows.
    pub fn rows(&self) -> i64 {
        self.lengths.len() as i64
    }
}

impl Group {
    /// Cuts rows into groups: one ends where a row is longer than the group's first or less than half as long. A GPU gets
    /// one: padding costs it less than more kernels.
    fn all(lengths: &[usize], device: tch::Device) -> Result<Vec<Group>, TchError> {
        let (mut groups, mut row, mut token) = (Vec::new(), 0, 0);
        while let Some(longest) = lengths.get(row).copied() {
            let shortest = if device.is_cuda() { 0 } else { longest.div_ceil(2) };
            let alike = lengths[row..].iter().take_while(|length| (shortest..=longest).contains(length)).count();
            let group = Group::new([row, token], &lengths[row..row + alike], device)?;
            (row, token) = (row + alike, token + group.tokens[1] as usize);
            groups.push(group);
        }
        Ok(groups)
    }

    fn new([row, token]: [usize; 2], lengths: &[usize], device: tch::Device) -> Result<Group, TchError> {
        let (rows, tokens) = (lengths.len(), lengths.iter().sum::<usize>());
        let longest = lengths.first().copied().unwrap_or_default();
        let mut items = vec![0_i64; rows * longest];
        let (mut places, mut real) = (Vec::with_capacity(tokens), vec![false; rows * longest]);
        for (row, length) in lengths.iter().enumerate() {
            for place in row * longest..row * longest + length {
                items[place] = places.len() as i64;
                places.push(place as i64);
                real[place] = true;
            }
        }
        let to_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Group {
            rows: [row as i64, rows as i64],
            tokens: [token as i64, tokens as i64],
            length: longest as i64,
            padding: match tokens < rows * longest {
                true => Some([to_device(&items)?, to_device(&places)?]),
                false => None,
            },
            real: Tensor::f_from_slice(&real)?.f_reshape([rows as i64, longest as i64])?.f_to_device(device)?,
            later: Tensor::f_full([longest as i64; 2], f64::NEG_INFINITY, (Kind::Float, device))?.f_triu(1)?,
        })
    }

    /// The group's items out of the batch's, padded: [T, h] -> [rows, length, h]
    pub(super) fn pad(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let [token, tokens] = self.tokens;
        let own = x.f_narrow(0, token, tokens)?; // [tokens, h]
        let padded = match &self.padding {
            Some([items, _]) => gather(&own, items)?,
            None => own,
        };
        padded.f_reshape([self.rows[1], self.length, -1])
    }

    /// The other way round: [rows, length, h] -> [tokens, h]
    pub(super) fn unpad(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let flat = x.f_flatten(0, 1)?;
        match &self.padding {
            Some([_, places]) => gather(&flat, places),
            None => Ok(flat),
        }
    }
}

/// Rows of a matrix by index. On a CPU as an embedding lookup: LibTorch's `index_select` adds its gradients up a row at a
/// time there. On a GPU the lookup's gradient sorts the indices and waits for the result.
///
/// # Errors
/// LibTorch's, where an index is past the end.
pub(super) fn gather(x: &Tensor, index: &Tensor) -> Result<Tensor, TchError> {
    match x.device().is_cuda() {
        true => x.f_index_select(0, index),
        false => Tensor::f_embedding(x, index, -1, false, false),
    }
}

/// The first places of a tensor along an axis; itself where these are all, which spares its gradient a copy.
///
/// # Errors
/// LibTorch's, where it has fewer.
pub(super) fn prefix(x: &Tensor, axis: i64, count: usize) -> Result<Tensor, TchError> {
    match x.size().get(axis as usize) {
        Some(all) if *all == count as i64 => Ok(x.shallow_clone()),
        _ => x.f_narrow(axis, 0, count as i64),
    }
}
