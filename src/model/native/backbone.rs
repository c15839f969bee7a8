use super::attention::Heads;
use super::block::{Block, Cut};
use super::panels::{Packer, Panels};
use super::product::{Product, enter};
use super::simd::{Left, Level};
use super::tables::Tables;
use super::workspace::Workspace;
use crate::domain::{History, Route, RouteSpace};
use crate::model::{ModelConfig, WeightsError};

/// The recommender, of which every route runs a slice.
pub(super) struct Backbone {
    tables: Tables,
    /// [D, E]
    input: Panels,
    blocks: Vec<Block>,
    /// [N + 1, D]
    output: Panels,
    /// One a width, ascending.
    cuts: Vec<Cut>,
}

impl Backbone {
    pub(super) fn load(packer: Packer<'_>, config: &ModelConfig, space: &RouteSpace) -> Result<Backbone, WeightsError> {
        let cut = |(place, width): (usize, &usize)| {
            let scale = config.attention_scale(*width) as f32;
            let heads = Heads { count: config.heads, width: width / config.heads, scale };
            Cut { place, width: *width, ffn: config.shape().ffn_width(*width), heads }
        };
        let block = |layer| Block::load(packer, &format!("backbone.blocks.{layer}"), space.hidden(), config.heads);
        Ok(Backbone {
            tables: Tables::load(packer.weights, "backbone")?,
            input: packer.layer("backbone.input")?,
            blocks: (0..config.depth()).map(block).collect::<Result<_, _>>()?,
            output: packer.layer("backbone.output")?,
            cuts: space.hidden().iter().enumerate().map(cut).collect(),
        })
    }

    /// What a route's slice makes of the newest positions: rows of the workspace's stride in `newest`, one a history.
    ///
    /// Short histories run together; together they have at most as many tokens as the workspace.
    pub(super) fn newest(
        &self,
        level: Level,
        (space, route): (&RouteSpace, Route),
        histories: &[&History],
        (workspace, newest): (&mut Workspace, &mut [f32]),
    ) {
        let slice = space.slice(route);
        let cut = &self.cuts[space.place(route)[0]];
        let lengths = self.tables.embed(histories, slice.embedding, (&mut workspace.mixed, workspace.stride));
        let (stride, tokens) = (workspace.stride, lengths.iter().sum());
        let embedded = (Left { data: &workspace.mixed, stride }, [tokens, slice.embedding]);
        let embedded = enter(level, self.input.numbers(), embedded, &mut workspace.pairs);
        let input = Product::new(&self.input, [slice.embedding, slice.hidden], embedded, tokens);
        input.into(level, &mut workspace.x, stride);
        for block in &self.blocks[..slice.layers - 1] {
            block.every_position(level, cut, &lengths, workspace);
        }
        self.blocks[slice.layers - 1].newest_positions(level, cut, &lengths, workspace, newest);
    }

    /// The layer that makes scores of the newest positions.
    pub(super) fn output(&self) -> &Panels {
        &self.output
    }

    pub(super) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        self.tables.bytes() + self.input.bytes() + blocks + self.output.bytes()
    }
}
