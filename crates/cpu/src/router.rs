use super::attention::{Heads, PositionBiases};
use super::block::{Block, BlockSlice, BlockSpec};
use super::embedding::EmbeddingTables;
use super::newest_attention::Features;
use super::panels::{Packer, Panels, padded};
use super::product::{Product, Shape};
use super::simd::{RowMajor, RowMajorMut};
use super::workspace::Workspace;
use canet_domain::History;
use canet_model::{ModelConfig, Positions, Precision, Weights, WeightsError};

/// The router: its own tables, one block that attends to every real item, and a linear head on the newest position.
///
/// It is small and always float32, so the precision never changes a route.
pub(crate) struct Router {
    tables: EmbeddingTables,
    block: Block,
    /// [routes, dim]
    head: Panels,
    slice: BlockSlice,
}

impl Router {
    pub(crate) fn load(weights: &Weights, config: &ModelConfig) -> Result<Router, WeightsError> {
        let router = config.router;
        let packer = Packer { weights, precision: Precision::Fp32 };
        let width = router.dim / router.heads;
        let heads = Heads { count: router.heads, width, scale: (1.0 / (width as f64).sqrt()) as f32 };
        let epsilon = config.norm_eps as f32;
        let spec = BlockSpec { name: "router.block", widths: &[router.dim], heads: router.heads, epsilon };
        Ok(Router {
            tables: EmbeddingTables::load(weights, "router", Positions::Newest, config.max_len)?,
            block: Block::load(packer, spec, PositionBiases::none(config.max_len))?,
            head: packer.layer("router.head")?,
            slice: BlockSlice { place: 0, width: router.dim, ffn: router.ffn, heads },
        })
    }

    /// Appends one logit a route for each history. The histories together have at most as many tokens as the workspace.
    pub(crate) fn append_logits(&self, histories: &[&History], workspace: &mut Workspace, out: &mut Vec<f32>) {
        let (level, stride, width) = (workspace.level, workspace.stride, self.slice.width);
        let lengths = self.tables.embed(level, histories, width, RowMajorMut { data: &mut workspace.x, stride });
        let mut newest = vec![0.0; histories.len() * stride];
        // The newest position sees every item, in causal attention as in the router's.
        self.block.newest_positions(&self.slice, &Features::InWorkspace(&lengths), workspace, &mut newest);
        let row = padded(self.head.outputs());
        let mut logits = vec![0.0; histories.len() * row];
        let input = RowMajor { data: &newest, stride };
        let shape = Shape { inputs: width, outputs: self.head.outputs() };
        Product::new(&self.head, shape, input, histories.len()).write(level, &mut logits, row);
        out.extend(logits.chunks(row).flat_map(|row| &row[..self.head.outputs()]));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tables.bytes() + self.block.bytes() + self.head.bytes()
    }
}
