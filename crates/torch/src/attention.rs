use tch::{TchError, Tensor};

use super::bias::LayerMask;
use super::packed::{Group, RowRange};
use super::tensors::concatenate;

/// How attention mixes positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: i64,
    /// Factor on the scores.
    pub(crate) scale: f64,
    /// Whether a position sees only itself and the positions before it.
    pub(crate) causal: bool,
}

/// One call of scaled dot-product attention, of the g rows of a group.
struct Call<'a> {
    /// [g, heads, Q, d]
    query: &'a Tensor,
    /// [g, heads, L, d]
    key: &'a Tensor,
    /// [g, heads, L, d]
    value: &'a Tensor,
    /// Whether a query sees only the keys up to its own place. Only without a mask.
    causal: bool,
    /// It is broadcast to [g, heads, Q, L]. False hides a key; numbers are added to the scaled scores.
    mask: Option<&'a Tensor>,
}

impl Attention {
    /// Attention of every position: packed query, key, value [T, 3h] -> [T, h], heads concatenated.
    ///
    /// A `mask` adds biases to the scores and hides later keys, so it is for causal attention alone.
    pub(crate) fn every_position(
        self,
        packed: &Tensor,
        rows: &RowRange,
        mask: Option<&LayerMask>,
    ) -> Result<Tensor, TchError> {
        self.by_group(rows, |group| {
            let [query, key, value] = self.split_heads(&group.pad(packed)?, [group.rows, group.length])?; // [g, heads, L, d] each
            let [query, key, value] = [&query, &key, &value];
            if let Some(mask) = mask {
                let mask = mask.every_position(group.length)?; // [1, heads, L, L]
                return group.unpad(self.attend(Call { query, key, value, causal: false, mask: Some(&mask) })?);
            }
            // Padding follows the items, so causal attention does not see it.
            let mask = if self.causal { None } else { group.padding.as_ref().map(|padding| &padding.real) };
            group.unpad(self.attend(Call { query, key, value, causal: self.causal, mask })?)
        })
    }

    /// Attention of the newest positions alone: query [R, h], packed key and value [T, 2h] -> [R, h].
    ///
    /// The newest position sees every item, so causal or not makes no difference.
    pub(crate) fn newest_position(
        self,
        query: &Tensor,
        packed: &Tensor,
        rows: &RowRange,
        mask: Option<&LayerMask>,
    ) -> Result<Tensor, TchError> {
        self.by_group(rows, |group| {
            let [key, value] = self.split_heads(&group.pad(packed)?, [group.rows, group.length])?; // [g, heads, L, d] each
            let own = query.f_narrow(0, group.row, group.rows)?; // [g, h]
            let [query] = self.split_heads(&own, [group.rows, 1])?; // [g, heads, 1, d]
            let [query, key, value] = [&query, &key, &value];
            if let Some(mask) = mask {
                let mask = mask.newest_position(group)?; // [1 or g, heads, 1, L]
                return self.attend(Call { query, key, value, causal: false, mask: Some(&mask) });
            }
            let mask = group.padding.as_ref().map(|padding| &padding.real);
            self.attend(Call { query, key, value, causal: false, mask })
        })
    }

    fn by_group(
        self,
        rows: &RowRange,
        attend: impl Fn(&Group) -> Result<Tensor, TchError>,
    ) -> Result<Tensor, TchError> {
        concatenate(rows.groups.iter().map(attend).collect::<Result<_, _>>()?)
    }

    /// [gL, N·h] -> N x [g, heads, L, d]
    fn split_heads<const N: usize>(self, tokens: &Tensor, [rows, length]: [i64; 2]) -> Result<[Tensor; N], TchError> {
        let width = tokens.size().last().copied().unwrap_or_default() / N as i64;
        let split = tokens
            .f_view([rows, length, N as i64, self.heads, width / self.heads])? // [g, L, N, heads, d]
            .f_permute([2, 0, 3, 1, 4])?; // [N, g, heads, L, d]
        let mut parts = [const { None }; N];
        for (index, part) in parts.iter_mut().enumerate() {
            *part = Some(split.f_select(0, index as i64)?); // [g, heads, L, d]
        }
        Ok(parts.map(Option::unwrap_or_default))
    }

    /// The outputs of all queries, heads concatenated: [gQ, h]
    fn attend(self, call: Call<'_>) -> Result<Tensor, TchError> {
        let Call { query, key, value, causal, mask } = call;
        let scale = Some(self.scale);
        let mixed = Tensor::f_scaled_dot_product_attention(query, key, value, mask, 0.0, causal, scale, false)?;
        mixed.f_transpose(1, 2)?.f_reshape([-1, self.heads * query.size().last().copied().unwrap_or_default()])
    }
}
