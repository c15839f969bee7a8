use super::Native;
use super::block::{Block, Cut};
use super::simd::Level;
use super::workspace::Workspace;
use canet_domain::Route;

/// The first block of a route, taken to pieces: each runs alone, over whatever the one before it left. For benches.
pub struct Pieces<'a> {
    level: Level,
    block: &'a Block,
    cut: &'a Cut,
    workspace: Workspace,
    /// Items of the longest history.
    longest: usize,
}

impl Native {
    /// The pieces of a route's first block.
    pub fn pieces(&self, route: Route) -> Pieces<'_> {
        let (block, cut) = self.backbone.first(&self.space, route);
        let sizes = self.workspaces.sizes();
        Pieces { level: self.level, block, cut, workspace: Workspace::new(sizes), longest: sizes.length }
    }
}

impl Pieces<'_> {
    /// Queries, keys and values of a history of `length` items, up to the model's longest.
    pub fn project(&mut self, length: usize) {
        self.block.project(self.level, self.cut, self.within(length), &mut self.workspace);
    }

    /// Its causal attention: scores, softmax, weighted sums.
    pub fn attend(&mut self, length: usize) {
        self.block.attend(self.level, self.cut, &[self.within(length)], &mut self.workspace);
    }

    /// Output projection, both norms, and the feed-forward network.
    pub fn feed_forward(&mut self, length: usize) {
        self.block.feed_forward(self.level, self.cut, self.within(length), &mut self.workspace);
    }

    fn within(&self, length: usize) -> usize {
        length.min(self.longest)
    }
}
