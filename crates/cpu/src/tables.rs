use super::buffer::Buffer;
use super::norm::Norm;
use super::panels::{Panels, padded};
use super::product::Product;
use super::simd::{Kernel, Left, Level, Simd};
use canet_domain::{History, Item};
use canet_model::{Positions, Weights, WeightsError};

/// What an item is before the first layer: its embedding, plus its position's where positions have a table, and their
/// norm where there is one.
pub(crate) struct Tables {
    /// [N + 1, E]
    items: Buffer,
    positions: Option<PositionTable>,
    norm: Option<Norm>,
    /// E, of the rows of both tables.
    width: usize,
    /// Items that are read of a history, at most.
    max_len: usize,
}

struct PositionTable {
    /// [max_len, E]
    rows: Buffer,
    /// Whether row 0 belongs to the oldest item that is read. Otherwise the last row belongs to the newest.
    from_oldest: bool,
}

impl Tables {
    /// `{part}.item_embedding` and, unless positions are relative, `{part}.position_embedding`.
    pub(crate) fn load(
        weights: &Weights,
        part: &str,
        positions: Positions,
        max_len: usize,
    ) -> Result<Tables, WeightsError> {
        let items = weights.get(&format!("{part}.item_embedding"))?;
        let table = |from_oldest| {
            let rows = weights.get(&format!("{part}.position_embedding"))?;
            Ok(Some(PositionTable { rows: Buffer::of(&rows.data), from_oldest }))
        };
        Ok(Tables {
            items: Buffer::of(&items.data),
            positions: match positions {
                Positions::Newest => table(false)?,
                Positions::Oldest => table(true)?,
                Positions::Relative => None,
            },
            norm: None,
            width: items.shape.last().copied().unwrap_or_default(),
            max_len,
        })
    }

    /// The same tables with a norm behind them.
    pub(crate) fn normed(self, norm: Norm) -> Tables {
        Tables { norm: Some(norm), ..self }
    }

    /// Whether a layer of a sum of rows is a sum of rows of its own: a norm of an item and a position is not.
    pub(crate) fn pass_layers(&self) -> bool {
        self.norm.is_none() || self.positions.is_none()
    }

    /// Rows of both tables.
    pub(crate) fn rows(&self) -> usize {
        (self.items.len() + self.positions.as_ref().map_or(0, |positions| positions.rows.len())) / self.width
    }

    /// Both after the norm and a layer over their first `width` features, whose bias is in the items' alone. Only for
    /// tables that [pass layers](Self::pass_layers).
    pub(crate) fn through(&self, level: Level, layer: &Panels, width: usize) -> Tables {
        let stride = padded(layer.outputs());
        let rows_of = |table: &[f32], layer: &Panels| {
            let rows = table.len() / self.width;
            let mut out = Buffer::new(rows * stride);
            let input = Left { data: table, stride: self.width };
            Product::new(layer, [width, layer.outputs()], input, rows).into(level, &mut out, stride);
            out
        };
        let items = match &self.norm {
            Some(norm) => {
                let mut items = self.items.clone();
                norm.apply(level, width, &mut items, self.width);
                rows_of(&items, layer)
            }
            None => rows_of(&self.items, layer),
        };
        let positions = self.positions.as_ref().map(|positions| PositionTable {
            rows: rows_of(&positions.rows, &layer.without_bias()),
            from_oldest: positions.from_oldest,
        });
        Tables { items, positions, norm: None, width: stride, max_len: self.max_len }
    }

    /// The first `width` features of each item: a row of `stride` a token, one history behind the other. Returns how many
    /// items each history has.
    pub(crate) fn embed(
        &self,
        level: Level,
        histories: &[&History],
        width: usize,
        (out, stride): (&mut [f32], usize),
    ) -> Vec<usize> {
        let (mut rows, mut lengths) = (out, Vec::with_capacity(histories.len()));
        for history in histories {
            // A history made for a longer model keeps its newest items, as it would at the door.
            let items = &history.items()[history.len().saturating_sub(self.max_len)..];
            let (own, behind) = rows.split_at_mut(items.len() * stride);
            self.sum(level, items, width, (own, stride));
            if let Some(norm) = &self.norm {
                norm.apply(level, width, own, stride);
            }
            rows = behind;
            lengths.push(items.len());
        }
        lengths
    }

    /// Item + position, where positions have a table.
    fn sum(&self, level: Level, items: &[Item], width: usize, (out, stride): (&mut [f32], usize)) {
        let (table, beside) = (&self.items, self.width);
        let Some(positions) = &self.positions else {
            for (item, out) in items.iter().zip(out.chunks_mut(stride)) {
                out[..width].copy_from_slice(&table[item.column() * beside..][..width]);
            }
            return;
        };
        let first = if positions.from_oldest { 0 } else { self.max_len - items.len() };
        let positions = &positions.rows[first * beside..];
        level.run(Sum { table, positions, beside, items, width, out, stride });
    }

    pub(crate) fn bytes(&self) -> usize {
        let positions = self.positions.as_ref().map_or(0, |positions| positions.rows.bytes());
        self.items.bytes() + positions + self.norm.as_ref().map_or(0, Norm::bytes)
    }
}

/// One history's rows of both tables, added.
struct Sum<'a> {
    table: &'a [f32],
    /// From the oldest item's on.
    positions: &'a [f32],
    /// Distance of two rows of both.
    beside: usize,
    items: &'a [Item],
    width: usize,
    out: &'a mut [f32],
    /// Distance of two rows of it.
    stride: usize,
}

impl Kernel for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let whole = self.width - self.width % S::LANES;
        let rows = self.out.chunks_mut(self.stride).zip(self.positions.chunks(self.beside));
        for (item, (out, position)) in self.items.iter().zip(rows) {
            let item = &self.table[item.column() * self.beside..][..self.width];
            for at in (0..whole).step_by(S::LANES) {
                simd.store(simd.add(simd.load(&item[at..]), simd.load(&position[at..])), &mut out[at..]);
            }
            for at in whole..self.width {
                out[at] = item[at] + position[at];
            }
        }
    }
}
