use tch::{Kind, TchError, Tensor};

use super::batch::Batch;
use super::cut::{Cut, Masks};
use super::parameters::Parameters;
use crate::domain::Slice;
use crate::model::ModelConfig;

/// The training forward: every position of padded rows, with dropout, by one slice or by a route a row.
///
/// It computes the function that serving computes (same slices, scales and norms), at every position instead of the
/// last one; `tests/it/training.rs` holds the two together.
pub struct Supernet<'a> {
    /// Sizes and flags.
    pub config: &'a ModelConfig,
    /// The weights.
    pub parameters: &'a Parameters,
    /// Share of activations dropped; 0 computes what serving does.
    pub dropout: f64,
}

/// What attention may see: additive, 0 or minus infinity.
struct Visible(Tensor);

/// The weights of one block.
struct BlockPass<'a> {
    net: &'a Supernet<'a>,
    name: String,
    heads: i64,
    /// Width at which this pass computes.
    width: usize,
    /// Inner width at which it computes.
    ffn: usize,
    /// Factor on the attention scores where no mask brings it.
    scale: f64,
    masks: Option<&'a Masks>,
}

impl Supernet<'_> {
    /// Hidden states after the last layer of each row's route: [B, L, h], h the uniform slice's width or the full one.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn hidden(&self, batch: &Batch, cut: &Cut) -> Result<Tensor, TchError> {
        let (slice, masks) = match cut {
            Cut::Uniform(slice) => (*slice, None),
            Cut::Mixed(masks) => (self.widest(), Some(masks)),
        };
        let x = self.embed("backbone", batch, slice.embedding)?; // [B, L, e]
        let x = mask(x, masks.map(|masks| &masks.embedding))?;
        let x = self.linear("backbone.input", &x, slice.hidden, slice.embedding)?; // [B, L, h]
        let mut x = mask(x, masks.map(|masks| &masks.hidden))?;
        let visible = Visible::causal(batch)?;
        let mut left = None::<Tensor>;
        for layer in 0..slice.layers {
            let block = BlockPass {
                net: self,
                name: format!("backbone.blocks.{layer}"),
                heads: self.config.heads as i64,
                width: slice.hidden,
                ffn: self.config.shape().ffn_width(slice.hidden),
                scale: if masks.is_some() { 1.0 } else { self.config.attention_scale(slice.hidden) },
                masks,
            };
            x = block.forward(&x, &visible)?;
            // Rows whose route ends here leave with this layer's state.
            let exit = self.config.layers.iter().position(|depth| *depth == layer + 1);
            if let (Some(masks), Some(exit)) = (masks, exit) {
                let leaving = x.f_mul(&masks.depth.f_narrow(1, exit as i64, 1)?.f_unsqueeze(2)?)?; // [B, L, D]
                left = Some(match left {
                    Some(left) => left.f_add(&leaving)?,
                    None => leaving,
                });
            }
        }
        Ok(left.unwrap_or(x))
    }

    /// Scores of chosen hidden states: [T, h] -> [T, N + 1].
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn scores(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        let width = hidden.size().last().copied().unwrap_or_default() as usize;
        self.linear("backbone.output", hidden, self.config.items + 1, width)
    }

    /// Router logits: [B, routes].
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn router_logits(&self, batch: &Batch) -> Result<Tensor, TchError> {
        let router = self.config.router;
        let block = BlockPass {
            net: self,
            name: "router.block".to_owned(),
            heads: router.heads as i64,
            width: router.dim,
            ffn: router.ffn,
            scale: 1.0 / ((router.dim / router.heads) as f64).sqrt(),
            masks: None,
        };
        let x = self.embed("router", batch, router.dim)?; // [B, L, dim]
        let x = block.forward(&x, &Visible::every_real(batch)?)?;
        let last = x.f_select(1, -1)?; // [B, dim]
        let routes = self.parameters.get("router.head.bias")?.size1()? as usize;
        self.linear("router.head", &last, routes, router.dim)
    }

    fn widest(&self) -> Slice {
        Slice { hidden: self.config.width(), layers: self.config.depth(), embedding: self.config.embedding_width() }
    }

    /// Item + position, the first `width` features: [B, L, width]
    fn embed(&self, part: &str, batch: &Batch, width: usize) -> Result<Tensor, TchError> {
        let prefix = |table: &str| self.parameters.get(&format!("{part}.{table}"))?.f_narrow(1, 0, width as i64);
        let items = Tensor::f_embedding(&prefix("item_embedding")?, &batch.items, -1, false, false)?; // [B, L, width]
        let positions = prefix("position_embedding")?.f_index_select(0, &batch.positions)?; // [L, width]
        self.drop(&items.f_add(&positions)?)
    }

    /// The first `out` outputs over the first `input` inputs of a stored linear layer.
    fn linear(&self, name: &str, x: &Tensor, out: usize, input: usize) -> Result<Tensor, TchError> {
        let weight = self.parameters.get(&format!("{name}.weight"))?;
        let weight = weight.f_narrow(0, 0, out as i64)?.f_narrow(1, 0, input as i64)?; // [out, input]
        let bias = self.parameters.get(&format!("{name}.bias"))?.f_narrow(0, 0, out as i64)?; // [out]
        x.f_linear(&weight, Some(&bias))
    }

    fn drop(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_dropout(self.dropout, self.dropout > 0.0)
    }
}

impl Visible {
    /// Itself and what came before it; a padded place sees at least itself, so that no row of the softmax is empty.
    fn causal(batch: &Batch) -> Result<Visible, TchError> {
        let length = batch.items.size2()?.1;
        let options = (Kind::Bool, batch.items.device());
        let past = Tensor::f_ones([length, length], options)?.f_tril(0)?; // [L, L]
        let itself = Tensor::f_eye(length, options)?; // [L, L]
        let real = batch.real.f_unsqueeze(1)?.f_unsqueeze(1)?; // [B, 1, 1, L]
        Visible::where_true(&real.f_logical_and(&past)?.f_logical_or(&itself)?)
    }

    /// Every real item, before or after.
    fn every_real(batch: &Batch) -> Result<Visible, TchError> {
        Visible::where_true(&batch.real.f_unsqueeze(1)?.f_unsqueeze(1)?) // [B, 1, 1, L]
    }

    fn where_true(visible: &Tensor) -> Result<Visible, TchError> {
        let zeros = visible.f_zeros_like()?.f_to_kind(Kind::Float)?;
        Ok(Visible(zeros.f_masked_fill(&visible.f_logical_not()?, f64::NEG_INFINITY)?))
    }
}

impl BlockPass<'_> {
    /// [B, L, h] -> [B, L, h]
    fn forward(&self, x: &Tensor, visible: &Visible) -> Result<Tensor, TchError> {
        let attended = self.attention(x, visible)?;
        let x = self.residual("attention", x, &attended)?;
        let inner = self.net.linear(&self.part("ffn.inner"), &x, self.ffn, self.width)?.f_gelu("none")?; // [B, L, f]
        let inner = mask(inner, self.masks.map(|masks| &masks.inner))?;
        let outer = self.net.linear(&self.part("ffn.outer"), &inner, self.width, self.ffn)?; // [B, L, h]
        self.residual("ffn", &x, &outer)
    }

    fn attention(&self, x: &Tensor, visible: &Visible) -> Result<Tensor, TchError> {
        let query = mask(self.project("query", x)?, self.masks.map(|masks| &masks.query))?;
        let query = self.split_heads(&query)?; // [B, heads, L, d]
        let key = self.split_heads(&self.project("key", x)?)?;
        let value = self.split_heads(&self.project("value", x)?)?;
        let scores = query.f_matmul(&key.f_transpose(-2, -1)?)?.f_mul_scalar(self.scale)?; // [B, heads, L, L]
        let probabilities = self.net.drop(&scores.f_add(&visible.0)?.f_softmax(-1, Kind::Float)?)?;
        let mixed = probabilities.f_matmul(&value)?.f_transpose(1, 2)?.f_flatten(2, 3)?; // [B, L, h]
        let mixed = match self.masks {
            Some(masks) => mixed.f_matmul(&masks.concatenate)?,
            None => mixed,
        };
        self.net.linear(&self.part("attention.output"), &mixed, self.width, self.width)
    }

    /// Q, K or V: the rows that are a prefix of every head, over the first `width` inputs.
    fn project(&self, which: &str, x: &Tensor) -> Result<Tensor, TchError> {
        let name = self.part(&format!("attention.{which}"));
        let (weight, bias) = (self.parameter(&format!("{name}.weight"))?, self.parameter(&format!("{name}.bias"))?);
        let full = bias.size1()?;
        if full == self.width as i64 {
            return x.f_linear(weight, Some(bias));
        }
        let [head, kept] = [full / self.heads, self.width as i64 / self.heads];
        let per_head = |tensor: &Tensor, inner: &[i64]| {
            let shape: Vec<i64> = [self.heads, head].iter().chain(inner).copied().collect();
            tensor.f_reshape(shape)?.f_narrow(1, 0, kept)?.f_flatten(0, 1)
        };
        let weight = per_head(&weight.f_narrow(1, 0, self.width as i64)?, &[self.width as i64])?; // [h, h]
        x.f_linear(&weight, Some(&per_head(bias, &[])?))
    }

    /// `LN(x + a·sublayer)` over the row's width.
    fn residual(&self, which: &str, x: &Tensor, sublayer: &Tensor) -> Result<Tensor, TchError> {
        let scaled = self.net.drop(&sublayer.f_mul(self.parameter(&self.part(&format!("{which}_residual")))?)?)?;
        let sum = x.f_add(&scaled)?;
        let norm =
            |part: &str| self.parameter(&self.part(&format!("{which}_norm.{part}")))?.f_narrow(0, 0, self.width as i64);
        let (weight, bias) = (norm("weight")?, norm("bias")?);
        let Some(masks) = self.masks else {
            return sum.f_layer_norm([self.width as i64], Some(&weight), Some(&bias), LAYER_NORM_EPS, true);
        };
        let sum = sum.f_mul(&masks.hidden)?;
        let dims = [-1_i64].as_slice();
        let mean = sum.f_sum_dim_intlist(dims, true, Kind::Float)?.f_mul(&masks.per_hidden)?; // [B, L, 1]
        let centred = sum.f_sub(&mean)?.f_mul(&masks.hidden)?; // [B, L, D]
        let variance = centred.f_square()?.f_sum_dim_intlist(dims, true, Kind::Float)?.f_mul(&masks.per_hidden)?;
        let scale = variance.f_add_scalar(LAYER_NORM_EPS)?.f_rsqrt()?; // [B, L, 1]
        centred.f_mul(&scale)?.f_mul(&weight)?.f_add(&bias)?.f_mul(&masks.hidden)
    }

    /// [B, L, h] -> [B, heads, L, d]
    fn split_heads(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_unflatten(2, [self.heads, self.width as i64 / self.heads])?.f_transpose(1, 2)
    }

    fn part(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    fn parameter(&self, name: &str) -> Result<&Tensor, TchError> {
        self.net.parameters.get(name)
    }
}

/// The model's layer-norm epsilon.
const LAYER_NORM_EPS: f64 = 1e-5;

fn mask(x: Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
    match mask {
        Some(mask) => x.f_mul(mask),
        None => Ok(x),
    }
}
