//! What enters the first block: items, positions and the input layer.

use super::buffer::Buffer;
use super::norm::Norm;
use super::panels::{Packer, Panels, padded};
use super::product::{LayerInput, Product, Shape};
use super::simd::{Kernel, Level, RowMajor, RowMajorMut, Simd};
use super::workspace::Workspace;
use canet_domain::{History, Item, Route, RouteSpace};
use canet_model::{ModelConfig, Positions, Precision, Weights, WeightsError};

/// The most bytes that precomputed products of the tables may take.
const MAX_PRECOMPUTED_BYTES: usize = 64 << 20;

/// The embedding of a slice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct EmbeddingSlice {
    /// Place of its width in the ascending list.
    pub(crate) place: usize,
    pub(crate) width: usize,
}

impl EmbeddingSlice {
    #[inline]
    pub(crate) fn of(space: &RouteSpace, route: Route) -> EmbeddingSlice {
        let [_, _, place] = space.place(route);
        EmbeddingSlice { place, width: space.embedding()[place] }
    }
}

/// The items of a history from a place on.
#[derive(Clone, Copy)]
pub(crate) struct FurtherItems<'a> {
    /// All items that the model reads.
    pub(crate) items: &'a [Item],
    /// The first one to embed.
    pub(crate) first: usize,
    pub(crate) embedding: EmbeddingSlice,
}

impl FurtherItems<'_> {
    fn count(&self) -> usize {
        self.items.len() - self.first
    }
}

/// The first block's input: `W_in LN(item + position) + b`. The norm and the position are optional.
pub(crate) enum InputLayer {
    /// `W_in item + b` and `W_in position` in place of the tables, once an embedding width. The layer is linear, so a
    /// token is the sum of two rows. Without a table of positions a token is one row, `W_in LN(item) + b`.
    ///
    /// These rows are float32 at every precision: no product is left to compute.
    Precomputed(Vec<EmbeddingTables>),
    /// The tables as they are stored, and the layer, [D, E]. Every token passes the layer.
    Computed(Box<EmbeddingTables>, Panels),
}

/// The embedding of items, before the input layer: item + position, then a norm. Positions and norm are optional.
pub(crate) struct EmbeddingTables {
    /// [N + 1, E]
    items: Buffer,
    positions: Option<PositionTable>,
    norm: Option<Norm>,
    /// E, the distance of two rows of both tables.
    width: usize,
    /// The most items of a history that are read.
    max_len: usize,
}

struct PositionTable {
    /// [max_len, E]
    rows: Buffer,
    /// Whether row 0 belongs to the oldest item that is read. Otherwise the last row belongs to the newest.
    from_oldest: bool,
}

impl InputLayer {
    pub(crate) fn load(
        level: Level,
        packer: Packer<'_>,
        config: &ModelConfig,
        space: &RouteSpace,
    ) -> Result<InputLayer, WeightsError> {
        let (weights, name) = (packer.weights, "backbone.input");
        let mut tables = EmbeddingTables::load(weights, "backbone", config.positions, config.max_len)?;
        if config.embedding_norm {
            tables = tables.with_norm(Norm::load(weights, "backbone.embedding_norm", config.norm_eps as f32)?);
        }
        let rows = tables.rows().saturating_mul(space.embedding().len());
        let fits = rows.saturating_mul(padded(config.width()) * size_of::<f32>()) <= MAX_PRECOMPUTED_BYTES;
        if !fits || !tables.is_linear() {
            return Ok(InputLayer::Computed(Box::new(tables), packer.layer(name)?));
        }
        let layer = Packer { precision: Precision::Fp32, ..packer }.layer(name)?;
        let projected = space.embedding().iter().map(|width| tables.projected_by(level, &layer, *width));
        Ok(InputLayer::Precomputed(projected.collect()))
    }

    /// Fills the workspace's `x` with one row a token, one history after the other, at the width `hidden`. Returns each
    /// history's length.
    pub(crate) fn embed(
        &self,
        hidden: usize,
        embedding: EmbeddingSlice,
        histories: &[&History],
        workspace: &mut Workspace,
    ) -> Vec<usize> {
        let Workspace { level, stride, x, mixed, pairs, .. } = workspace;
        let (level, stride) = (*level, *stride);
        match self {
            InputLayer::Precomputed(tables) => {
                tables[embedding.place].embed(level, histories, hidden, RowMajorMut { data: x, stride })
            }
            InputLayer::Computed(tables, layer) => {
                let width = embedding.width;
                let lengths = tables.embed(level, histories, width, RowMajorMut { data: mixed, stride });
                let count = lengths.iter().sum();
                let rows = RowMajor { data: mixed, stride };
                let embedded = LayerInput { rows, count, depth: width }.in_format(level, layer.format(), pairs);
                let shape = Shape { inputs: width, outputs: hidden };
                Product::new(layer, shape, embedded, count).write(level, x, stride);
                lengths
            }
        }
    }

    /// Fills the workspace's `x` with one row for each item of `histories` from a place on, one history after the other,
    /// at the width `hidden`.
    pub(crate) fn embed_further(&self, hidden: usize, histories: &[FurtherItems<'_>], workspace: &mut Workspace) {
        let Workspace { level, stride, x, mixed, pairs, .. } = workspace;
        let (level, stride) = (*level, *stride);
        let mut rest = &mut x[..];
        for group in histories.chunk_by(|a, b| a.embedding == b.embedding) {
            let EmbeddingSlice { place, width } = group[0].embedding;
            let count = group.iter().map(FurtherItems::count).sum::<usize>();
            let (own, others) = rest.split_at_mut(count * stride);
            rest = others;
            match self {
                InputLayer::Precomputed(tables) => {
                    tables[place].embed_further(level, group, hidden, RowMajorMut { data: own, stride });
                }
                InputLayer::Computed(tables, layer) => {
                    tables.embed_further(level, group, width, RowMajorMut { data: mixed, stride });
                    let rows = RowMajor { data: mixed, stride };
                    let embedded = LayerInput { rows, count, depth: width }.in_format(level, layer.format(), pairs);
                    let shape = Shape { inputs: width, outputs: hidden };
                    Product::new(layer, shape, embedded, count).write(level, own, stride);
                }
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            InputLayer::Precomputed(tables) => tables.iter().map(EmbeddingTables::bytes).sum(),
            InputLayer::Computed(tables, layer) => tables.bytes() + layer.bytes(),
        }
    }
}

impl EmbeddingTables {
    /// `{part}.item_embedding` and, unless positions are relative, `{part}.position_embedding`.
    pub(crate) fn load(
        weights: &Weights,
        part: &str,
        positions: Positions,
        max_len: usize,
    ) -> Result<EmbeddingTables, WeightsError> {
        let items = weights.get(&format!("{part}.item_embedding"))?;
        let table = |from_oldest| {
            let rows = weights.get(&format!("{part}.position_embedding"))?;
            Ok(Some(PositionTable { rows: Buffer::of(&rows.data), from_oldest }))
        };
        Ok(EmbeddingTables {
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

    /// The same tables followed by a norm.
    pub(crate) fn with_norm(self, norm: Norm) -> EmbeddingTables {
        EmbeddingTables { norm: Some(norm), ..self }
    }

    /// Whether a layer of the embedding is a sum of one row an item and one row a position. It is not if a norm follows
    /// the sum of an item and a position.
    pub(crate) fn is_linear(&self) -> bool {
        self.norm.is_none() || self.positions.is_none()
    }

    /// The number of rows of both tables.
    pub(crate) fn rows(&self) -> usize {
        (self.items.len() + self.positions.as_ref().map_or(0, |positions| positions.rows.len())) / self.width
    }

    /// The tables after the norm and a layer over their first `width` features. Only the items' rows contain the
    /// layer's bias.
    ///
    /// The tables must be [linear](Self::is_linear).
    pub(crate) fn projected_by(&self, level: Level, layer: &Panels, width: usize) -> EmbeddingTables {
        let stride = padded(layer.outputs());
        let rows_of = |table: &[f32], layer: &Panels| {
            let rows = table.len() / self.width;
            let mut out = Buffer::new(rows * stride);
            let input = RowMajor { data: table, stride: self.width };
            let shape = Shape { inputs: width, outputs: layer.outputs() };
            Product::new(layer, shape, input, rows).write(level, &mut out, stride);
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
        EmbeddingTables { items, positions, norm: None, width: stride, max_len: self.max_len }
    }

    /// Writes the first `width` features of each item, one row a token, one history after the other. Returns each
    /// history's length.
    pub(crate) fn embed(&self, level: Level, histories: &[&History], width: usize, out: RowMajorMut<'_>) -> Vec<usize> {
        let RowMajorMut { data: mut rows, stride } = out;
        let mut lengths = Vec::with_capacity(histories.len());
        for history in histories {
            // The model reads only the newest items of a longer history.
            let items = &history.items()[history.len().saturating_sub(self.max_len)..];
            let (own, others) = rows.split_at_mut(items.len() * stride);
            self.embed_items(level, items, 0, width, RowMajorMut { data: own, stride });
            rows = others;
            lengths.push(items.len());
        }
        lengths
    }

    /// The same for further items of histories.
    fn embed_further(&self, level: Level, histories: &[FurtherItems<'_>], width: usize, out: RowMajorMut<'_>) {
        let RowMajorMut { data: mut rows, stride } = out;
        for history in histories {
            let (own, others) = rows.split_at_mut(history.count() * stride);
            self.embed_items(level, history.items, history.first, width, RowMajorMut { data: own, stride });
            rows = others;
        }
    }

    /// The items of a history from the place `first` on.
    fn embed_items(&self, level: Level, items: &[Item], first: usize, width: usize, out: RowMajorMut<'_>) {
        let RowMajorMut { data, stride } = out;
        self.add(level, items, first, width, RowMajorMut { data, stride });
        if let Some(norm) = &self.norm {
            norm.apply(level, width, data, stride);
        }
    }

    /// Item + position, from the place `first` on. Relative positions have no table.
    fn add(&self, level: Level, items: &[Item], first: usize, width: usize, out: RowMajorMut<'_>) {
        let (table, table_stride) = (&self.items, self.width);
        let Some(positions) = &self.positions else {
            for (item, out) in items[first..].iter().zip(out.data.chunks_mut(out.stride)) {
                out[..width].copy_from_slice(&table[item.column() * table_stride..][..width]);
            }
            return;
        };
        let oldest = if positions.from_oldest { 0 } else { self.max_len - items.len() };
        let positions = &positions.rows[(oldest + first) * table_stride..];
        level.run(AddRows { table, positions, table_stride, items: &items[first..], width, out });
    }

    pub(crate) fn bytes(&self) -> usize {
        let positions = self.positions.as_ref().map_or(0, |positions| positions.rows.bytes());
        self.items.bytes() + positions + self.norm.as_ref().map_or(0, Norm::bytes)
    }
}

/// Adds one history's rows of both tables.
struct AddRows<'a> {
    table: &'a [f32],
    /// From the oldest item's row on.
    positions: &'a [f32],
    /// Distance of two rows of both tables.
    table_stride: usize,
    items: &'a [Item],
    width: usize,
    out: RowMajorMut<'a>,
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let whole = self.width - self.width % S::LANES;
        let rows = self.out.data.chunks_mut(self.out.stride).zip(self.positions.chunks(self.table_stride));
        for (item, (out, position)) in self.items.iter().zip(rows) {
            let item = &self.table[item.column() * self.table_stride..][..self.width];
            for at in (0..whole).step_by(S::LANES) {
                simd.store(simd.add(simd.load(&item[at..]), simd.load(&position[at..])), &mut out[at..]);
            }
            for at in whole..self.width {
                out[at] = item[at] + position[at];
            }
        }
    }
}
