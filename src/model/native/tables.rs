use super::buffer::Buffer;
use super::panels::{Panels, padded};
use super::product::Product;
use super::simd::{Kernel, Left, Level, Simd};
use crate::domain::{History, Item};
use crate::model::{Weights, WeightsError};

/// Item and position embeddings.
pub(super) struct Tables {
    /// [N + 1, E]
    items: Buffer,
    /// [max_len, E]
    positions: Buffer,
    /// E, of both rows.
    width: usize,
}

impl Tables {
    /// `{part}.item_embedding` and `{part}.position_embedding`.
    pub(super) fn load(weights: &Weights, part: &str) -> Result<Tables, WeightsError> {
        let items = weights.get(&format!("{part}.item_embedding"))?;
        let positions = weights.get(&format!("{part}.position_embedding"))?;
        Ok(Tables {
            items: Buffer::of(&items.data),
            positions: Buffer::of(&positions.data),
            width: items.shape.last().copied().unwrap_or_default(),
        })
    }

    /// Both after a layer over their first `width` features, whose bias is in the items' alone.
    pub(super) fn through(&self, level: Level, layer: &Panels, width: usize) -> Tables {
        let stride = padded(layer.outputs());
        let rows_of = |table: &[f32], layer: &Panels| {
            let rows = table.len() / self.width;
            let mut out = Buffer::new(rows * stride);
            let input = Left { data: table, stride: self.width };
            Product::new(layer, [width, layer.outputs()], input, rows).into(level, &mut out, stride);
            out
        };
        let items = rows_of(&self.items, layer);
        Tables { items, positions: rows_of(&self.positions, &layer.without_bias()), width: stride }
    }

    /// Item + position, the first `width` features of each: a row of `stride` a token, one history behind the other.
    /// Returns how many items each has.
    pub(super) fn embed(
        &self,
        level: Level,
        histories: &[&History],
        width: usize,
        (out, stride): (&mut [f32], usize),
    ) -> Vec<usize> {
        let max_len = self.positions.len() / self.width;
        let (mut rows, mut lengths) = (out, Vec::with_capacity(histories.len()));
        for history in histories {
            // A history made for a longer model keeps its newest items, as it would at the door.
            let items = &history.items()[history.len().saturating_sub(max_len)..];
            let (own, behind) = rows.split_at_mut(items.len() * stride);
            let positions = &self.positions[(max_len - items.len()) * self.width..];
            level.run(Embed { table: &self.items, positions, beside: self.width, items, width, out: own, stride });
            rows = behind;
            lengths.push(items.len());
        }
        lengths
    }

    pub(super) fn bytes(&self) -> usize {
        self.items.bytes() + self.positions.bytes()
    }
}

/// One history's rows of both tables, added.
struct Embed<'a> {
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

impl Kernel for Embed<'_> {
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
