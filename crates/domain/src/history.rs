use std::num::NonZeroU32;

use crate::Window;

/// An item's dense id inside the model, from 1 to N. Id 0 is padding and not an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item(NonZeroU32);

impl Item {
    /// The item of a dense id; `None` for the padding.
    #[inline]
    pub fn new(id: u32) -> Option<Item> {
        NonZeroU32::new(id).map(Item)
    }

    /// The dense id.
    #[inline]
    pub fn id(self) -> u32 {
        self.0.get()
    }

    /// The item's column in a row of scores. Column 0 is padding.
    #[inline]
    pub fn column(self) -> usize {
        self.0.get() as usize
    }
}

/// A user's items as the model reads them: 1 to `max_len` items, oldest first.
///
/// ```
/// use canet_domain::{History, Item};
///
/// let items: Vec<Item> = [7, 9, 7].into_iter().filter_map(Item::new).collect();
/// let history = History::new(&items, 2)?;
/// assert_eq!(history.items(), &items[1..]);
/// assert!(History::new(&[], 2).is_err());
/// # Ok::<(), canet_domain::HistoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    items: Box<[Item]>,
    owner: u64,
}

/// Why a list of items is not a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The list is empty. Such a request is a cold start.
    #[error("a history needs at least one known item")]
    Empty,
}

impl History {
    /// The last `max_len` of `items`, duplicates included.
    ///
    /// # Errors
    /// [`HistoryError::Empty`] if there are none.
    pub fn new(items: &[Item], max_len: usize) -> Result<History, HistoryError> {
        let kept = &items[items.len().saturating_sub(max_len)..];
        if kept.is_empty() {
            return Err(HistoryError::Empty);
        }
        Ok(History { items: kept.into(), owner: 0 })
    }

    /// The items of a window on `items`, duplicates included. `before` says how many earlier items of the user's history
    /// are missing from `items`.
    ///
    /// # Errors
    /// [`HistoryError::Empty`] if there are none.
    pub fn in_window(items: &[Item], window: Window, before: usize) -> Result<History, HistoryError> {
        History::new(window.of(items, before), window.max_len)
    }

    /// The history as that of an owner.
    ///
    /// What a forward keeps of a history serves later histories of the same owner alone. Otherwise the time and the cost of an
    /// answer would show what others had asked. Histories without an owner, 0, share what is kept of them.
    pub fn of_owner(self, owner: u64) -> History {
        History { owner, ..self }
    }

    /// Whose it is; 0 if it has no owner.
    #[inline]
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// The items, oldest first.
    #[inline]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Number of items, at least 1.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a history is never empty")]
    pub fn len(&self) -> usize {
        self.items.len()
    }
}
