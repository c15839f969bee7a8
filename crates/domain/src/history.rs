use super::Item;

/// What a user did, as the model reads it: 1 to `max_len` items, oldest first.
///
/// The newest item stands at position `max_len - 1` of the model's position table, so a history of L items
/// uses positions `max_len - L ..= max_len - 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    items: Box<[Item]>,
}

/// Why a list of items is not a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// No item to read: such a request is a cold start.
    #[error("a history needs at least one known item")]
    Empty,
}

impl History {
    /// Keeps the last `max_len` of `items`, duplicates included.
    ///
    /// # Errors
    /// [`HistoryError::Empty`] where nothing is left.
    pub fn new(items: &[Item], max_len: usize) -> Result<History, HistoryError> {
        let kept = &items[items.len().saturating_sub(max_len)..];
        if kept.is_empty() {
            return Err(HistoryError::Empty);
        }
        Ok(History { items: kept.into() })
    }

    /// The items, oldest first.
    #[inline]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Number of items, at least 1. (There is no `is_empty`: a history never is.)
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a history is never empty")]
    pub fn len(&self) -> usize {
        self.items.len()
    }
}
