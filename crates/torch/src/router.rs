use tch::{TchError, Tensor};

use super::attention::Attention;
use super::block::{Block, StoredBlock};
use super::load::{Linear, Loader};
use super::packed::Packed;
use crate::TorchError;
use canet_model::ModelConfig;

/// Own tables, one block that attends to every real item, a linear head on the last position.
pub(crate) struct Router {
    /// [N + 1, dim]
    items: Tensor,
    /// [max_len, dim]
    positions: Tensor,
    block: Block,
    /// [routes, dim]
    head: Linear,
}

impl Router {
    pub(crate) fn load(loader: &Loader<'_>, config: &ModelConfig) -> Result<Router, TorchError> {
        let router = config.router;
        let attention = Attention {
            heads: router.heads as i64,
            scale: 1.0 / ((router.dim / router.heads) as f64).sqrt(),
            causal: false,
        };
        Ok(Router {
            items: loader.tensor("router.item_embedding")?,
            positions: loader.tensor("router.position_embedding")?,
            block: StoredBlock::load(loader, "router.block")?.slice(loader, router.dim, router.ffn, attention)?,
            head: loader.linear("router.head")?,
        })
    }

    /// One logit a route: [B, routes], rows as they came.
    pub(crate) fn logits(&self, batch: &Packed) -> Result<Tensor, TchError> {
        let x = batch.embed(&self.items, Some(&self.positions), self.block.width())?; // [T, dim]
        let [_, x] = self.block.forward(&x, batch, [&batch.run(0..0)?, &batch.run(0..batch.rows())?], None)?; // [B, dim]
        self.head.forward(&batch.restore(&x)?) // [B, routes]
    }

    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        let mut tensors = self.block.tensors();
        tensors.extend([&self.items, &self.positions]);
        tensors.extend(self.head.tensors());
        tensors
    }
}
