use super::attention::{Biases, Heads};
use super::block::{Block, Cut, Stored};
use super::panels::{Packer, Panels, padded};
use super::product::Product;
use super::simd::{Left, Level};
use super::tables::Tables;
use super::workspace::Workspace;
use canet_domain::History;
use canet_model::{ModelConfig, Positions, Precision, Weights, WeightsError};

/// Own tables, one block that attends to every real item, a linear head on the last position. Always in float32: it is
/// small, and which route runs does not depend on the precision.
pub(crate) struct Router {
    tables: Tables,
    block: Block,
    /// [routes, dim]
    head: Panels,
    cut: Cut,
}

impl Router {
    pub(crate) fn load(weights: &Weights, config: &ModelConfig) -> Result<Router, WeightsError> {
        let router = config.router;
        let packer = Packer { weights, precision: Precision::Fp32 };
        let width = router.dim / router.heads;
        let heads = Heads { count: router.heads, width, scale: (1.0 / (width as f64).sqrt()) as f32 };
        let epsilon = config.norm_eps as f32;
        let stored = Stored { name: "router.block", widths: &[router.dim], heads: router.heads, epsilon };
        Ok(Router {
            tables: Tables::load(weights, "router", Positions::Newest, config.max_len)?,
            block: Block::load(packer, stored, Biases::none(config.max_len))?,
            head: packer.layer("router.head")?,
            cut: Cut { place: 0, width: router.dim, ffn: router.ffn, heads },
        })
    }

    /// One logit a route for each history. Together they have at most as many tokens as the workspace.
    pub(crate) fn logits(&self, level: Level, histories: &[&History], workspace: &mut Workspace, out: &mut Vec<f32>) {
        let (stride, width) = (workspace.stride, self.cut.width);
        let lengths = self.tables.embed(level, histories, width, (&mut workspace.x, stride));
        let mut newest = vec![0.0; histories.len() * stride];
        // Of attention that is not causal the newest position sees no more than of one that is.
        self.block.newest_positions(level, &self.cut, &lengths, workspace, &mut newest);
        let row = padded(self.head.outputs());
        let mut logits = vec![0.0; histories.len() * row];
        let input = Left { data: &newest, stride };
        Product::new(&self.head, [width, self.head.outputs()], input, histories.len()).into(level, &mut logits, row);
        out.extend(logits.chunks(row).flat_map(|row| &row[..self.head.outputs()]));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tables.bytes() + self.block.bytes() + self.head.bytes()
    }
}
