use tch::{Kind, TchError, Tensor};

use super::batch::{Batch, Scoring, gather, prefix};
use super::block::BlockPass;
use super::cut::{Cut, Masks};
use super::dropout::{Dropout, DropoutShares};
use super::parameters::Parameters;
use canet_domain::Slice;
use canet_model::{ModelConfig, Positions};

/// The training forward: every position of every row, with dropout, by one slice or by a route a row.
///
/// It computes the function that serving computes (same slices, scales and norms), at every position instead of the
/// last one; `tests/it/training.rs` holds the two together. Only real items are computed; attention alone pads.
pub struct Supernet<'a> {
    /// Sizes and flags.
    pub config: &'a ModelConfig,
    /// The weights.
    pub parameters: &'a Parameters,
    /// What is dropped.
    pub dropout: DropoutShares,
}

impl Supernet<'_> {
    /// Hidden states after the last layer of each row's route: [T, h], h the uniform slice's width or the full one.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn hidden(&self, batch: &Batch, cut: &Cut) -> Result<Tensor, TchError> {
        match cut {
            Cut::Uniform(slice) => {
                let mut x = self.input(batch, *slice, None)?; // [T, h]
                for layer in 0..slice.layers {
                    x = self.block(layer, slice.hidden, None).every_position(&x, batch)?;
                }
                Ok(x)
            }
            Cut::Mixed(masks) => self.mixed(batch, masks),
        }
    }

    /// Hidden states of one slice after each of `depths`, ascending and ending with the slice's, at the positions that
    /// carry the loss: [S, h] each.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn exits(&self, batch: &Batch, slice: Slice, depths: &[usize]) -> Result<Vec<Tensor>, TchError> {
        let mut x = self.input(batch, slice, None)?; // [T, h]
        let mut exits = Vec::with_capacity(depths.len());
        for layer in 0..slice.layers {
            let block = self.block(layer, slice.hidden, None);
            if layer + 1 == slice.layers && batch.scoring == Scoring::Newest {
                // As in serving, the last block computes what is scored alone.
                exits.push(block.newest(&x, batch)?); // [S, h]
                break;
            }
            x = block.every_position(&x, batch)?;
            if depths.contains(&(layer + 1)) {
                exits.push(batch.at_scored(&x)?); // [S, h]
            }
        }
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
        let mut x = self.input(batch, widest, Some(&masks))?; // [T, D]
        let mut left = None::<Tensor>;
        for layer in 0..widest.layers {
            x = self.block(layer, widest.hidden, Some(&masks)).every_position(&x, batch)?;
            let Some(exit) = self.config.layers.iter().position(|exit| *exit == layer + 1) else { continue };
            let leaving = x.f_mul(&masks.depth.f_narrow(1, exit as i64, 1)?)?; // [T, D]
            left = Some(match left.take() {
                Some(left) => left.f_add(&leaving)?,
                None => leaving,
            });
        }
        left.ok_or_else(|| TchError::Torch("a route space without layers".to_owned()))
    }

    /// What enters the first block: [T, h]
    fn input(&self, batch: &Batch, slice: Slice, masks: Option<&Masks>) -> Result<Tensor, TchError> {
        let positions = match self.config.positions {
            Positions::Newest => Some(&batch.positions),
            Positions::Oldest => Some(&batch.from_oldest),
            Positions::Relative => None,
        };
        let x = self.embed("backbone", batch, positions, slice.embedding)?; // [T, e]
        let x = match self.config.embedding_norm {
            true => {
                let masks = masks.map(|masks| [&masks.embedding, &masks.per_embedding]);
                self.norm("backbone.embedding_norm", &x, slice.embedding, masks)?
            }
            false => mask(x, masks.map(|masks| &masks.embedding))?,
        };
        let x = self.linear("backbone.input", &self.drop_embedding(x)?, slice.hidden, slice.embedding)?; // [T, h]
        mask(x, masks.map(|masks| &masks.hidden))
    }

    /// A block of the backbone at one width, or masked.
    fn block<'b>(&'b self, layer: usize, width: usize, masks: Option<&'b Masks>) -> BlockPass<'b> {
        BlockPass {
            net: self,
            name: format!("backbone.blocks.{layer}"),
            heads: self.config.heads as i64,
            width,
            ffn: self.config.shape().ffn_width(width),
            // Masks bring it with the queries.
            scale: if masks.is_some() { 1.0 } else { self.config.attention_scale(width) },
            causal: true,
            biased: (self.config.positions == Positions::Relative).then_some(layer),
            masks,
        }
    }

    /// Layer norm over the first `width` features; or, of rows that are masked, over those that the row's mask leaves, of
    /// which `masks` has the number's reciprocal beside it: [T, width] -> [T, width]
    pub(crate) fn norm(
        &self,
        name: &str,
        x: &Tensor,
        width: usize,
        masks: Option<[&Tensor; 2]>,
    ) -> Result<Tensor, TchError> {
        let part = |part: &str| prefix(self.parameters.get(&format!("{name}.{part}"))?, 0, width);
        let (weight, bias, eps) = (part("weight")?, part("bias")?, self.config.norm_eps);
        let Some([mask, share]) = masks else {
            return x.f_layer_norm([width as i64], Some(&weight), Some(&bias), eps, true);
        };
        let dims = [-1_i64].as_slice();
        let x = x.f_mul(mask)?;
        let mean = x.f_sum_dim_intlist(dims, true, Kind::Float)?.f_mul(share)?; // [T, 1]
        let centred = x.f_sub(&mean)?.f_mul(mask)?; // [T, width]
        let variance = centred.f_square()?.f_sum_dim_intlist(dims, true, Kind::Float)?.f_mul(share)?; // [T, 1]
        let scale = variance.f_add_scalar(eps)?.f_rsqrt()?; // [T, 1]
        centred.f_mul(&scale)?.f_mul(&weight)?.f_add(&bias)?.f_mul(mask)
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
            biased: None,
            masks: None,
        };
        let x = self.drop_embedding(self.embed("router", batch, Some(&batch.positions), router.dim)?)?; // [T, dim]
        let last = block.newest(&x, batch)?; // [B, dim]
        let routes = self.parameters.get("router.head.bias")?.size1()? as usize;
        self.linear("router.head", &last, routes, router.dim)
    }

    /// Item, and position where that has a table, the first `width` features: [T, width]
    fn embed(&self, part: &str, batch: &Batch, positions: Option<&Tensor>, width: usize) -> Result<Tensor, TchError> {
        let table = |table: &str| prefix(self.parameters.get(&format!("{part}.{table}"))?, 1, width);
        let items = gather(&table("item_embedding")?, &batch.items)?;
        match positions {
            Some(positions) => items.f_add(&gather(&table("position_embedding")?, positions)?),
            None => Ok(items),
        }
    }

    /// The first `out` outputs over the first `input` inputs of a stored linear layer.
    pub(crate) fn linear(&self, name: &str, x: &Tensor, out: usize, input: usize) -> Result<Tensor, TchError> {
        let weight = self.parameters.get(&format!("{name}.weight"))?;
        let weight = prefix(&prefix(weight, 0, out)?, 1, input)?; // [out, input]
        let bias = prefix(self.parameters.get(&format!("{name}.bias"))?, 0, out)?; // [out]
        x.f_linear(&weight, Some(&bias))
    }

    pub(crate) fn drop(&self, x: Tensor) -> Result<Tensor, TchError> {
        Dropout::new(self.dropout.blocks).apply(x)
    }

    fn drop_embedding(&self, x: Tensor) -> Result<Tensor, TchError> {
        Dropout::new(self.dropout.embedding).apply(x)
    }
}

/// Exact GELU: [T, f] -> [T, f]
///
/// Over the transposed view: for a contiguous float32 tensor LibTorch calls oneDNN, which compiles and keeps a kernel
/// for every number of rows that it meets.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_transpose(0, 1)?.f_gelu("none")?.f_transpose(0, 1)
}

pub(crate) fn mask(x: Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
    match mask {
        Some(mask) => x.f_mul(mask),
        None => Ok(x),
    }
}
