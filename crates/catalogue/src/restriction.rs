use std::ops::Deref;
use std::sync::Arc;

use canet_domain::{Item, ItemSet};

use super::expression::{FilterExpression, MaxPer};
use super::filter::{Filter, UnknownName};
use super::greedy::{Greedy, Quotas};
use super::index::ItemIndex;
use super::pool::SetPool;

/// What a catalogue file, and a request's filter and quotas, allow in an answer.
#[derive(Clone, Debug)]
pub struct Restriction {
    index: Arc<ItemIndex>,
    filter: Option<Filter>,
    quotas: Option<Quotas>,
}

impl Restriction {
    /// The restriction of a request. `None` if every item is allowed.
    ///
    /// # Errors
    /// [`UnknownName`] if the file lacks a key or a value.
    pub fn new(
        index: &Arc<ItemIndex>,
        filter: Option<&FilterExpression>,
        max_per: Option<&MaxPer>,
    ) -> Result<Option<Restriction>, UnknownName> {
        let filter = filter.filter(|filter| !filter.is_empty());
        let max_per = max_per.filter(|max_per| !max_per.is_empty());
        let restriction = Restriction {
            filter: filter.map(|filter| Filter::new(filter, index, "filter")).transpose()?,
            quotas: max_per.map(|max_per| Quotas::new(max_per, index)).transpose()?,
            index: Arc::clone(index),
        };
        let restricts = restriction.limits_items() || restriction.quotas.is_some();
        Ok(restricts.then_some(restriction))
    }

    /// The index that names the items.
    pub fn index(&self) -> &Arc<ItemIndex> {
        &self.index
    }

    /// Whether some items are not allowed, whatever else is in the answer.
    pub fn limits_items(&self) -> bool {
        self.filter.is_some() || self.index.hidden() > 0
    }

    /// Whether an item is allowed.
    pub fn allows(&self, item: Item) -> bool {
        self.index.visible().contains(item) && self.filter.as_ref().is_none_or(|filter| filter.keeps(&self.index, item))
    }

    /// The allowed items.
    pub fn allowed(&self, pool: &mut SetPool) -> AllowedSet<'_> {
        let Some(filter) = &self.filter else { return AllowedSet::Visible(self.index.visible()) };
        let mut kept = filter.evaluate(&self.index, pool);
        if self.index.hidden() > 0 {
            kept.intersect_with(self.index.visible());
        }
        AllowedSet::Kept(kept)
    }

    /// Whether the request limits how many items have one value.
    pub fn has_quotas(&self) -> bool {
        self.quotas.is_some()
    }

    /// Applies the quotas, if there are any.
    pub fn greedy(&self) -> Option<Greedy<'_>> {
        self.quotas.as_ref().map(|quotas| Greedy::new(quotas, &self.index))
    }
}

/// The items that a restriction allows.
#[derive(Debug)]
pub enum AllowedSet<'a> {
    /// All that are not hidden.
    Visible(&'a ItemSet),
    /// Those that a filter keeps.
    Kept(ItemSet),
}

impl AllowedSet<'_> {
    /// The set itself. It copies the visible items, which are shared.
    pub fn into_set(self) -> ItemSet {
        match self {
            AllowedSet::Visible(set) => set.clone(),
            AllowedSet::Kept(set) => set,
        }
    }

    /// Gives the set back to the pool that it came from.
    pub fn give_back(self, pool: &mut SetPool) {
        if let AllowedSet::Kept(set) = self {
            pool.give_back(set);
        }
    }
}

impl Deref for AllowedSet<'_> {
    type Target = ItemSet;

    fn deref(&self) -> &ItemSet {
        match self {
            AllowedSet::Visible(set) => set,
            AllowedSet::Kept(set) => set,
        }
    }
}

#[cfg(test)]
mod tests;
