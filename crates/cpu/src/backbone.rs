use super::attention::{Biases, Heads};
use super::block::{Block, Cut, Stored};
use super::input::Input;
use super::panels::{Packer, Panels};
use super::simd::Level;
use super::workspace::Workspace;
use canet_domain::{History, Route, RouteSpace};
use canet_model::{ModelConfig, WeightsError};

/// The recommender, of which every route runs a slice.
pub(crate) struct Backbone {
    input: Input,
    blocks: Vec<Block>,
    /// [N + 1, D]
    output: Panels,
    /// One a width, ascending.
    cuts: Vec<Cut>,
}

impl Backbone {
    pub(crate) fn load(
        level: Level,
        packer: Packer<'_>,
        config: &ModelConfig,
        space: &RouteSpace,
    ) -> Result<Backbone, WeightsError> {
        let cut = |(place, width): (usize, &usize)| {
            let scale = config.attention_scale(*width) as f32;
            let heads = Heads { count: config.heads, width: width / config.heads, scale };
            Cut { place, width: *width, ffn: config.shape().ffn_width(*width), heads }
        };
        let block = |layer| {
            let name = &format!("backbone.blocks.{layer}");
            let stored = Stored { name, widths: space.hidden(), heads: config.heads, epsilon: config.norm_eps as f32 };
            Block::load(packer, stored, Biases::load(packer.weights, config, layer)?)
        };
        Ok(Backbone {
            input: Input::load(level, packer, config, space)?,
            blocks: (0..config.depth()).map(block).collect::<Result<_, _>>()?,
            output: packer.layer("backbone.output")?,
            cuts: space.hidden().iter().enumerate().map(cut).collect(),
        })
    }

    /// What a route's slice makes of the newest positions: rows of the workspace's stride in `newest`, one a history.
    ///
    /// Short histories run together; together they have at most as many tokens as the workspace.
    pub(crate) fn newest(
        &self,
        level: Level,
        (space, route): (&RouteSpace, Route),
        histories: &[&History],
        (workspace, newest): (&mut Workspace, &mut [f32]),
    ) {
        let slice = space.slice(route);
        let cut = &self.cuts[space.place(route)[0]];
        let lengths = self.input.enter(level, (space, route), histories, workspace);
        for block in &self.blocks[..slice.layers - 1] {
            block.every_position(level, cut, &lengths, workspace);
        }
        self.blocks[slice.layers - 1].newest_positions(level, cut, &lengths, workspace, newest);
    }

    /// The first block, and the slice of it that a route runs.
    pub(crate) fn first(&self, space: &RouteSpace, route: Route) -> (&Block, &Cut) {
        (&self.blocks[0], &self.cuts[space.place(route)[0]])
    }

    /// The layer that makes scores of the newest positions.
    pub(crate) fn output(&self) -> &Panels {
        &self.output
    }

    pub(crate) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        self.input.bytes() + blocks + self.output.bytes()
    }
}
