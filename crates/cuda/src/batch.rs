use super::machine::CudaError;
use canet_domain::{Candidates, History, Item, Ranked, Selection, Slice, TopK, top_k};
use canet_model::Query;

/// Words of a history's record, as `kernels/history.cuh` reads it.
const RECORD: usize = 8;
/// Most items that are picked on the device; of rows that ask for more every score is copied.
const MOST_PICKED: usize = 1024;
/// Places for scores that equal the last one picked.
const TIES: usize = 32;

/// A batch's histories in one run of words: a record a history, then all items.
pub(crate) struct Batch {
    pub(crate) words: Vec<u32>,
    pub(crate) rows: usize,
    /// The widest slice.
    pub(crate) width: usize,
}

impl Batch {
    /// Rows in this order; what a history is longer than `max_len` is cut.
    ///
    /// # Errors
    /// [`CudaError`] where an item is not among `columns`: kernels read tables by it.
    pub(crate) fn new<'a>(
        rows: impl ExactSizeIterator<Item = (Slice, &'a History)>,
        (max_len, columns): (usize, usize),
    ) -> Result<Batch, CudaError> {
        let count = rows.len();
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

    /// The first word of the items.
    pub(crate) fn tokens(&self) -> usize {
        self.rows * RECORD
    }
}

/// Whether a row's scores are copied and looked at on the host.
pub(crate) fn whole_row(selection: &Selection<'_>) -> bool {
    matches!(selection.candidates, Candidates::Only(_)) || selection.k > MOST_PICKED
}

/// What a batch's rows ask for, in words: where each row's excluded columns begin and the last one's end, then they.
pub(crate) struct Wanted {
    pub(crate) words: Vec<u32>,
    /// Items to pick a row; none where the rows are [looked at whole](whole_row).
    pub(crate) picked: usize,
}

impl Wanted {
    pub(crate) fn new<'a>(selections: impl ExactSizeIterator<Item = &'a Selection<'a>>, columns: usize) -> Wanted {
        let (mut places, mut excluded) = (Vec::with_capacity(selections.len() + 1), Vec::new());
        let (mut picked, mut whole) = (1, false);
        for selection in selections {
            places.push(excluded.len() as u32);
            // Column 0 is padding.
            excluded.push(0);
            // Kernels write at these columns.
            excluded.extend(selection.excluded.iter().map(|item| item.id()).filter(|id| (*id as usize) < columns));
            picked = picked.max(selection.k);
            whole |= whole_row(selection);
        }
        places.push(excluded.len() as u32);
        places.extend(excluded);
        Wanted { words: places, picked: if whole { 0 } else { picked } }
    }

    /// Places for picked items a row.
    pub(crate) fn places(&self) -> usize {
        self.picked + TIES
    }

    /// Words that `select` writes a row.
    pub(crate) fn found(&self) -> usize {
        1 + 2 * self.places()
    }

    /// A row's ranking from what `select` found, none where more scores were equal than it had places for.
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
pub(crate) fn whole(scores: &[u32], query: &Query<'_>) -> Vec<Ranked> {
    let scores: Vec<f32> = scores.iter().map(|score| f32::from_bits(*score)).collect();
    top_k(&scores, &query.selection)
}
