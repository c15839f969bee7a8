use super::attention::{Attention, Heads, PositionBiases};
use super::kept_states::KeptRows;
use super::newest_attention::{Features, NewestAttention, NewestInputs};
use super::norm::{AddNorm, ResidualRows};
use super::panels::{Packer, Panels, padded};
use super::product::{Activation, LayerInput, Product, Shape};
use super::simd::{Level, RowMajor};
use super::workspace::{ROW_BLOCK, Workspace};
use canet_model::WeightsError;

/// A stored transformer block, post-norm with ReZero: `x = LN(x + a·Attention(x))`, `x = LN(x + a·FFN(x))`.
pub(crate) struct Block {
    /// Q, K and V, one a width: a slice of them is a prefix of every head, not of the matrix.
    projections: Vec<Projections>,
    biases: PositionBiases,
    newest: NewestAttention,
    output: Panels,
    attention_norm: AddNorm,
    inner: Panels,
    outer: Panels,
    ffn_norm: AddNorm,
}

/// How a block is stored.
#[derive(Clone, Copy)]
pub(crate) struct BlockSpec<'a> {
    pub(crate) name: &'a str,
    /// The widths that its slices have, ascending. The last one is the stored width.
    pub(crate) widths: &'a [usize],
    pub(crate) heads: usize,
    /// The epsilon of its norms.
    pub(crate) epsilon: f32,
}

/// Q, K and V at one width h, head-major.
struct Projections {
    /// [h, h]
    query: Panels,
    /// K above V: [2h, h]
    key_value: Panels,
}

/// The sizes of the slice of a block that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockSlice {
    /// Place of its width in the ascending list.
    pub(crate) place: usize,
    /// h
    pub(crate) width: usize,
    /// Inner width of its feed-forward network.
    pub(crate) ffn: usize,
    pub(crate) heads: Heads,
}

impl BlockSlice {
    /// In a row of the workspace's `projected`, queries come first, then keys, then values. Returns the length of a row
    /// and the place of its first key.
    fn projected(&self) -> (usize, usize) {
        (padded(self.width) + padded(2 * self.width), padded(self.width))
    }
}

/// A history whose further positions a block computes.
pub(crate) struct Continued<'a> {
    /// How many positions are computed.
    pub(crate) tokens: usize,
    /// The block's keys and values of the positions before them.
    pub(crate) kept: &'a mut KeptRows,
}

/// The buffers of the layers that follow attention. Rows of all but `inner` are `stride` apart.
struct AfterAttention<'a> {
    stride: usize,
    /// The block's input, then its output.
    x: &'a mut [f32],
    mixed: &'a [f32],
    y: &'a mut [f32],
    inner: &'a mut [f32],
    pairs: &'a mut [f32],
}

impl Block {
    pub(crate) fn load(packer: Packer<'_>, spec: BlockSpec<'_>, biases: PositionBiases) -> Result<Block, WeightsError> {
        let BlockSpec { name, widths, heads, epsilon } = spec;
        let linear = |part: &str| packer.layer(&format!("{name}.{part}"));
        let [query, key, value] = ["query", "key", "value"].map(|part| format!("{name}.attention.{part}"));
        let stored = widths.last().copied().unwrap_or_default();
        let projections = |width: &usize| -> Result<Projections, WeightsError> {
            let (first, kept) = (stored / heads, width / heads);
            let rows: Vec<usize> = (0..heads).flat_map(|head| head * first..head * first + kept).collect();
            Ok(Projections {
                query: packer.pick(&[&query], &rows, *width)?,
                key_value: packer.pick(&[&key, &value], &rows, *width)?,
            })
        };
        Ok(Block {
            projections: widths.iter().map(projections).collect::<Result<_, _>>()?,
            biases,
            newest: NewestAttention::load(packer, name, stored, heads)?,
            output: linear("attention.output")?,
            attention_norm: AddNorm::load(packer.weights, name, "attention", epsilon)?,
            inner: linear("ffn.inner")?,
            outer: linear("ffn.outer")?,
            ffn_norm: AddNorm::load(packer.weights, name, "ffn", epsilon)?,
        })
    }

    /// Computes every position of histories of these lengths. Their rows lie one history after the other in the
    /// workspace's `x`.
    pub(crate) fn every_position(&self, slice: &BlockSlice, lengths: &[usize], workspace: &mut Workspace) {
        self.project(slice, lengths.iter().sum(), workspace);
        self.attend(slice, lengths, workspace);
        self.feed_forward(slice, lengths.iter().sum(), workspace);
    }

    /// Queries, keys and values of `tokens` positions.
    pub(crate) fn project(&self, slice: &BlockSlice, tokens: usize, workspace: &mut Workspace) {
        let Workspace { level, stride, x, projected, pairs, .. } = workspace;
        let Projections { query, key_value } = &self.projections[slice.place];
        let (row, first_key) = slice.projected();
        let input = LayerInput { rows: RowMajor { data: x, stride: *stride }, count: tokens, depth: slice.width };
        let input = input.in_format(*level, query.format(), pairs);
        Product::new(query, Shape::square(slice.width), input, tokens).write(*level, projected, row);
        let shape = Shape { inputs: slice.width, outputs: 2 * slice.width };
        Product::new(key_value, shape, input, tokens).write(*level, &mut projected[first_key..], row);
    }

    /// Attention within each history, into the workspace's `mixed`.
    pub(crate) fn attend(&self, slice: &BlockSlice, lengths: &[usize], workspace: &mut Workspace) {
        let Workspace { level, stride, projected, mixed, scratch, .. } = workspace;
        let (row, first_key) = slice.projected();
        let mut token = 0;
        for length in lengths {
            level.run(Attention {
                heads: slice.heads,
                biases: &self.biases,
                past: 0,
                length: *length,
                queries: RowMajor { data: &projected[token * row..], stride: row },
                keys: RowMajor { data: &projected[token * row + first_key..], stride: row },
                values: slice.width,
                mixed: &mut mixed[token * *stride..],
                stride: *stride,
                scratch,
            });
            token += length;
        }
    }

    /// Computes further positions of histories whose earlier positions were computed before. The new positions' rows lie
    /// one history after the other in the workspace's `x`. Their keys and values join those that each history keeps.
    pub(crate) fn further_positions(
        &self,
        slice: &BlockSlice,
        histories: &mut [Continued<'_>],
        workspace: &mut Workspace,
    ) {
        let tokens = histories.iter().map(|history| history.tokens).sum();
        if let Some(first) = histories.first() {
            first.kept.prefetch(workspace.level);
        }
        self.project(slice, tokens, workspace);
        let Workspace { level, stride, projected, mixed, scratch, .. } = workspace;
        let (row, first_key) = slice.projected();
        let mut token = 0;
        for place in 0..histories.len() {
            if let Some(next) = histories.get(place + 1) {
                next.kept.prefetch(*level);
            }
            let Continued { tokens, kept } = &mut histories[place];
            let past = kept.tokens();
            kept.append(RowMajor { data: &projected[token * row + first_key..], stride: row }, *tokens);
            level.run(Attention {
                heads: slice.heads,
                biases: &self.biases,
                past,
                length: *tokens,
                queries: RowMajor { data: &projected[token * row..], stride: row },
                keys: kept.rows(),
                values: slice.width,
                mixed: &mut mixed[token * *stride..],
                stride: *stride,
                scratch,
            });
            token += *tokens;
        }
        self.feed_forward(slice, tokens, workspace);
    }

    /// The layers that follow attention, for `tokens` positions, from `mixed` to `x`.
    pub(crate) fn feed_forward(&self, slice: &BlockSlice, tokens: usize, workspace: &mut Workspace) {
        let Workspace { level, stride, x, mixed, y, inner, pairs, .. } = workspace;
        self.after_attention(*level, slice, tokens, AfterAttention { stride: *stride, x, mixed, y, inner, pairs });
    }

    /// Computes the newest position of each history alone: one row of the workspace's stride a history in `newest`.
    pub(crate) fn newest_positions(
        &self,
        slice: &BlockSlice,
        features: &Features<'_>,
        workspace: &mut Workspace,
        newest: &mut [f32],
    ) {
        let Workspace { level, stride, x, y, pairs, .. } = workspace;
        let (level, stride, rows) = (*level, *stride, features.histories());
        let Projections { query, key_value } = &self.projections[slice.place];
        features.for_each(RowMajor { data: x, stride }, |history, length, rows| {
            let row = &rows.data[(length - 1) * rows.stride..][..slice.width];
            newest[history * stride..][..slice.width].copy_from_slice(row);
        });
        let input = LayerInput { rows: RowMajor { data: newest, stride }, count: rows, depth: slice.width };
        let input = input.in_format(level, query.format(), pairs);
        Product::new(query, Shape::square(slice.width), input, rows).write(level, y, stride);
        let inputs = NewestInputs { heads: slice.heads, width: slice.width, key_value, biases: &self.biases };
        self.newest.attend(inputs, features, workspace);
        let Workspace { mixed, y, inner, pairs, .. } = workspace;
        self.after_attention(level, slice, rows, AfterAttention { stride, x: newest, mixed, y, inner, pairs });
    }

    /// The layers that follow attention. A few rows at a time pass all of them, so that the rows stay in the caches.
    fn after_attention(&self, level: Level, slice: &BlockSlice, rows: usize, buffers: AfterAttention<'_>) {
        let AfterAttention { stride, x, mixed, y, inner, pairs } = buffers;
        let (depth, wide) = (slice.width, padded(slice.ffn));
        for first in (0..rows).step_by(ROW_BLOCK) {
            let count = ROW_BLOCK.min(rows - first);
            let span = first * stride..(first + count) * stride;
            let (x, y) = (&mut x[span.clone()], &mut y[..count * stride]);
            let mixed = LayerInput { rows: RowMajor { data: &mixed[span], stride }, count, depth };
            let mixed = mixed.in_format(level, self.output.format(), pairs);
            Product::new(&self.output, Shape::square(slice.width), mixed, count).write(level, y, stride);
            self.attention_norm.apply(level, slice.width, ResidualRows { x, y, stride });
            let input = LayerInput { rows: RowMajor { data: x, stride }, count, depth };
            let input = input.in_format(level, self.inner.format(), pairs);
            let shape = Shape { inputs: slice.width, outputs: slice.ffn };
            let product = Product::new(&self.inner, shape, input, count);
            Product { activation: Activation::Gelu, ..product }.write(level, inner, wide);
            let input = RowMajor { data: inner, stride: wide };
            let shape = Shape { inputs: slice.ffn, outputs: slice.width };
            Product::new(&self.outer, shape, input, count).write(level, y, stride);
            self.ffn_norm.apply(level, slice.width, ResidualRows { x, y, stride });
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let projections = self.projections.iter().map(|at| at.query.bytes() + at.key_value.bytes());
        let linears = [&self.output, &self.inner, &self.outer].map(Panels::bytes);
        projections.chain(linears).sum::<usize>()
            + self.biases.bytes()
            + self.newest.bytes()
            + self.attention_norm.bytes()
            + self.ffn_norm.bytes()
    }
}
