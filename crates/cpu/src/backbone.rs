use super::attention::{Heads, PositionBiases};
use super::block::{Block, BlockSlice, BlockSpec};
use super::embedding::{EmbeddingSlice, InputLayer};
use super::newest_attention::Features;
use super::panels::{Packer, Panels};
use super::simd::Level;
use super::workspace::Workspace;
use canet_domain::{History, Route, RouteSpace};
use canet_model::{ModelConfig, WeightsError};

/// The recommender. Every route runs a slice of it.
pub(crate) struct Backbone {
    pub(crate) space: RouteSpace,
    pub(crate) input: InputLayer,
    pub(crate) blocks: Vec<Block>,
    /// [N + 1, D]
    output: Panels,
    /// One a width, ascending.
    pub(crate) slices: Vec<BlockSlice>,
}

impl Backbone {
    pub(crate) fn load(
        level: Level,
        packer: Packer<'_>,
        config: &ModelConfig,
        space: &RouteSpace,
    ) -> Result<Backbone, WeightsError> {
        let slice = |(place, width): (usize, &usize)| {
            let scale = config.attention_scale(*width) as f32;
            let heads = Heads { count: config.heads, width: width / config.heads, scale };
            BlockSlice { place, width: *width, ffn: config.shape().ffn_width(*width), heads }
        };
        let block = |layer| {
            let name = &format!("backbone.blocks.{layer}");
            let spec = BlockSpec { name, widths: space.hidden(), heads: config.heads, epsilon: config.norm_eps as f32 };
            Block::load(packer, spec, PositionBiases::load(packer.weights, config, layer)?)
        };
        Ok(Backbone {
            space: space.clone(),
            input: InputLayer::load(level, packer, config, space)?,
            blocks: (0..config.depth()).map(block).collect::<Result<_, _>>()?,
            output: packer.layer("backbone.output")?,
            slices: space.hidden().iter().enumerate().map(slice).collect(),
        })
    }

    /// A route's output at the newest position of each history: one row of the workspace's stride a history.
    ///
    /// The histories together have at most as many tokens as the workspace.
    pub(crate) fn newest(&self, route: Route, histories: &[&History], workspace: &mut Workspace, newest: &mut [f32]) {
        let (slice, layers) = (&self.slices[self.space.place(route)[0]], self.space.slice(route).layers);
        let embedding = EmbeddingSlice::of(&self.space, route);
        let lengths = self.input.embed(slice.width, embedding, histories, workspace);
        for block in &self.blocks[..layers - 1] {
            block.every_position(slice, &lengths, workspace);
        }
        self.blocks[layers - 1].newest_positions(slice, &Features::InWorkspace(&lengths), workspace, newest);
    }

    /// The first block, and the slice of it that a route runs.
    pub(crate) fn first_block(&self, route: Route) -> (&Block, &BlockSlice) {
        (&self.blocks[0], &self.slices[self.space.place(route)[0]])
    }

    /// The layer that turns newest positions into scores.
    pub(crate) fn output(&self) -> &Panels {
        &self.output
    }

    pub(crate) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        self.input.bytes() + blocks + self.output.bytes()
    }
}
