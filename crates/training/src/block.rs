use tch::{Kind, TchError, Tensor};

use super::batch::{Batch, Group, gather};
use super::cut::Masks;
use super::supernet::{Supernet, gelu, mask};

/// One transformer block at one width, or masked to a width a row.
pub(crate) struct BlockPass<'a> {
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
    /// The layer whose biases by distance are added to the attention scores, where the model has them.
    pub biased: Option<usize>,
    /// The rows' routes, spread over their items.
    pub masks: Option<&'a Masks>,
}

impl BlockPass<'_> {
    /// Every position of every row: [T, h] -> [T, h]
    pub(crate) fn every_position(&self, x: &Tensor, batch: &Batch) -> Result<Tensor, TchError> {
        let query = mask(self.project("query", x)?, self.masks.map(|masks| &masks.query))?; // [T, h]
        let [key, value] = [self.project("key", x)?, self.project("value", x)?]; // [T, h] each
        let mixed = |group: &Group| {
            let unseen = match (self.causal, self.bias_by_distance(&group.distances, [1, group.length, group.length])?)
            {
                (true, Some(bias)) => bias.f_add(&group.later)?, // [1, heads, L, L]
                (true, None) => group.later.shallow_clone(),     // [L, L]
                (false, _) => group.hidden_padding()?,           // [rows, 1, 1, L]
            };
            let [query, key, value] = [&query, &key, &value].map(|x| self.heads_of(x, group));
            let mixed = self.attend([query?, key?, value?], &unseen)?; // [rows, L, h]
            let mixed = match self.masks {
                Some(masks) => mixed.f_matmul(&masks.concatenate.f_narrow(0, group.rows[0], group.rows[1])?)?,
                None => mixed,
            };
            group.unpad(&mixed)
        };
        self.finish(x, &join(batch.groups.iter().map(mixed).collect::<Result<Vec<_>, _>>()?)?)
    }

    /// The newest position of each row alone, which sees every item of its row: [T, h] -> [B, h]
    pub(crate) fn newest(&self, x: &Tensor, batch: &Batch) -> Result<Tensor, TchError> {
        let newest = gather(x, &batch.newest)?; // [B, h]
        let query = self.project("query", &newest)?; // [B, h]
        let [key, value] = [self.project("key", x)?, self.project("value", x)?]; // [T, h] each
        let mixed = |group: &Group| {
            let mut unseen = group.hidden_padding()?; // [rows, 1, 1, L]
            if let Some(bias) = self.bias_by_distance(&group.ages, [group.rows[1], 1, group.length])? {
                unseen = bias.f_add(&unseen)?; // [rows, heads, 1, L]
            }
            let own = query.f_narrow(0, group.rows[0], group.rows[1])?.f_unsqueeze(1)?; // [rows, 1, h]
            let own = own.f_unflatten(2, [self.heads, -1])?.f_transpose(1, 2)?; // [rows, heads, 1, d]
            self.attend([own, self.heads_of(&key, group)?, self.heads_of(&value, group)?], &unseen)?.f_squeeze_dim(1)
        };
        self.finish(&newest, &join(batch.groups.iter().map(mixed).collect::<Result<Vec<_>, _>>()?)?)
    }

    /// The rows of a group, padded, by head: [T, h] -> [rows, heads, L, d]
    fn heads_of(&self, x: &Tensor, group: &Group) -> Result<Tensor, TchError> {
        group.pad(x)?.f_unflatten(2, [self.heads, -1])?.f_transpose(1, 2)
    }

    /// What queries take from the positions that they see, heads beside each other: [rows, heads, Q, d] and twice
    /// [rows, heads, L, d] -> [rows, Q, h]. `unseen` is added to the scores.
    fn attend(&self, [query, key, value]: [Tensor; 3], unseen: &Tensor) -> Result<Tensor, TchError> {
        let scores = query.f_matmul(&key.f_transpose(-2, -1)?)?.f_mul_scalar(self.scale)?.f_add(unseen)?;
        let probabilities = self.net.drop(scores.f_softmax(-1, Kind::Float)?)?; // [rows, heads, Q, L]
        probabilities.f_matmul(&value)?.f_transpose(1, 2)?.f_flatten(2, 3)
    }

    /// The layer's bias for each head at some distances, where it has any: [rows·Q·L] -> [rows, heads, Q, L]
    fn bias_by_distance(
        &self,
        distances: &Tensor,
        [rows, queries, keys]: [i64; 3],
    ) -> Result<Option<Tensor>, TchError> {
        let Some(layer) = self.biased else { return Ok(None) };
        let table = self.parameter("backbone.position_bias")?.f_select(0, layer as i64)?; // [heads, max_len]
        let bias = gather(&table.f_transpose(0, 1)?, distances)?; // [rows·Q·L, heads]
        Ok(Some(bias.f_reshape([rows, queries, keys, self.heads])?.f_permute([0, 3, 1, 2])?))
    }

    /// What follows the mixing of positions, [R, h]: output projection, residuals, norms and feed-forward network.
    fn finish(&self, x: &Tensor, mixed: &Tensor) -> Result<Tensor, TchError> {
        let attended = self.net.linear(&self.part("attention.output"), mixed, self.width, self.width)?;
        let x = self.residual("attention", x, &attended)?;
        let inner = gelu(&self.net.linear(&self.part("ffn.inner"), &x, self.ffn, self.width)?)?; // [R, f]
        let inner = mask(inner, self.masks.map(|masks| &masks.inner))?;
        let outer = self.net.linear(&self.part("ffn.outer"), &inner, self.width, self.ffn)?; // [R, h]
        self.residual("ffn", &x, &outer)
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
        let a = self.parameter(&self.part(&format!("{which}_residual")))?;
        // A residual that is not learnt is 1.
        let scaled = if a.requires_grad() { sublayer.f_mul(a)? } else { sublayer.shallow_clone() };
        let sum = x.f_add(&self.net.drop(scaled)?)?;
        let masks = self.masks.map(|masks| [&masks.hidden, &masks.per_hidden]);
        self.net.norm(&self.part(&format!("{which}_norm")), &sum, self.width, masks)
    }

    fn part(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    fn parameter(&self, name: &str) -> Result<&Tensor, TchError> {
        self.net.parameters.get(name)
    }
}

/// Rows of several groups under each other; those of one are not copied.
fn join(groups: Vec<Tensor>) -> Result<Tensor, TchError> {
    match groups.as_slice() {
        [only] => Ok(only.shallow_clone()),
        _ => Tensor::f_cat(&groups, 0),
    }
}
