use tch::{TchError, Tensor};

use super::attention::Attention;
use super::block::{Block, StoredBlock};
use super::error::TorchError;
use super::load::{Linear, Loader};
use super::packed::PackedBatch;
use canet_model::ModelConfig;

/// The router: its own tables, one block that attends to every real item, and a linear head on the newest position.
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

    /// One logit a route, in the order of the histories: [B, routes]
    pub(crate) fn logits(&self, batch: &PackedBatch) -> Result<Tensor, TchError> {
        let x = batch.embed(&self.items, Some(&self.positions), self.block.width())?; // [T, dim]
        let [_, x] = self.block.forward(&x, batch, [&batch.range(0..0)?, &batch.range(0..batch.rows())?], None)?; // [B, dim]
        self.head.forward(&batch.restore(&x)?) // [B, routes]
    }

    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        let mut tensors = self.block.tensors();
        tensors.extend([&self.items, &self.positions]);
        tensors.extend(self.head.tensors());
        tensors
    }
}
