use tch::{TchError, Tensor};

use super::packed::{Group, Run, join};

/// How attention mixes positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    pub(super) heads: i64,
    /// Factor on the scores.
    pub(super) scale: f64,
    /// Whether a position sees only itself and what came before it.
    pub(super) causal: bool,
}

impl Attention {
    /// Every position attends: packed query, key, value [T, 3h] -> [T, h], heads concatenated.
    pub(super) fn every_position(self, packed: &Tensor, run: &Run) -> Result<Tensor, TchError> {
        self.by_group(run, |group| {
            let tokens = packed.f_narrow(0, group.token, group.rows * group.length)?; // [gL, 3h]
            let [query, key, value] = self.split_heads(&tokens, group)?; // [g, heads, L, d] each
            self.attend([&query, &key, &value], self.causal)
        })
    }

    /// The last positions attend: query [R, h], packed key and value [T, 2h] -> [R, h].
    ///
    /// Causal or not is the same here: the last position sees every item.
    pub(super) fn last_position(self, query: &Tensor, packed: &Tensor, run: &Run) -> Result<Tensor, TchError> {
        self.by_group(run, |group| {
            let tokens = packed.f_narrow(0, group.token, group.rows * group.length)?; // [gL, 2h]
            let [key, value] = self.split_heads(&tokens, group)?; // [g, heads, L, d] each
            let last = Group { length: 1, ..group };
            let [query] = self.split_heads(&query.f_narrow(0, group.row, group.rows)?, last)?; // [g, heads, 1, d]
            self.attend([&query, &key, &value], false)
        })
    }

    fn by_group(self, run: &Run, attend: impl Fn(Group) -> Result<Tensor, TchError>) -> Result<Tensor, TchError> {
        join(run.groups.iter().map(|group| attend(*group)).collect::<Result<_, _>>()?)
    }

    /// [gL, N·h] -> N x [g, heads, L, d]
    fn split_heads<const N: usize>(self, tokens: &Tensor, group: Group) -> Result<[Tensor; N], TchError> {
        let width = tokens.size().last().copied().unwrap_or_default() / N as i64;
        let split = tokens
            .f_view([group.rows, group.length, N as i64, self.heads, width / self.heads])? // [g, L, N, heads, d]
            .f_permute([2, 0, 3, 1, 4])?; // [N, g, heads, L, d]
        let mut parts = [const { None }; N];
        for (index, part) in parts.iter_mut().enumerate() {
            *part = Some(split.f_select(0, index as i64)?); // [g, heads, L, d]
        }
        Ok(parts.map(Option::unwrap_or_default))
    }

    /// [g, heads, Q, d] -> [gQ, h]
    fn attend(self, [query, key, value]: [&Tensor; 3], causal: bool) -> Result<Tensor, TchError> {
        let none = None::<Tensor>;
        let mixed =
            Tensor::f_scaled_dot_product_attention(query, key, value, none, 0.0, causal, Some(self.scale), false)?;
        mixed.f_transpose(1, 2)?.f_reshape([-1, self.heads * query.size().last().copied().unwrap_or_default()])
    }
}
