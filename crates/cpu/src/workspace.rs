use std::sync::{Mutex, PoisonError};

use super::attention::Scratch;
use super::buffer::Buffer;
use super::panels::{PANEL, padded};

/// Rows that pass through a feed-forward network together: four of the tallest tiles. What they need stays in the
/// second cache.
pub(crate) const ROWS: usize = 56;

/// Tokens of short histories that run together; a longer history runs alone.
const TOKENS: usize = 128;

/// Columns of scores that are computed before they are looked at, where rows are many.
pub(crate) const BOARD: usize = 8 * PANEL;

/// Rows up to which a board holds as many scores in all: each look interrupts the reading of the output layer.
const FEW: usize = 16;

/// Columns of some rows' scores that are computed before they are looked at.
pub(crate) fn board_width(rows: usize) -> usize {
    BOARD * (FEW / rows.max(1)).max(1)
}

/// The largest sizes of all that a forward runs.
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
    /// Most tokens that run together.
    pub(crate) fn tokens(&self) -> usize {
        self.length.max(TOKENS)
    }

    /// Distance of two rows of activations.
    pub(crate) fn stride(&self) -> usize {
        padded(self.width)
    }
}

/// The buffers of one thread, made once.
pub(crate) struct Workspace {
    /// Distance of two rows of `x`, `mixed`, `y` and `newest`.
    pub(crate) stride: usize,
    /// Embeddings, then what a block takes and gives: [tokens, stride]
    pub(crate) x: Buffer,
    /// Queries, keys and values, in rows as long as the slice's: [tokens, 3 stride]; of newest positions a row of each
    /// head: [tokens, heads, stride]
    pub(crate) projected: Buffer,
    /// What attention mixed: [tokens, stride]
    pub(crate) mixed: Buffer,
    /// What a sublayer gives: [tokens, stride], with room for a panel more a row
    pub(crate) y: Buffer,
    /// The inner layer of a feed-forward network: [ROWS, f]
    pub(crate) inner: Buffer,
    /// What a product reads, as pairs of bfloat16: [tokens, stride / 2]
    pub(crate) pairs: Buffer,
    pub(crate) scratch: Scratch,
    /// Scores of some rows on some columns: [rows, [`board_width`]]
    pub(crate) board: Buffer,
}

impl Workspace {
    pub(crate) fn new(sizes: Sizes) -> Workspace {
        let (tokens, stride) = (sizes.tokens(), sizes.stride());
        Workspace {
            stride,
            x: Buffer::new(tokens * stride),
            // Two narrow slices beside each other may be padded twice; and a tile over the last row's values may read
            // beyond them.
            projected: Buffer::new(tokens * (3 * stride + 2 * PANEL).max(sizes.heads * stride) + 2 * PANEL),
            mixed: Buffer::new(tokens * stride),
            y: Buffer::new(tokens * (stride + PANEL)),
            inner: Buffer::new(ROWS * padded(sizes.ffn)),
            pairs: Buffer::new(tokens * stride / 2),
            scratch: Scratch::new(sizes.length, sizes.head),
            board: Buffer::new(ROWS * BOARD),
        }
    }
}

/// Workspaces that no thread uses, to be used again.
pub(crate) struct Workspaces {
    sizes: Sizes,
    idle: Mutex<Vec<Workspace>>,
}

impl Workspaces {
    pub(crate) fn new(sizes: Sizes) -> Workspaces {
        Workspaces { sizes, idle: Mutex::default() }
    }

    /// Lends one, a new one where all are in use. One that a panic keeps is lost.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut workspace = taken.unwrap_or_else(|| Workspace::new(self.sizes));
        let done = work(&mut workspace);
        idle().push(workspace);
        done
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }
}
