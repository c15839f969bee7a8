use super::attention::{Attention, Biases, Heads};
use super::newest::Newest;
use super::norm::AddNorm;
use super::panels::{Packer, Panels, padded};
use super::product::{Activation, Product, enter};
use super::simd::{Left, Level};
use super::workspace::{ROWS, Workspace};
use canet_model::WeightsError;

/// One stored transformer block, post-norm, ReZero: `x = LN(x + a·Attention(x))`, `x = LN(x + a·FFN(x))`.
pub(crate) struct Block {
    /// Q, K and V, one a width: their slices are a prefix of every head and not of the matrix.
    projections: Vec<Projections>,
    biases: Biases,
    newest: Newest,
    output: Panels,
    attention_norm: AddNorm,
    inner: Panels,
    outer: Panels,
    ffn_norm: AddNorm,
}

/// How a block is stored.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) name: &'a str,
    /// Those for which it is to be ready; the stored one last.
    pub(crate) widths: &'a [usize],
    pub(crate) heads: usize,
    /// Of its norms.
    pub(crate) epsilon: f32,
}

/// Packed head-major at one width h.
struct Projections {
    /// [h, h]
    query: Panels,
    /// K and V under each other: [2h, h]
    key_value: Panels,
}

/// The slice of a block that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Place of its width in the ascending list.
    pub(crate) place: usize,
    /// h
    pub(crate) width: usize,
    /// Inner width of its feed-forward network.
    pub(crate) ffn: usize,
    pub(crate) heads: Heads,
}

impl Cut {
    /// Length of a row of the workspace's `projected`, and where its keys begin: queries first, then keys and values.
    fn projected(&self) -> (usize, usize) {
        (padded(self.width) + padded(2 * self.width), padded(self.width))
    }
}

/// The buffers of a block's second part, rows of `stride` but for `inner`.
struct Finish<'a> {
    stride: usize,
    /// What the block took, then what it gives.
    x: &'a mut [f32],
    mixed: &'a [f32],
    y: &'a mut [f32],
    inner: &'a mut [f32],
    pairs: &'a mut [f32],
}

impl Block {
    pub(crate) fn load(packer: Packer<'_>, stored: Stored<'_>, biases: Biases) -> Result<Block, WeightsError> {
        let Stored { name, widths, heads, epsilon } = stored;
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
            newest: Newest::load(packer, name, stored, heads)?,
            output: linear("attention.output")?,
            attention_norm: AddNorm::load(packer.weights, name, "attention", epsilon)?,
            inner: linear("ffn.inner")?,
            outer: linear("ffn.outer")?,
            ffn_norm: AddNorm::load(packer.weights, name, "ffn", epsilon)?,
        })
    }

    /// Every position of histories of these lengths, one behind the other in the workspace's `x`.
    pub(crate) fn every_position(&self, level: Level, cut: &Cut, lengths: &[usize], workspace: &mut Workspace) {
        self.project(level, cut, lengths.iter().sum(), workspace);
        self.attend(level, cut, lengths, workspace);
        self.feed_forward(level, cut, lengths.iter().sum(), workspace);
    }

    /// Queries, keys and values of `tokens` positions.
    pub(crate) fn project(&self, level: Level, cut: &Cut, tokens: usize, workspace: &mut Workspace) {
        let Workspace { stride, x, projected, pairs, .. } = workspace;
        let Projections { query, key_value } = &self.projections[cut.place];
        let (row, beside) = cut.projected();
        let input = (Left { data: x, stride: *stride }, [tokens, cut.width]);
        let input = enter(level, query.numbers(), input, pairs);
        Product::new(query, [cut.width; 2], input, tokens).into(level, projected, row);
        Product::new(key_value, [cut.width, 2 * cut.width], input, tokens).into(level, &mut projected[beside..], row);
    }

    /// What the positions of each history take in of each other, into the workspace's `mixed`.
    pub(crate) fn attend(&self, level: Level, cut: &Cut, lengths: &[usize], workspace: &mut Workspace) {
        let Workspace { stride, projected, mixed, scratch, .. } = workspace;
        let (row, beside) = cut.projected();
        let mut token = 0;
        for length in lengths {
            level.run(Attention {
                heads: cut.heads,
                biases: &self.biases,
                length: *length,
                queries: Left { data: &projected[token * row..], stride: row },
                keys: Left { data: &projected[token * row + beside..], stride: row },
                values: cut.width,
                mixed: &mut mixed[token * *stride..],
                stride: *stride,
                scratch,
            });
            token += length;
        }
    }

    /// What follows for `tokens` positions, from `mixed` to `x`.
    pub(crate) fn feed_forward(&self, level: Level, cut: &Cut, tokens: usize, workspace: &mut Workspace) {
        let Workspace { stride, x, mixed, y, inner, pairs, .. } = workspace;
        self.finish(level, cut, tokens, Finish { stride: *stride, x, mixed, y, inner, pairs });
    }

    /// The newest position of each history alone: rows of the workspace's stride in `newest`, one a history.
    pub(crate) fn newest_positions(
        &self,
        level: Level,
        cut: &Cut,
        lengths: &[usize],
        workspace: &mut Workspace,
        newest: &mut [f32],
    ) {
        let Workspace { stride, x, y, pairs, .. } = workspace;
        let (stride, rows) = (*stride, lengths.len());
        let Projections { query, key_value } = &self.projections[cut.place];
        let mut end = 0;
        for (length, newest) in lengths.iter().zip(newest.chunks_mut(stride)) {
            end += length;
            newest[..cut.width].copy_from_slice(&x[(end - 1) * stride..][..cut.width]);
        }
        let input = enter(level, query.numbers(), (Left { data: newest, stride }, [rows, cut.width]), pairs);
        Product::new(query, [cut.width; 2], input, rows).into(level, y, stride);
        self.newest.mix(level, (cut.heads, cut.width), (key_value, &self.biases), lengths, workspace);
        let Workspace { mixed, y, inner, pairs, .. } = workspace;
        self.finish(level, cut, rows, Finish { stride, x: newest, mixed, y, inner, pairs });
    }

    /// What follows the mixing of positions, a few rows at a time, which stay in the caches all the way.
    fn finish(&self, level: Level, cut: &Cut, rows: usize, buffers: Finish<'_>) {
        let Finish { stride, x, mixed, y, inner, pairs } = buffers;
        for first in (0..rows).step_by(ROWS) {
            let rows = ROWS.min(rows - first);
            let span = first * stride..(first + rows) * stride;
            let (x, y) = (&mut x[span.clone()], &mut y[..rows * stride]);
            let size = [rows, cut.width];
            let mixed = (Left { data: &mixed[span], stride }, size);
            let mixed = enter(level, self.output.numbers(), mixed, pairs);
            Product::new(&self.output, [cut.width; 2], mixed, rows).into(level, y, stride);
            self.attention_norm.apply(level, cut.width, [x, y], stride);
            let wide = padded(cut.ffn);
            let input = enter(level, self.inner.numbers(), (Left { data: x, stride }, size), pairs);
            let product = Product::new(&self.inner, [cut.width, cut.ffn], input, rows);
            Product { activation: Activation::Gelu, ..product }.into(level, inner, wide);
            let input = Left { data: inner, stride: wide };
            Product::new(&self.outer, [cut.ffn, cut.width], input, rows).into(level, y, stride);
            self.ffn_norm.apply(level, cut.width, [x, y], stride);
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
