use tch::{Kind, TchError, Tensor};

use super::batch::{Batch, Group, prefix};
use super::cut::Masks;
use super::supernet::{Supernet, gelu, invisible, mask};

/// One transformer block at one width, or masked to a width a row.
pub(super) struct BlockPass<'a> {
    /// The forward that it is part of.
    pub net: &'a Supernet<'a>,
    /// Its weights' common name.
    pub name: String,
    /// Attention heads.
    pub heads: i64,
    /// Width at which this pass computes.
    pub width: usize,
    /// Inner width at which it computes.
    pub ffn: usize,
    /// Factor on the attention scores where no mask brings it.
    pub scale: f64,
    /// Whether an item sees itself and what came before it alone, or every item of its row.
    pub causal: bool,
    /// The rows' routes, spread over their items.
    pub masks: Option<&'a Masks>,
}

impl BlockPass<'_> {
    /// [T, h] -> [T, h]
    pub(super) fn forward(&self, x: &Tensor, batch: &Batch) -> Result<Tensor, TchError> {
        let attended = self.attention(x, batch)?;
        let x = self.residual("attention", x, &attended)?;
        let inner = gelu(&self.net.linear(&self.part("ffn.inner"), &x, self.ffn, self.width)?)?; // [T, f]
        let inner = mask(inner, self.masks.map(|masks| &masks.inner))?;
        let outer = self.net.linear(&self.part("ffn.outer"), &inner, self.width, self.ffn)?; // [T, h]
        self.residual("ffn", &x, &outer)
    }

    fn attention(&self, x: &Tensor, batch: &Batch) -> Result<Tensor, TchError> {
        let query = mask(self.project("query", x)?, self.masks.map(|masks| &masks.query))?; // [T, h]
        let projected = [query, self.project("key", x)?, self.project("value", x)?];
        let mixed = batch.groups.iter().map(|group| self.mix(&projected, group)).collect::<Result<Vec<_>, _>>()?;
        let mixed = if let [only] = mixed.as_slice() { only.shallow_clone() } else { Tensor::f_cat(&mixed, 0)? };
        self.net.linear(&self.part("attention.output"), &mixed, self.width, self.width)
    }

    /// What the items of a group take from each other: three of [T, h] -> [tokens of the group, h]
    fn mix(&self, projected: &[Tensor; 3], group: &Group) -> Result<Tensor, TchError> {
        let [query, key, value] = projected;
        let heads = |x: &Tensor| group.pad(x)?.f_unflatten(2, [self.heads, -1])?.f_transpose(1, 2); // [rows, heads, L, d]
        let mut scores = heads(query)?.f_matmul(&heads(key)?.f_transpose(-2, -1)?)?.f_mul_scalar(self.scale)?;
        let invisible = match self.causal {
            true => group.later.shallow_clone(),
            false => invisible(&group.real.f_unsqueeze(1)?.f_unsqueeze(1)?)?,
        };
        let probabilities = self.net.drop(scores.f_add_(&invisible)?.f_softmax(-1, Kind::Float)?)?;
        let mixed = probabilities.f_matmul(&heads(value)?)?.f_transpose(1, 2)?.f_flatten(2, 3)?; // [rows, L, h]
        let mixed = match self.masks {
            Some(masks) => mixed.f_matmul(&masks.concatenate.f_narrow(0, group.rows[0], group.rows[1])?)?,
            None => mixed,
        };
        group.unpad(&mixed)
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
        let scaled = sublayer.f_mul(self.parameter(&self.part(&format!("{which}_residual")))?)?;
        let sum = x.f_add(&self.net.drop(scaled)?)?;
        let norm = |part: &str| prefix(self.parameter(&self.part(&format!("{which}_norm.{part}")))?, 0, self.width);
        let (weight, bias) = (norm("weight")?, norm("bias")?);
        let Some(masks) = self.masks else {
            return sum.f_layer_norm([self.width as i64], Some(&weight), Some(&bias), LAYER_NORM_EPS, true);
        };
        let sum = sum.f_mul(&masks.hidden)?;
        let dims = [-1_i64].as_slice();
        let mean = sum.f_sum_dim_intlist(dims, true, Kind::Float)?.f_mul(&masks.per_hidden)?; // [T, 1]
        let centred = sum.f_sub(&mean)?.f_mul(&masks.hidden)?; // [T, D]
        let variance = centred.f_square()?.f_sum_dim_intlist(dims, true, Kind::Float)?.f_mul(&masks.per_hidden)?;
        let scale = variance.f_add_scalar(LAYER_NORM_EPS)?.f_rsqrt()?; // [T, 1]
        centred.f_mul(&scale)?.f_mul(&weight)?.f_add(&bias)?.f_mul(&masks.hidden)
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
