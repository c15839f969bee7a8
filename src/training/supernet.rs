use tch::{Kind, TchError, Tensor};

use super::batch::{Batch, gather, prefix};
use super::block::BlockPass;
use super::cut::{Cut, Masks};
use super::dropout::Dropout;
use super::parameters::Parameters;
use crate::domain::Slice;
use crate::model::ModelConfig;

/// The training forward: every position of every row, with dropout, by one slice or by a route a row.
///
/// It computes the function that serving computes (same slices, scales and norms), at every position instead of the
/// last one; `tests/it/training.rs` holds the two together. Only real items are computed; attention alone pads.
pub struct Supernet<'a> {
    /// Sizes and flags.
    pub config: &'a ModelConfig,
    /// The weights.
    pub parameters: &'a Parameters,
    /// Share of activations dropped; 0 computes what serving does.
    pub dropout: f64,
}

impl Supernet<'_> {
    /// Hidden states after the last layer of each row's route: [T, h], h the uniform slice's width or the full one.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn hidden(&self, batch: &Batch, cut: &Cut) -> Result<Tensor, TchError> {
        match cut {
            Cut::Uniform(slice) => {
                let mut last = None;
                self.layers(batch, *slice, None, |_, x| {
                    last = Some(x.shallow_clone());
                    Ok(())
                })?;
                last.ok_or_else(|| TchError::Torch("a slice without layers".to_owned()))
            }
            Cut::Mixed(masks) => self.mixed(batch, masks),
        }
    }

    /// Hidden states of one slice after each of `depths`, ascending and at most the slice's: [T, h] each.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(super) fn exits(&self, batch: &Batch, slice: Slice, depths: &[usize]) -> Result<Vec<Tensor>, TchError> {
        let mut exits = Vec::with_capacity(depths.len());
        self.layers(batch, slice, None, |depth, x| {
            if depths.contains(&depth) {
                exits.push(x.shallow_clone());
            }
            Ok(())
        })?;
        Ok(exits)
    }

    /// Each row by its own route; rows whose route ends at a layer leave with that layer's state: [T, D]
    fn mixed(&self, batch: &Batch, masks: &Masks) -> Result<Tensor, TchError> {
        let widest = Slice {
            hidden: self.config.width(),
            layers: self.config.depth(),
            embedding: self.config.embedding_width(),
        };
        let masks = masks.of_tokens(batch)?;
        let mut left = None::<Tensor>;
        self.layers(batch, widest, Some(&masks), |depth, x| {
            let Some(exit) = self.config.layers.iter().position(|exit| *exit == depth) else { return Ok(()) };
            let leaving = x.f_mul(&masks.depth.f_narrow(1, exit as i64, 1)?)?; // [T, D]
            left = Some(match left.take() {
                Some(left) => left.f_add(&leaving)?,
                None => leaving,
            });
            Ok(())
        })?;
        left.ok_or_else(|| TchError::Torch("a route space without layers".to_owned()))
    }

    /// Runs the layers of a slice and shows each one's state, [T, h], with its depth from 1.
    fn layers(
        &self,
        batch: &Batch,
        slice: Slice,
        masks: Option<&Masks>,
        mut after: impl FnMut(usize, &Tensor) -> Result<(), TchError>,
    ) -> Result<(), TchError> {
        let x = self.embed("backbone", batch, slice.embedding)?; // [T, e]
        let x = mask(x, masks.map(|masks| &masks.embedding))?;
        let x = self.linear("backbone.input", &x, slice.hidden, slice.embedding)?; // [T, h]
        let mut x = mask(x, masks.map(|masks| &masks.hidden))?;
        for layer in 0..slice.layers {
            let block = BlockPass {
                net: self,
                name: format!("backbone.blocks.{layer}"),
                heads: self.config.heads as i64,
                width: slice.hidden,
                ffn: self.config.shape().ffn_width(slice.hidden),
                scale: if masks.is_some() { 1.0 } else { self.config.attention_scale(slice.hidden) },
                causal: true,
                masks,
            };
            x = block.forward(&x, batch)?;
            after(layer + 1, &x)?;
        }
        Ok(())
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
            causal: false,
            masks: None,
        };
        let x = self.embed("router", batch, router.dim)?; // [T, dim]
        let last = gather(&block.forward(&x, batch)?, &batch.newest)?; // [B, dim]
        let routes = self.parameters.get("router.head.bias")?.size1()? as usize;
        self.linear("router.head", &last, routes, router.dim)
    }

    /// Item + position, the first `width` features: [T, width]
    fn embed(&self, part: &str, batch: &Batch, width: usize) -> Result<Tensor, TchError> {
        let table = |table: &str| prefix(self.parameters.get(&format!("{part}.{table}"))?, 1, width);
        let items = gather(&table("item_embedding")?, &batch.items)?;
        let positions = gather(&table("position_embedding")?, &batch.positions)?;
        self.drop(items.f_add(&positions)?)
    }

    /// The first `out` outputs over the first `input` inputs of a stored linear layer.
    pub(super) fn linear(&self, name: &str, x: &Tensor, out: usize, input: usize) -> Result<Tensor, TchError> {
        let weight = self.parameters.get(&format!("{name}.weight"))?;
        let weight = prefix(&prefix(weight, 0, out)?, 1, input)?; // [out, input]
        let bias = prefix(self.parameters.get(&format!("{name}.bias"))?, 0, out)?; // [out]
        x.f_linear(&weight, Some(&bias))
    }

    pub(super) fn drop(&self, x: Tensor) -> Result<Tensor, TchError> {
        Dropout::new(self.dropout).apply(x)
    }
}

/// Exact GELU: [T, f] -> [T, f]
///
/// Over the transposed view: for a contiguous float32 tensor LibTorch calls oneDNN, which compiles and keeps a kernel
/// for every number of rows that it meets.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_transpose(0, 1)?.f_gelu("none")?.f_transpose(0, 1)
}

pub(super) fn mask(x: Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
    match mask {
        Some(mask) => x.f_mul(mask),
        None => Ok(x),
    }
}

/// What attention may not see, as minus infinity: [rows or 1, 1, length or 1, length]
pub(super) fn invisible(visible: &Tensor) -> Result<Tensor, TchError> {
    let zeros = visible.f_zeros_like()?.f_to_kind(Kind::Float)?;
    zeros.f_masked_fill(&visible.f_logical_not()?, f64::NEG_INFINITY)
}
