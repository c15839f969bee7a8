//! Parts of the forward pass on their own, for benchmarks.

use super::block::{Block, BlockSlice};
use super::forward::CpuForward;
use super::workspace::Workspace;
use canet_domain::Route;

/// The parts of a route's first block. Each runs alone, over the values that the part before it left.
pub struct BlockBench<'a> {
    block: &'a Block,
    slice: &'a BlockSlice,
    workspace: Workspace,
    max_len: usize,
}

impl CpuForward {
    /// The parts of a route's first block.
    pub fn bench_block(&self, route: Route) -> BlockBench<'_> {
        let (block, slice) = self.backbone().first_block(route);
        let workspaces = self.workspaces();
        BlockBench { block, slice, workspace: workspaces.create(), max_len: workspaces.sizes().length }
    }
}

impl BlockBench<'_> {
    /// Queries, keys and values of a history of `length` items, at most the model's `max_len`.
    pub fn project(&mut self, length: usize) {
        self.block.project(self.slice, length.min(self.max_len), &mut self.workspace);
    }

    /// Causal attention over these queries, keys and values.
    pub fn attend(&mut self, length: usize) {
        self.block.attend(self.slice, &[length.min(self.max_len)], &mut self.workspace);
    }

    /// The output projection, both norms and the feed-forward network.
    pub fn feed_forward(&mut self, length: usize) {
        self.block.feed_forward(self.slice, length.min(self.max_len), &mut self.workspace);
    }
}
