use std::cmp::Reverse;
use std::ops::Range;

use tch::{Kind, TchError, Tensor};

use canet_domain::History;
use canet_model::Positions;

/// A batch of histories, one row of real tokens after the other. Nothing is padded.
///
/// Rows are sorted by depth, the deepest first, and then by length. So the rows that leave at a depth are the last
/// ones, and the tokens of the other rows keep their places. Histories of equal length are neighbours and share one
/// attention call.
pub(crate) struct PackedBatch {
    /// Item ids of all tokens: [T]
    pub(crate) items: Tensor,
    /// Their rows of the table of positions, empty for relative positions: [T]
    positions: Tensor,
    /// The token of each row's newest item, in the order of the batch: [B]
    last: Tensor,
    /// The length of each row, in the order of the batch.
    lengths: Vec<i64>,
    /// For each row of the batch, its place among the histories.
    order: Vec<usize>,
    /// For each history, its place in the batch: [B]
    unsort: Tensor,
    /// Whether rows of several lengths share a group.
    pads: bool,
}

/// How histories become a batch.
#[derive(Clone, Copy)]
pub(crate) struct PackOptions {
    /// The most items of a history that are read.
    pub(crate) max_len: usize,
    pub(crate) positions: Positions,
    pub(crate) device: tch::Device,
    /// Whether attention pads rows of several lengths, so that they share one call.
    pub(crate) pads: bool,
}

/// Neighbouring rows of a batch. The rows and tokens of its groups count from its own first ones.
pub(crate) struct RowRange {
    /// First row in the batch.
    row: i64,
    /// Number of rows.
    pub(crate) rows: i64,
    /// First token in the batch.
    pub(crate) token: i64,
    /// Number of tokens.
    pub(crate) tokens: i64,
    /// Its rows, in order.
    pub(crate) groups: Vec<Group>,
}

/// Neighbouring rows that share one attention call.
pub(crate) struct Group {
    /// First token.
    pub(crate) token: i64,
    /// Number of tokens.
    pub(crate) tokens: i64,
    /// First row.
    pub(crate) row: i64,
    /// Number of rows.
    pub(crate) rows: i64,
    /// The length of the longest row.
    pub(crate) length: i64,
    /// Present if lengths differ.
    pub(crate) padding: Option<Padding>,
}

/// The padding of rows of several lengths, which follows their items.
pub(crate) struct Padding {
    /// The token at each padded place, counted in the group. Padding repeats the row's first token: [rows·length]
    places: Tensor,
    /// The padded place of each token: [tokens]
    tokens: Tensor,
    /// Whether a place holds an item: [rows, 1, 1, length], bool
    pub(crate) real: Tensor,
    /// The length of each row: [rows]
    pub(crate) lengths: Tensor,
}

impl Group {
    /// Takes the group's tokens out of its rows' and pads them to the group's length: [T, h] -> [rows·length, h]
    pub(crate) fn pad(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let own = x.f_narrow(0, self.token, self.tokens)?;
        match &self.padding {
            Some(padding) => own.f_index_select(0, &padding.places),
            None => Ok(own),
        }
    }

    /// The inverse of `pad`: [rows·length, h] -> [tokens, h]
    pub(crate) fn unpad(&self, x: Tensor) -> Result<Tensor, TchError> {
        match &self.padding {
            Some(padding) => x.f_index_select(0, &padding.tokens),
            None => Ok(x),
        }
    }
}

impl Padding {
    fn of(lengths: &[i64], longest: i64, device: tch::Device) -> Result<Padding, TchError> {
        let (mut places, mut tokens, mut real) = (Vec::new(), Vec::new(), Vec::new());
        for length in lengths {
            let (first, start) = (tokens.len() as i64, places.len() as i64);
            tokens.extend(start..start + length);
            places.extend((0..longest).map(|place| if place < *length { first + place } else { first }));
            real.extend((0..longest).map(|place| i64::from(place < *length)));
        }
        let [places, tokens, real, lengths] = upload([&places, &tokens, &real, lengths], device)?;
        let real = real.f_to_kind(Kind::Bool)?.f_view([-1, 1, 1, longest])?;
        Ok(Padding { places, tokens, real, lengths })
    }
}

/// Groups rows of equal length.
fn of_equal_length(lengths: &[i64]) -> Vec<Group> {
    let (mut groups, mut token) = (Vec::<Group>::new(), 0);
    for (row, length) in lengths.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if group.length == *length => {
                group.rows += 1;
                group.tokens += length;
            }
            _ => {
                groups.push(Group { token, tokens: *length, row: row as i64, rows: 1, length: *length, padding: None });
            }
        }
        token += length;
    }
    groups
}

/// Copies several vectors to a device at once.
fn upload<const N: usize>(parts: [&[i64]; N], device: tch::Device) -> Result<[Tensor; N], TchError> {
    let all = Tensor::f_from_slice(&parts.concat())?.f_to_device(device)?;
    let mut first = 0;
    let mut tensors = [const { None }; N];
    for (tensor, part) in tensors.iter_mut().zip(parts) {
        *tensor = Some(all.f_narrow(0, first, part.len() as i64)?);
        first += part.len() as i64;
    }
    Ok(tensors.map(Option::unwrap_or_default))
}

impl PackedBatch {
    /// Packs histories. `depth` is the number of blocks of a history's row.
    pub(crate) fn new(
        histories: &[&History],
        depth: impl Fn(usize) -> usize,
        options: PackOptions,
    ) -> Result<PackedBatch, TchError> {
        let PackOptions { max_len, positions: rule, device, pads } = options;
        let mut order: Vec<usize> = (0..histories.len()).collect();
        order.sort_by_key(|row| (Reverse(depth(*row)), histories[*row].len()));
        let mut unsort = vec![0_i64; histories.len()];
        let tokens = histories.iter().map(|history| history.len()).sum();
        let (mut items, mut positions) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        let (mut last, mut lengths) = (Vec::with_capacity(histories.len()), Vec::with_capacity(histories.len()));
        for (place, row) in order.iter().enumerate() {
            unsort[*row] = place as i64;
            let history = histories[*row];
            // The model reads only the newest items of a longer history.
            let kept = &history.items()[history.len().saturating_sub(max_len)..];
            items.extend(kept.iter().map(|item| i64::from(item.id())));
            let table = match rule {
                Positions::Newest => max_len - kept.len()..max_len,
                Positions::Oldest => 0..kept.len(),
                Positions::Relative => 0..0,
            };
            positions.extend(table.map(|position| position as i64));
            last.push(items.len() as i64 - 1);
            lengths.push(kept.len() as i64);
        }
        let [items, positions, last, unsort] = upload([&items, &positions, &last, &unsort], device)?;
        Ok(PackedBatch { items, positions, last, lengths, order, unsort, pads })
    }

    /// The rows of a range.
    ///
    /// # Errors
    /// [`TchError`] if memory runs out.
    pub(crate) fn range(&self, rows: Range<usize>) -> Result<RowRange, TchError> {
        let token = self.lengths[..rows.start].iter().sum();
        let (row, lengths) = (rows.start as i64, &self.lengths[rows]);
        let tokens = lengths.iter().sum();
        let longest = lengths.iter().max().copied().unwrap_or_default();
        let count = lengths.len() as i64;
        let groups = match self.pads && lengths.iter().any(|length| *length < longest) {
            true => {
                let padding = Some(Padding::of(lengths, longest, self.items.device())?);
                vec![Group { token: 0, tokens, row: 0, rows: count, length: longest, padding }]
            }
            false => of_equal_length(lengths),
        };
        Ok(RowRange { row, rows: count, token, tokens, groups })
    }

    /// The number of rows before the first one whose history `leaves`.
    pub(crate) fn staying(&self, leaves: impl Fn(usize) -> bool) -> usize {
        self.order.iter().position(|row| leaves(*row)).unwrap_or(self.order.len())
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.order.len()
    }

    /// One value a history, repeated for each token of its row: [T]
    pub(crate) fn by_token(&self, value: impl Fn(usize) -> i64) -> Result<Tensor, TchError> {
        let rows = self.order.iter().zip(&self.lengths);
        let values: Vec<i64> =
            rows.flat_map(|(row, length)| std::iter::repeat_n(value(*row), *length as usize)).collect();
        Tensor::f_from_slice(&values)?.f_to_device(self.items.device())
    }

    /// The length of the longest row.
    pub(crate) fn longest(&self) -> i64 {
        self.lengths.iter().max().copied().unwrap_or_default()
    }

    /// The first `width` features of all tokens' embeddings: item + position. Relative positions have no table. [T,
    /// width]
    pub(crate) fn embed(&self, items: &Tensor, positions: Option<&Tensor>, width: usize) -> Result<Tensor, TchError> {
        let rows = |table: &Tensor, index: &Tensor| table.f_narrow(1, 0, width as i64)?.f_index_select(0, index);
        let items = rows(items, &self.items)?; // [T, width]
        match positions {
            Some(positions) => items.f_add(&rows(positions, &self.positions)?), // [T, width]
            None => Ok(items),
        }
    }

    /// The newest tokens of a range of rows: [T, h] -> [R, h]
    pub(crate) fn newest(&self, x: &Tensor, rows: &RowRange) -> Result<Tensor, TchError> {
        x.f_index_select(0, &self.last.f_narrow(0, rows.row, rows.rows)?)
    }

    /// Puts rows back into the order of the histories: [B, ..] -> [B, ..]
    pub(crate) fn restore(&self, rows: &Tensor) -> Result<Tensor, TchError> {
        rows.f_index_select(0, &self.unsort)
    }
}
