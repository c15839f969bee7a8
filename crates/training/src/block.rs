use canet_torch::tensors::{concatenate, gelu};
use tch::{Kind, TchError, Tensor};

use crate::batch::{Batch, Group};
use crate::layers::{Layers, NormMask, apply_mask};
use crate::subnet_mask::RowMasks;
use crate::tensors::gather;

/// A forward pass through one post-norm transformer block (Vaswani et al. 2017, arXiv:1706.03762; with ReZero's
/// scalars).
///
/// Shapes: T items and B rows of the batch; R rows of length L in a group; `heads` heads of d features, h = heads·d; f
/// inner features.
pub(crate) struct BlockPass<'a> {
    pub layers: Layers<'a>,
    /// Common prefix of the names of the block's weights.
    pub name: String,
    pub heads: i64,
    /// h
    pub width: usize,
    /// f
    pub ffn: usize,
    /// Factor of the attention scores. With `masks` it is 1, because the query mask has the factor of each row.
    pub scale: f64,
    /// Whether an item attends only to itself and to earlier items, or to every item of its row.
    pub causal: bool,
    /// The layer whose biases by distance are added to the attention scores, if the model has such biases.
    pub biased: Option<usize>,
    /// Masks of each item, if every row has another route.
    pub masks: Option<&'a RowMasks>,
}

impl BlockPass<'_> {
    /// Computes every position: `[T, h] -> [T, h]`
    pub(crate) fn every_position(&self, x: &Tensor, batch: &Batch) -> Result<Tensor, TchError> {
        let query = apply_mask(self.project("query", x)?, self.masks.map(|masks| &masks.query))?; // [T, h]
        let [key, value] = [self.project("key", x)?, self.project("value", x)?]; // [T, h] each
        let attend = |group: &Group| {
            let bias = self.bias_by_distance(&group.distances, [1, group.length, group.length])?;
            let hidden = match (self.causal, bias) {
                (true, Some(bias)) => bias.f_add(&group.causal_mask)?, // [1, heads, L, L]
                (true, None) => group.causal_mask.shallow_clone(),     // [L, L]
                (false, _) => group.padding_mask()?,                   // [R, 1, 1, L]
            };
            let [query, key, value] = [&query, &key, &value].map(|x| self.split_heads(x, group));
            let attended = self.attend(&query?, &key?, &value?, &hidden)?; // [R, L, h]
            let attended = match self.masks {
                Some(masks) => attended.f_matmul(&group.rows.of(&masks.concatenate)?)?, // [R, L, h]
                None => attended,
            };
            group.unpad(&attended)
        };
        self.finish(x, &concatenate(batch.groups.iter().map(attend).collect::<Result<Vec<_>, _>>()?)?)
    }

    /// Computes only the newest position of each row, which attends to every item of its row: `[T, h] -> [B, h]`
    pub(crate) fn newest(&self, x: &Tensor, batch: &Batch) -> Result<Tensor, TchError> {
        let newest = gather(x, &batch.newest)?; // [B, h]
        let query = self.project("query", &newest)?; // [B, h]
        let [key, value] = [self.project("key", x)?, self.project("value", x)?]; // [T, h] each
        let attend = |group: &Group| {
            let mut hidden = group.padding_mask()?; // [R, 1, 1, L]
            if let Some(bias) = self.bias_by_distance(&group.ages, [group.rows.count, 1, group.length])? {
                hidden = bias.f_add(&hidden)?; // [R, heads, 1, L]
            }
            let query = group.rows.of(&query)?.f_unsqueeze(1)?; // [R, 1, h]
            let query = query.f_unflatten(2, [self.heads, -1])?.f_transpose(1, 2)?; // [R, heads, 1, d]
            let (key, value) = (self.split_heads(&key, group)?, self.split_heads(&value, group)?);
            self.attend(&query, &key, &value, &hidden)?.f_squeeze_dim(1) // [R, h]
        };
        self.finish(&newest, &concatenate(batch.groups.iter().map(attend).collect::<Result<Vec<_>, _>>()?)?)
    }

    /// Pads the rows of a group and splits their features by head: `[T, h] -> [R, heads, L, d]`
    fn split_heads(&self, x: &Tensor, group: &Group) -> Result<Tensor, TchError> {
        group.pad(x)?.f_unflatten(2, [self.heads, -1])?.f_transpose(1, 2)
    }

    /// Scaled dot-product attention of q queries a row: `[R, q, h]`
    ///
    /// `query` is `[R, heads, q, d]`, and `key` and `value` are `[R, heads, L, d]`. `hidden` is added to the scores and
    /// broadcasts to `[R, heads, q, L]`. Minus infinity in it hides a key from a query.
    fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, hidden: &Tensor) -> Result<Tensor, TchError> {
        let scores = query.f_matmul(&key.f_transpose(-2, -1)?)?.f_mul_scalar(self.scale)?.f_add(hidden)?;
        let probabilities = self.layers.drop(scores.f_softmax(-1, Kind::Float)?)?; // [R, heads, q, L]
        probabilities.f_matmul(value)?.f_transpose(1, 2)?.f_flatten(2, 3) // [R, q, h]
    }

    /// The layer's bias of each head at some distances, if it has any: `[R·q·L] -> [R, heads, q, L]`
    fn bias_by_distance(
        &self,
        distances: &Tensor,
        [rows, queries, keys]: [i64; 3],
    ) -> Result<Option<Tensor>, TchError> {
        let Some(layer) = self.biased else { return Ok(None) };
        let table = self.parameter("backbone.position_bias")?.f_select(0, layer as i64)?; // [heads, max_len]
        let bias = gather(&table.f_transpose(0, 1)?, distances)?; // [R·q·L, heads]
        Ok(Some(bias.f_reshape([rows, queries, keys, self.heads])?.f_permute([0, 3, 1, 2])?))
    }

    /// The block after attention, which is output projection, feed-forward network, residuals and norms:
    /// x and attended `[n, h] -> [n, h]`
    fn finish(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor, TchError> {
        let projected = self.layers.linear(&self.part("attention.output"), attended, self.width, self.width)?; // [n, h]
        let x = self.residual("attention", x, &projected)?; // [n, h]
        let inner = gelu(&self.layers.linear(&self.part("ffn.inner"), &x, self.ffn, self.width)?)?; // [n, f]
        let inner = apply_mask(inner, self.masks.map(|masks| &masks.inner))?;
        let outer = self.layers.linear(&self.part("ffn.outer"), &inner, self.width, self.ffn)?; // [n, h]
        self.residual("ffn", &x, &outer)
    }

    /// Query, key or value: `[n, h] -> [n, h]`. A narrow slice has a prefix of every head, not of the whole projection.
    fn project(&self, which: &str, x: &Tensor) -> Result<Tensor, TchError> {
        let name = self.part(&format!("attention.{which}"));
        let (weight, bias) = (self.parameter(&format!("{name}.weight"))?, self.parameter(&format!("{name}.bias"))?);
        let full = bias.size1()?;
        if full == self.width as i64 {
            return x.f_linear(weight, Some(bias));
        }
        let [head, kept] = [full / self.heads, self.width as i64 / self.heads];
        let head_prefixes = |tensor: &Tensor, inner: &[i64]| {
            let shape: Vec<i64> = [self.heads, head].iter().chain(inner).copied().collect();
            tensor.f_reshape(shape)?.f_narrow(1, 0, kept)?.f_flatten(0, 1)
        };
        let weight = head_prefixes(&weight.f_narrow(1, 0, self.width as i64)?, &[self.width as i64])?; // [h, h]
        x.f_linear(&weight, Some(&head_prefixes(bias, &[])?))
    }

    /// `LN(x + a·sublayer)` over the row's width: `[n, h] -> [n, h]`
    fn residual(&self, which: &str, x: &Tensor, sublayer: &Tensor) -> Result<Tensor, TchError> {
        let a = self.parameter(&self.part(&format!("{which}_residual")))?;
        // A scalar that is not trained is 1: `Recipe::initial` and `fold_residuals` make it so.
        let scaled = if a.requires_grad() { sublayer.f_mul(a)? } else { sublayer.shallow_clone() };
        let sum = x.f_add(&self.layers.drop(scaled)?)?;
        let mask = self.masks.map(|masks| NormMask { features: &masks.hidden, per_feature: &masks.per_hidden });
        self.layers.norm(&self.part(&format!("{which}_norm")), &sum, self.width, mask)
    }

    fn part(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    fn parameter(&self, name: &str) -> Result<&Tensor, TchError> {
        self.layers.parameters.get(name)
    }
}
