use std::sync::{Mutex, PoisonError};

use super::attention::AttentionScratch;
use super::buffer::Buffer;
use super::panels::{PANEL, padded};
use super::simd::Level;

/// Rows that pass several layers together: four of the tallest tiles. Their activations stay in the second-level cache.
pub(crate) const ROW_BLOCK: usize = 56;

/// The most tokens of short histories that run together. A longer history runs alone.
const TOKENS: usize = 128;

/// Columns of scores that are computed before they are read, if rows are many.
pub(crate) const BLOCK_COLUMNS: usize = 8 * PANEL;

/// Up to so many rows, a block of scores gets more columns instead: each stop interrupts the reading of the output
/// layer.
const FEW_ROWS: usize = 16;

/// Columns of scores of some rows that are computed before they are read.
pub(crate) fn block_columns(rows: usize) -> usize {
    BLOCK_COLUMNS * (FEW_ROWS / rows.max(1)).max(1)
}

/// The largest sizes that a forward runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Width of a block or of an embedding.
    pub(crate) width: usize,
    /// Inner width of a feed-forward network.
    pub(crate) ffn: usize,
    /// Number of heads.
    pub(crate) heads: usize,
    /// Features of a head.
    pub(crate) head: usize,
    /// Items of a history.
    pub(crate) length: usize,
}

impl Sizes {
    /// The most tokens that run together.
    pub(crate) fn tokens(&self) -> usize {
        self.length.max(TOKENS)
    }

    /// Distance of two rows of activations.
    pub(crate) fn stride(&self) -> usize {
        padded(self.width)
    }
}

/// The buffers of one thread, and the vectors that it computes with.
pub(crate) struct Workspace {
    pub(crate) level: Level,
    /// Distance of two rows of `x`, `mixed`, `y` and of a block's newest positions.
    pub(crate) stride: usize,
    /// Embeddings, then the input and the output of a block: [tokens, stride]
    pub(crate) x: Buffer,
    /// Queries, keys and values, in rows as long as the slice's: [tokens, 3 stride]. For newest positions a row of each
    /// head: [tokens, heads, stride]
    pub(crate) projected: Buffer,
    /// The output of attention: [tokens, stride]
    pub(crate) mixed: Buffer,
    /// The output of a sublayer: [tokens, stride], with room for one more panel a row.
    pub(crate) y: Buffer,
    /// The inner layer of a feed-forward network: [ROW_BLOCK, f]
    pub(crate) inner: Buffer,
    /// A product's input as pairs of bfloat16: [tokens, stride / 2]
    pub(crate) pairs: Buffer,
    pub(crate) scratch: AttentionScratch,
    /// Scores of some rows on some columns: [rows, [`block_columns`]]
    pub(crate) score_block: Buffer,
}

impl Workspace {
    fn new(level: Level, sizes: Sizes) -> Workspace {
        let (tokens, stride) = (sizes.tokens(), sizes.stride());
        Workspace {
            level,
            stride,
            x: Buffer::new(tokens * stride),
            // Two narrow slices beside each other may both be padded, and a tile may read past the last row's values.
            projected: Buffer::new(tokens * (3 * stride + 2 * PANEL).max(sizes.heads * stride) + 2 * PANEL),
            mixed: Buffer::new(tokens * stride),
            y: Buffer::new(tokens * (stride + PANEL)),
            inner: Buffer::new(ROW_BLOCK * padded(sizes.ffn)),
            pairs: Buffer::new(tokens * stride / 2),
            scratch: AttentionScratch::new(sizes.length, sizes.head),
            score_block: Buffer::new(ROW_BLOCK * BLOCK_COLUMNS),
        }
    }
}

/// A pool of workspaces.
pub(crate) struct Workspaces {
    level: Level,
    sizes: Sizes,
    idle: Mutex<Vec<Workspace>>,
}

impl Workspaces {
    pub(crate) fn new(level: Level, sizes: Sizes) -> Workspaces {
        Workspaces { level, sizes, idle: Mutex::default() }
    }

    /// A workspace outside the pool.
    pub(crate) fn create(&self) -> Workspace {
        Workspace::new(self.level, self.sizes)
    }

    /// Lends a workspace, a new one if none is idle. A panic in `work` drops the workspace.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut workspace = taken.unwrap_or_else(|| self.create());
        let done = work(&mut workspace);
        idle().push(workspace);
        done
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }
}
