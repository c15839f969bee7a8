use canet_domain::Slice;
use canet_model::{ModelConfig, Positions};
use tch::{TchError, Tensor};

use crate::batch::{Batch, Scoring};
use crate::block::BlockPass;
use crate::dropout::DropoutShares;
use crate::layers::{Layers, NormMask, apply_mask};
use crate::parameters::Parameters;
use crate::subnet_mask::{RowMasks, SubnetMask};
use crate::tensors::{gather, prefix};

/// The forward pass of training: every position of every row, with dropout, through one slice or through another route
/// for each row.
///
/// It computes the same function as serving, with the same slices, scales and norms. The tests in `tests/supernet.rs`
/// compare both. It computes only real items; attention alone pads.
///
/// Shapes are those of [`Batch`], and e features of an embedding.
pub struct Supernet<'a> {
    /// Sizes and flags of the model.
    pub config: &'a ModelConfig,
    /// The weights.
    pub parameters: &'a Parameters,
    /// The shares of activations that are dropped.
    pub dropout: DropoutShares,
}

impl Supernet<'_> {
    /// Hidden states after the last layer of each row's route: `[T, h]`. h is the slice's width, or the full width for
    /// [`SubnetMask::PerRow`].
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub fn hidden(&self, batch: &Batch, mask: &SubnetMask) -> Result<Tensor, TchError> {
        match mask {
            SubnetMask::Slice(slice) => {
                let mut x = self.input(batch, *slice, None)?; // [T, h]
                for layer in 0..slice.layers {
                    x = self.block(layer, slice.hidden, None).every_position(&x, batch)?;
                }
                Ok(x)
            }
            SubnetMask::PerRow(masks) => self.hidden_per_row(batch, masks),
        }
    }

    /// Hidden states of one slice after each of `depths`, at the positions that carry the loss: `[S, h]` each. `depths`
    /// must ascend and end with the slice's own depth.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn exits(&self, batch: &Batch, slice: Slice, depths: &[usize]) -> Result<Vec<Tensor>, TchError> {
        let mut x = self.input(batch, slice, None)?; // [T, h]
        let mut exits = Vec::with_capacity(depths.len());
        for layer in 0..slice.layers {
            let block = self.block(layer, slice.hidden, None);
            if layer + 1 == slice.layers && batch.scoring == Scoring::Newest {
                // Like serving, the last block computes only the positions that are scored.
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

    /// Hidden states after the last layer of each row's own route: `[T, D]`
    fn hidden_per_row(&self, batch: &Batch, masks: &RowMasks) -> Result<Tensor, TchError> {
        let widest = Slice {
            hidden: self.config.width(),
            layers: self.config.depth(),
            embedding: self.config.embedding_width(),
        };
        let masks = masks.per_token(batch)?;
        let mut x = self.input(batch, widest, Some(&masks))?; // [T, D]
        let mut finished = None::<Tensor>;
        for layer in 0..widest.layers {
            x = self.block(layer, widest.hidden, Some(&masks)).every_position(&x, batch)?; // [T, D]
            let Some(depth) = self.config.layers.iter().position(|depth| *depth == layer + 1) else { continue };
            // Rows of this depth keep this state, and the mask is zero for all others.
            let own = x.f_mul(&masks.depth.f_narrow(1, depth as i64, 1)?)?; // [T, D]
            finished = Some(match finished.take() {
                Some(finished) => finished.f_add(&own)?,
                None => own,
            });
        }
        finished.ok_or_else(|| TchError::Torch("the route space has no depths".to_owned()))
    }

    /// The input of the first block: `[T, h]`
    fn input(&self, batch: &Batch, slice: Slice, masks: Option<&RowMasks>) -> Result<Tensor, TchError> {
        let layers = self.layers();
        let positions = match self.config.positions {
            Positions::Newest => Some(&batch.positions),
            Positions::Oldest => Some(&batch.from_oldest),
            Positions::Relative => None,
        };
        let x = self.embed("backbone", batch, positions, slice.embedding)?; // [T, e]
        let x = match self.config.embedding_norm {
            true => {
                let mask =
                    masks.map(|masks| NormMask { features: &masks.embedding, per_feature: &masks.per_embedding });
                layers.norm("backbone.embedding_norm", &x, slice.embedding, mask)?
            }
            false => apply_mask(x, masks.map(|masks| &masks.embedding))?,
        };
        let x = layers.linear("backbone.input", &layers.drop_embedding(x)?, slice.hidden, slice.embedding)?; // [T, h]
        apply_mask(x, masks.map(|masks| &masks.hidden))
    }

    fn layers(&self) -> Layers<'_> {
        Layers { parameters: self.parameters, dropout: self.dropout, norm_eps: self.config.norm_eps }
    }

    /// A block of the backbone at one width, or masked.
    fn block<'b>(&'b self, layer: usize, width: usize, masks: Option<&'b RowMasks>) -> BlockPass<'b> {
        BlockPass {
            layers: self.layers(),
            name: format!("backbone.blocks.{layer}"),
            heads: self.config.heads as i64,
            width,
            ffn: self.config.shape().ffn_width(width),
            scale: if masks.is_some() { 1.0 } else { self.config.attention_scale(width) },
            causal: true,
            biased: (self.config.positions == Positions::Relative).then_some(layer),
            masks,
        }
    }

    /// Scores of every item, column 0 being padding: `[n, h] -> [n, N + 1]`
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub fn scores(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        let width = hidden.size().last().copied().unwrap_or_default() as usize;
        self.layers().linear("backbone.output", hidden, self.config.items + 1, width)
    }

    /// Router logits of each row: `[B, routes]`
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub fn router_logits(&self, batch: &Batch) -> Result<Tensor, TchError> {
        let (router, layers) = (self.config.router, self.layers());
        let x = self.embed("router", batch, Some(&batch.positions), router.dim)?; // [T, dim]
        let block = BlockPass {
            layers: self.layers(),
            name: "router.block".to_owned(),
            heads: router.heads as i64,
            width: router.dim,
            ffn: router.ffn,
            scale: 1.0 / ((router.dim / router.heads) as f64).sqrt(),
            causal: false,
            biased: None,
            masks: None,
        };
        let newest = block.newest(&layers.drop_embedding(x)?, batch)?; // [B, dim]
        let routes = self.parameters.get("router.head.bias")?.size1()? as usize;
        layers.linear("router.head", &newest, routes, router.dim)
    }

    /// The first `width` features of each item's embedding, plus those of its position if the model has a table of
    /// positions: `[T, width]`
    fn embed(&self, part: &str, batch: &Batch, positions: Option<&Tensor>, width: usize) -> Result<Tensor, TchError> {
        let table = |table: &str| prefix(self.parameters.get(&format!("{part}.{table}"))?, 1, width);
        let items = gather(&table("item_embedding")?, &batch.items)?; // [T, width]
        match positions {
            Some(positions) => items.f_add(&gather(&table("position_embedding")?, positions)?),
            None => Ok(items),
        }
    }
}
