use super::panels::PANEL;
use super::simd::{Kernel, LINE, Level, RowMajor, Simd};

/// What a slice computed for the positions of one history, as far as later positions need it.
///
/// With a causal mask a position's state depends on the items up to it alone, so the states stay right when items follow.
/// Blocks before the last are read through their keys and values, and the last block through its inputs. A deeper slice
/// of the same width and embedding continues with the inputs of a shallower one. It may have been computed for fewer
/// positions.
#[derive(Clone, Default)]
pub(crate) struct KeptStates {
    /// Keys and values of each block that is not a last one, in order: [tokens, 2h]
    pub(crate) blocks: Vec<KeptRows>,
    /// The inputs of the last block of each depth of the space, in ascending order: [tokens, h]
    ///
    /// Those of a depth of one block are embeddings, which are cheaper to look up than to keep.
    pub(crate) inputs: Vec<KeptRows>,
}

/// Rows of one width that grow at the end.
#[derive(Clone, Default)]
pub(crate) struct KeptRows {
    width: usize,
    tokens: usize,
    /// The rows, then [`BEHIND`] zeros.
    values: Vec<f32>,
}

/// Values behind the last row: a tile reads whole vectors.
const BEHIND: usize = PANEL;

/// Room for so many further rows is allocated together: a session grows by an item or two a request.
const SPARE: usize = 8;

impl KeptStates {
    /// Without any position.
    pub(crate) fn new() -> KeptStates {
        KeptStates::default()
    }

    /// Makes room for `blocks` blocks and `depths` depths of a slice of `width` features.
    pub(crate) fn deepen(&mut self, width: usize, blocks: usize, depths: usize) {
        let empty = |width| move || KeptRows { width, tokens: 0, values: Vec::new() };
        self.blocks.resize_with(blocks.max(self.blocks.len()), empty(2 * width));
        self.inputs.resize_with(depths.max(self.inputs.len()), empty(width));
    }

    /// A copy of what belongs to the oldest `tokens` positions.
    pub(crate) fn prefix(&self, tokens: usize) -> KeptStates {
        let prefix = |rows: &Vec<KeptRows>| rows.iter().map(|rows| rows.prefix(tokens)).collect();
        KeptStates { blocks: prefix(&self.blocks), inputs: prefix(&self.inputs) }
    }

    /// How many positions the inputs of a depth's last block are kept for.
    pub(crate) fn tokens(&self, depth: usize) -> usize {
        self.inputs.get(depth).map_or(0, KeptRows::tokens)
    }

    /// Whether it has blocks that another one lacks.
    pub(crate) fn is_deeper(&self, other: &KeptStates) -> bool {
        self.blocks.len() > other.blocks.len()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.blocks.iter().chain(&self.inputs).map(KeptRows::bytes).sum::<usize>();
        rows + (self.blocks.capacity() + self.inputs.capacity()) * size_of::<KeptRows>() + size_of::<KeptStates>()
    }
}

impl KeptRows {
    /// Number of rows.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// All rows.
    pub(crate) fn rows(&self) -> RowMajor<'_> {
        RowMajor { data: &self.values, stride: self.width }
    }

    /// Prefetches all rows. Attention reads the part of one head after that of another, in steps of a row, which the
    /// processor's own prefetcher follows too late.
    pub(crate) fn prefetch(&self, level: Level) {
        level.run(PrefetchValues(&self.values));
    }

    /// Adds the first `count` rows, each as wide as these or wider.
    pub(crate) fn append(&mut self, rows: RowMajor<'_>, count: usize) {
        self.values.truncate(self.tokens * self.width);
        self.tokens += count;
        let needed = self.tokens * self.width + BEHIND;
        if needed > self.values.capacity() {
            self.values.reserve_exact(needed + SPARE * self.width - self.values.len());
        }
        for row in rows.data.chunks(rows.stride).take(count) {
            self.values.extend_from_slice(&row[..self.width]);
        }
        self.values.resize(needed, 0.0);
    }

    fn prefix(&self, tokens: usize) -> KeptRows {
        let mut copy = KeptRows { width: self.width, tokens: 0, values: Vec::new() };
        let tokens = tokens.min(self.tokens);
        if tokens > 0 {
            copy.append(self.rows(), tokens);
        }
        copy
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<f32>()
    }
}

struct PrefetchValues<'a>(&'a [f32]);

impl Kernel for PrefetchValues<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for at in (0..self.0.len()).step_by(LINE) {
            simd.prefetch(self.0, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32]) -> RowMajor<'_> {
        RowMajor { data: values, stride: 3 }
    }

    #[test]
    fn rows_grow_and_a_copy_of_the_oldest_grows_apart() {
        let mut kept = KeptStates::new();
        kept.deepen(2, 0, 1);
        kept.inputs[0].append(rows(&[1.0, 2.0, 9.0, 3.0, 4.0, 9.0]), 2);
        kept.inputs[0].append(rows(&[5.0, 6.0, 9.0]), 1);
        let mut branch = kept.prefix(1);
        branch.inputs[0].append(rows(&[7.0, 8.0]), 1);
        assert_eq!((kept.tokens(0), branch.tokens(0), kept.tokens(1)), (3, 2, 0));
        assert_eq!(kept.inputs[0].rows().data[..7], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0]);
        assert_eq!(branch.inputs[0].rows().data[..5], [1.0, 2.0, 7.0, 8.0, 0.0]);
        assert_eq!(kept.inputs[0].rows().data.len(), 6 + BEHIND);
    }

    #[test]
    fn bytes_are_those_of_the_allocations() {
        let mut kept = KeptStates::new();
        let empty = kept.bytes();
        kept.deepen(2, 1, 1);
        let room = kept.bytes();
        assert!(room >= empty + 2 * size_of::<KeptRows>());
        kept.blocks[0].append(RowMajor { data: &[0.0; 400], stride: 4 }, 100);
        assert_eq!(kept.bytes() - room, 4 * kept.blocks[0].values.capacity());
        assert!(kept.bytes() - room >= 4 * 400);
    }
}
