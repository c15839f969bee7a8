use tch::{TchError, Tensor};

use super::attention::Attention;
use super::bias::LayerMask;
use super::error::TorchError;
use super::load::{LayerNorm, Linear, Loader};
use super::packed::{PackedBatch, RowRange};
use super::tensors::{concatenate, gelu};

/// A stored transformer block, post-norm with ReZero: `x = LN(x + a·Attention(x))`, `x = LN(x + a·FFN(x))`.
pub(crate) struct StoredBlock {
    query: Linear,
    key: Linear,
    value: Linear,
    finish: AfterAttention,
}

/// A block at one width: Q, K and V packed, views of everything else.
pub(crate) struct Block {
    width: usize,
    attention: Attention,
    /// Q above K above V, head-major at this width: [3h, h]
    packed: Linear,
    /// The queries' part of `packed`: [h, h]
    query: Linear,
    /// The keys' and values' part of `packed`: [2h, h]
    key_value: Linear,
    finish: AfterAttention,
}

/// The layers that follow attention. Each slice of them is a prefix.
struct AfterAttention {
    output: Linear,
    attention_residual: Tensor,
    attention_norm: LayerNorm,
    inner: Linear,
    outer: Linear,
    ffn_residual: Tensor,
    ffn_norm: LayerNorm,
}

impl StoredBlock {
    pub(crate) fn load(loader: &Loader<'_>, name: &str) -> Result<StoredBlock, TorchError> {
        Ok(StoredBlock {
            query: loader.linear(&format!("{name}.attention.query"))?,
            key: loader.linear(&format!("{name}.attention.key"))?,
            value: loader.linear(&format!("{name}.attention.value"))?,
            finish: AfterAttention::load(loader, name)?,
        })
    }

    /// The block at width `width` with inner width `ffn`. Head i takes rows `[i·D/heads, i·D/heads + h/heads)` of Q, K
    /// and V, a prefix of every head. All other slices are plain prefixes.
    pub(crate) fn slice(
        &self,
        loader: &Loader<'_>,
        width: usize,
        ffn: usize,
        attention: Attention,
    ) -> Result<Block, TorchError> {
        let full = self.query.bias.size1()?;
        let [head, kept] = [full / attention.heads, width as i64 / attention.heads];
        let rows: Vec<i64> = (0..attention.heads).flat_map(|index| index * head..index * head + kept).collect();
        let rows = loader.rows(&rows)?;
        let pick = |linear: &Linear| -> Result<Linear, TchError> {
            let weight = linear.weight.f_narrow(1, 0, width as i64)?.f_index_select(0, &rows)?; // [h, h]
            Ok(Linear { weight, bias: linear.bias.f_index_select(0, &rows)? })
        };
        let [query, key, value] = [pick(&self.query)?, pick(&self.key)?, pick(&self.value)?];
        let packed = Linear {
            weight: Tensor::f_cat(&[&query.weight, &key.weight, &value.weight], 0)?, // [3h, h]
            bias: Tensor::f_cat(&[&query.bias, &key.bias, &value.bias], 0)?,         // [3h]
        };
        Ok(Block {
            width,
            attention,
            query: packed.outputs(0, width)?,
            key_value: packed.outputs(width, 2 * width)?,
            packed,
            finish: self.finish.slice(width, ffn)?,
        })
    }
}

impl Block {
    /// Runs the block for every position of the `staying` rows, and for the newest position alone of the `leaving`
    /// rows, whose other outputs nobody reads: [T, h] -> [T of `staying`, h] and [R of `leaving`, h]
    ///
    /// `staying` are the first rows of the batch and `leaving` the rows behind them; together they have the T tokens.
    /// Attention is float32: for bfloat16 on a GPU LibTorch calls cuDNN, which spends a tenth of a second on a plan for
    /// every new shape.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        batch: &PackedBatch,
        [staying, leaving]: [&RowRange; 2],
        mask: Option<&LayerMask>,
    ) -> Result<[Tensor; 2], TchError> {
        let (mut inputs, mut mixed) = (Vec::new(), Vec::new());
        if staying.rows > 0 {
            let tokens = x.f_narrow(0, 0, staying.tokens)?;
            let packed = self.packed.forward_to_float(&tokens)?; // [T of staying, 3h]
            mixed.push(self.attention.every_position(&packed, staying, mask)?); // [T of staying, h]
            inputs.push(tokens);
        }
        if leaving.rows > 0 {
            let newest = batch.newest(x, leaving)?; // [R, h]
            let tokens = x.f_narrow(0, leaving.token, leaving.tokens)?;
            let key_value = self.key_value.forward_to_float(&tokens)?; // [T of leaving, 2h]
            let query = self.query.forward_to_float(&newest)?; // [R, h]
            mixed.push(self.attention.newest_position(&query, &key_value, leaving, mask)?); // [R, h]
            inputs.push(newest);
        }
        let x = self.finish.forward(&concatenate(inputs)?, &concatenate(mixed)?)?; // [T of staying + R, h]
        Ok([x.f_narrow(0, 0, staying.tokens)?, x.f_narrow(0, staying.tokens, leaving.rows)?])
    }

    /// The block's width.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        self.packed.tensors().into_iter().chain(self.finish.tensors()).collect()
    }
}

impl AfterAttention {
    fn load(loader: &Loader<'_>, name: &str) -> Result<AfterAttention, TorchError> {
        Ok(AfterAttention {
            output: loader.linear(&format!("{name}.attention.output"))?,
            attention_residual: loader.tensor(&format!("{name}.attention_residual"))?,
            attention_norm: loader.norm(&format!("{name}.attention_norm"))?,
            inner: loader.linear(&format!("{name}.ffn.inner"))?,
            outer: loader.linear(&format!("{name}.ffn.outer"))?,
            ffn_residual: loader.tensor(&format!("{name}.ffn_residual"))?,
            ffn_norm: loader.norm(&format!("{name}.ffn_norm"))?,
        })
    }

    /// The same at width `width` with inner width `ffn`, as views.
    fn slice(&self, width: usize, ffn: usize) -> Result<AfterAttention, TchError> {
        Ok(AfterAttention {
            output: self.output.slice(width, width)?,
            attention_residual: self.attention_residual.shallow_clone(),
            attention_norm: self.attention_norm.slice(width)?,
            inner: self.inner.slice(ffn, width)?,
            outer: self.outer.slice(width, ffn)?,
            ffn_residual: self.ffn_residual.shallow_clone(),
            ffn_norm: self.ffn_norm.slice(width)?,
        })
    }

    /// [R, h], the block's input, and [R, h], the output of attention -> [R, h], the block's output
    fn forward(&self, x: &Tensor, mixed: &Tensor) -> Result<Tensor, TchError> {
        let attended = self.output.forward_to_float(mixed)?;
        let x = self.attention_norm.forward(&x.f_addcmul(&self.attention_residual, &attended)?)?;
        let inner = gelu(&self.inner.forward(&x)?)?; // [R, f]
        let outer = self.outer.forward_to_float(&inner)?; // [R, h]
        self.ffn_norm.forward(&x.f_addcmul(&self.ffn_residual, &outer)?)
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let linears = [&self.output, &self.inner, &self.outer].map(Linear::tensors);
        let norms = [&self.attention_norm, &self.ffn_norm].map(LayerNorm::tensors);
        let residuals = [&self.attention_residual, &self.ffn_residual];
        linears.into_iter().chain(norms).flatten().chain(residuals)
    }
}
