use super::driver::CudaError;
use super::sizes::KernelSizes;
use canet_domain::{Candidates, History, Item, ItemSet, Ranked, Selection, Slice, TopK, top_k};
use canet_model::Query;

/// Words of a history's record, which `kernels/history.cuh` reads.
const RECORD: usize = 8;
/// The most items that the device picks a row. If a row asks for more, all its scores are copied.
const MAX_PICKED: usize = 1024;
/// Places for scores that equal the last picked score.
const TIES: usize = 32;

/// The histories of a batch: a record for each, then the items of all.
pub(crate) struct Batch {
    pub(crate) words: Vec<u32>,
    pub(crate) rows: usize,
    /// The width of the widest slice.
    pub(crate) width: usize,
}

impl Batch {
    /// Writes rows in this order. The model reads only the newest items of a history that is longer than its `max_len`.
    ///
    /// # Errors
    /// [`CudaError`] if an item is not in the model's tables, which kernels index by it.
    pub(crate) fn new<'a>(
        rows: impl ExactSizeIterator<Item = (Slice, &'a History)>,
        sizes: &KernelSizes,
    ) -> Result<Batch, CudaError> {
        let (count, max_len, columns) = (rows.len(), sizes.max_len, sizes.columns);
        let (mut words, mut tokens, mut width) = (Vec::with_capacity(count * (RECORD + max_len)), Vec::new(), 0);
        for (slice, history) in rows {
            let items = history.items();
            let items = &items[items.len().saturating_sub(max_len)..];
            let record = [tokens.len(), items.len(), slice.hidden, slice.layers, slice.embedding, 0, 0, 0];
            words.extend(record.map(|size| size as u32));
            tokens.extend(items.iter().map(|item| item.id()));
            if let Some(unknown) = items.iter().find(|item| item.id() as usize >= columns) {
                return Err(CudaError(format!("item {} is not one of the model's {}", unknown.id(), columns - 1)));
            }
            width = width.max(slice.hidden);
        }
        words.extend(tokens);
        Ok(Batch { words, rows: count, width })
    }

    /// The word at which the items begin.
    pub(crate) fn tokens(&self) -> usize {
        self.rows * RECORD
    }
}

/// Whether the host must see all scores of a row.
pub(crate) fn needs_every_score(selection: &Selection<'_>) -> bool {
    matches!(selection.candidates, Candidates::Only(_)) || selection.k > MAX_PICKED
}

/// What the rows of a batch ask for, as words: for each row, the place where its excluded columns begin; the end of the
/// last row's; for each row, the place where the bits of its set begin; then the columns and the bits.
pub(crate) struct SelectionBatch {
    pub(crate) words: Vec<u32>,
    /// The items to pick a row, or 0 if the host [needs every score](needs_every_score).
    pub(crate) picked: usize,
    rows: usize,
}

/// The place of a row that has no set.
const NO_SET: u32 = u32::MAX;

impl SelectionBatch {
    pub(crate) fn new<'a>(
        selections: impl ExactSizeIterator<Item = &'a Selection<'a>>,
        columns: usize,
    ) -> SelectionBatch {
        let rows = selections.len();
        let (mut places, mut listed, mut sets) = (Vec::with_capacity(2 * rows + 1), Vec::new(), Vec::new());
        let (mut picked, mut whole) = (1, false);
        for selection in selections {
            places.push(listed.len() as u32);
            // Column 0 is padding.
            listed.push(0);
            // Kernels write to these columns.
            listed.extend(selection.excluded.iter().map(|item| item.id()).filter(|id| (*id as usize) < columns));
            picked = picked.max(selection.k);
            whole |= needs_every_score(selection);
            sets.push(match selection.candidates {
                Candidates::Set(set) => Some(set),
                Candidates::All | Candidates::Only(_) => None,
            });
        }
        places.push(listed.len() as u32);
        // Rows that share a set share its bits.
        let mut written: Vec<(&ItemSet, u32)> = Vec::new();
        for set in sets {
            let known = |set: &ItemSet| written.iter().find(|(known, _)| std::ptr::eq(*known, set));
            let place = match set {
                None => NO_SET,
                Some(set) => match known(set) {
                    Some((_, place)) => *place,
                    None => {
                        let place = listed.len() as u32;
                        let halves = set.words().iter().flat_map(|word| [*word as u32, (*word >> 32) as u32]);
                        // Kernels read a bit for each column.
                        listed.extend(halves.chain(std::iter::repeat(0)).take(columns.div_ceil(32)));
                        written.push((set, place));
                        place
                    }
                },
            };
            places.push(place);
        }
        places.extend(listed);
        SelectionBatch { words: places, picked: if whole { 0 } else { picked }, rows }
    }

    /// The word at which the places of the sets begin.
    pub(crate) fn sets(&self) -> usize {
        self.rows + 1
    }

    /// The word at which the columns and the bits begin.
    pub(crate) fn columns(&self) -> usize {
        2 * self.rows + 1
    }

    /// Places for picked items a row.
    pub(crate) fn places(&self) -> usize {
        self.picked + TIES
    }

    /// Words that `select` writes a row.
    pub(crate) fn row_words(&self) -> usize {
        1 + 2 * self.places()
    }

    /// A row's ranking from the words that `select` wrote. `None` if more scores were equal than there are places.
    pub(crate) fn ranking(&self, found: &[u32], query: &Query<'_>) -> Option<Vec<Ranked>> {
        let (count, picked) = found.split_first()?;
        let (scores, columns) = picked.split_at(self.places());
        let count = *count as usize;
        if count > self.places() {
            return None;
        }
        let mut best = TopK::new(&query.selection);
        for (score, column) in scores.iter().zip(columns).take(count) {
            if let Some(item) = Item::new(*column) {
                best.offer(item, f32::from_bits(*score));
            }
        }
        Some(best.into_ranking())
    }
}

/// A row's ranking from all its scores.
pub(crate) fn rank_every_score(scores: &[u32], query: &Query<'_>) -> Vec<Ranked> {
    let scores: Vec<f32> = scores.iter().map(|score| f32::from_bits(*score)).collect();
    top_k(&scores, &query.selection)
}
