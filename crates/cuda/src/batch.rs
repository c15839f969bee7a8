use super::driver::CudaError;
use super::sizes::KernelSizes;
use canet_domain::{Candidates, History, Item, Ranked, Selection, Slice, TopK, top_k};
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
    !matches!(selection.candidates, Candidates::All) || selection.k > MAX_PICKED
}

/// What the rows of a batch ask for, as words: for each row, the place where its excluded columns begin; the end of the
/// last row's; then the columns.
pub(crate) struct SelectionBatch {
    pub(crate) words: Vec<u32>,
    /// The items to pick a row, or 0 if the host [needs every score](needs_every_score).
    pub(crate) picked: usize,
}

impl SelectionBatch {
    pub(crate) fn new<'a>(
        selections: impl ExactSizeIterator<Item = &'a Selection<'a>>,
        columns: usize,
    ) -> SelectionBatch {
        let (mut places, mut excluded) = (Vec::with_capacity(selections.len() + 1), Vec::new());
        let (mut picked, mut whole) = (1, false);
        for selection in selections {
            places.push(excluded.len() as u32);
            // Column 0 is padding.
            excluded.push(0);
            // Kernels write to these columns.
            excluded.extend(selection.excluded.iter().map(|item| item.id()).filter(|id| (*id as usize) < columns));
            picked = picked.max(selection.k);
            whole |= needs_every_score(selection);
        }
        places.push(excluded.len() as u32);
        places.extend(excluded);
        SelectionBatch { words: places, picked: if whole { 0 } else { picked } }
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
