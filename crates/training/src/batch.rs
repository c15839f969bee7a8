use tch::{Kind, TchError, Tensor};

use canet_domain::Item;

/// A part of one user's sequence to learn from: the items that are read, and what came after the newest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// 1 to `max_len` items, oldest first.
    pub inputs: &'a [Item],
    /// The items after the newest inputs, 1 to as many as there are inputs. The positions of those inputs carry the loss;
    /// with one target the sample is a prefix of the history and is scored as a request is.
    pub targets: &'a [Item],
}

/// Samples as tensors: their real items alone, row behind row, T in all. Attention pads them, a group at a time.
pub struct Batch {
    /// Item ids: [T]
    pub items: Tensor,
    /// Their positions, the newest of a row at `max_len - 1`: [T]
    pub positions: Tensor,
    /// Their positions, the oldest of a row at 0: [T]
    pub from_oldest: Tensor,
    /// The row of each: [T]
    pub row: Tensor,
    /// Places among the T of the positions that carry the loss: [S]
    pub scored: Tensor,
    /// The item after each of those: [S]
    pub targets: Tensor,
    /// Place of each row's newest item among the T: [B]
    pub newest: Tensor,
    /// The item after each row's newest item: [B]
    pub last_targets: Tensor,
    /// Each row's items, 0-padded: [B, L]
    pub histories: Tensor,
    /// Items of each row.
    pub lengths: Vec<usize>,
    /// Which positions carry the loss.
    pub(crate) scoring: Scoring,
    /// The rows in stretches of similar length.
    pub(crate) groups: Vec<Group>,
}

/// Which positions of a batch carry the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scoring {
    /// All of them: S = T.
    Every,
    /// The newest of each row alone: S = B.
    Newest,
    /// Several newest ones of a row.
    Several,
}

/// Neighbouring rows that are padded to one length, the padding behind their items.
pub(crate) struct Group {
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
    /// How far each place is behind another one, 0 where it is not: query by key, [length·length]
    pub distances: Tensor,
    /// How far each place is behind its row's newest item, 0 for padding: [rows·length]
    pub ages: Tensor,
}

impl Batch {
    /// Puts samples, at least one, on a device. The longest first make the least padding.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn new(samples: &[Sample<'_>], max_len: usize, device: tch::Device) -> Result<Batch, TchError> {
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.inputs.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let mut histories = vec![0_i64; samples.len() * longest];
        let [mut items, mut positions, mut from_oldest, mut rows] = [(); 4].map(|()| Vec::new());
        let [mut scored, mut targets, mut newest, mut last_targets] = [(); 4].map(|()| Vec::new());
        for (row, sample) in samples.iter().enumerate() {
            let first = max_len - sample.inputs.len();
            for (offset, input) in sample.inputs.iter().enumerate() {
                histories[row * longest + offset] = i64::from(input.id());
                items.push(i64::from(input.id()));
                positions.push((first + offset) as i64);
                from_oldest.push(offset as i64);
                rows.push(row as i64);
            }
            let end = items.len() as i64;
            newest.push(end - 1);
            scored.extend(end - sample.targets.len() as i64..end);
            targets.extend(sample.targets.iter().map(|item| i64::from(item.id())));
            last_targets.extend(sample.targets.last().map(|item| i64::from(item.id())));
        }
        let scoring = match scored.len() {
            // Samples of one item are scored at every position and at their newest one: the latter is cheaper.
            count if count == samples.len() => Scoring::Newest,
            count if count == items.len() => Scoring::Every,
            _ => Scoring::Several,
        };
        let to_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Batch {
            items: to_device(&items)?,
            positions: to_device(&positions)?,
            from_oldest: to_device(&from_oldest)?,
            row: to_device(&rows)?,
            scored: to_device(&scored)?,
            targets: to_device(&targets)?,
            newest: to_device(&newest)?,
            last_targets: to_device(&last_targets)?,
            histories: to_device(&histories)?.f_reshape([samples.len() as i64, longest as i64])?,
            scoring,
            groups: Group::all(&lengths, device)?,
            lengths,
        })
    }

    /// Number of samples.
    pub fn rows(&self) -> i64 {
        self.lengths.len() as i64
    }

    /// The positions that carry the loss, out of all: [T, h] -> [S, h]
    pub(crate) fn at_scored(&self, x: &Tensor) -> Result<Tensor, TchError> {
        match self.scoring {
            Scoring::Every => Ok(x.shallow_clone()),
            Scoring::Newest | Scoring::Several => gather(x, &self.scored),
        }
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
        let mut ages = vec![0_i64; rows * longest];
        for (row, length) in lengths.iter().enumerate() {
            for (offset, place) in (row * longest..row * longest + length).enumerate() {
                items[place] = places.len() as i64;
                places.push(place as i64);
                real[place] = true;
                ages[place] = (length - 1 - offset) as i64;
            }
        }
        let distances: Vec<i64> =
            (0..longest * longest).map(|pair| (pair / longest).saturating_sub(pair % longest) as i64).collect();
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
            distances: to_device(&distances)?,
            ages: to_device(&ages)?,
        })
    }

    /// The group's items out of the batch's, padded: [T, h] -> [rows, length, h]
    pub(crate) fn pad(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let [token, tokens] = self.tokens;
        let own = x.f_narrow(0, token, tokens)?; // [tokens, h]
        let padded = match &self.padding {
            Some([items, _]) => gather(&own, items)?,
            None => own,
        };
        padded.f_reshape([self.rows[1], self.length, -1])
    }

    /// What nobody may see, as minus infinity: padding. [rows, 1, 1, length]
    pub(crate) fn hidden_padding(&self) -> Result<Tensor, TchError> {
        let zeros = self.real.f_zeros_like()?.f_to_kind(Kind::Float)?;
        zeros.f_masked_fill(&self.real.f_logical_not()?, f64::NEG_INFINITY)?.f_unsqueeze(1)?.f_unsqueeze(1)
    }

    /// The other way round: [rows, length, h] -> [tokens, h]
    pub(crate) fn unpad(&self, x: &Tensor) -> Result<Tensor, TchError> {
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
pub(crate) fn gather(x: &Tensor, index: &Tensor) -> Result<Tensor, TchError> {
    match x.device().is_cuda() {
        true => x.f_index_select(0, index),
        false => Tensor::f_embedding(x, index, -1, false, false),
    }
}

/// The first places of a tensor along an axis; itself where these are all, which spares its gradient a copy.
///
/// # Errors
/// LibTorch's, where it has fewer.
pub(crate) fn prefix(x: &Tensor, axis: i64, count: usize) -> Result<Tensor, TchError> {
    match x.size().get(axis as usize) {
        Some(all) if *all == count as i64 => Ok(x.shallow_clone()),
        _ => x.f_narrow(axis, 0, count as i64),
    }
}
