use std::collections::HashMap;

use super::Item;

/// The items that a model knows: external ids, titles where known, and popularity.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// External id of item `i` at `i - 1`.
    ids: Vec<Box<str>>,
    lookup: HashMap<Box<str>, Item>,
    titles: HashMap<Item, Box<str>>,
    /// Interactions of item `i` in the training data at `i - 1`.
    popularity: Vec<u64>,
    by_popularity: Vec<Item>,
}

/// Why lists do not make a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// No item at all.
    #[error("the catalogue is empty")]
    Empty,
    /// More items than dense ids.
    #[error("{0} items are too many: at most {max} are allowed", max = Catalogue::MAX_ITEMS)]
    TooMany(usize),
    /// An external id twice.
    #[error("item id {0:?} stands in the catalogue twice")]
    Repeated(String),
    /// An external id that a line-based file cannot hold.
    #[error("item id {0:?} is empty or holds a tab or a line break")]
    BadId(String),
    /// As many popularity counts as items are needed.
    #[error("{counts} popularity counts for {items} items")]
    Popularity {
        /// Counts given.
        counts: usize,
        /// Items given.
        items: usize,
    },
}

impl Catalogue {
    /// Bound on the catalogue: dense ids, the padding and the authors' unused row stay within 31 bits.
    pub const MAX_ITEMS: usize = (1 << 31) - 3;

    /// A catalogue from external ids in dense order and as many popularity counts.
    ///
    /// # Errors
    /// [`CatalogueError`] where ids repeat, are unusable, or the lists' lengths differ.
    pub fn new(ids: Vec<Box<str>>, popularity: Vec<u64>) -> Result<Catalogue, CatalogueError> {
        if ids.is_empty() {
            return Err(CatalogueError::Empty);
        }
        if ids.len() > Catalogue::MAX_ITEMS {
            return Err(CatalogueError::TooMany(ids.len()));
        }
        if popularity.len() != ids.len() {
            return Err(CatalogueError::Popularity { counts: popularity.len(), items: ids.len() });
        }
        let mut lookup = HashMap::with_capacity(ids.len());
        for (item, id) in (1..).map_while(Item::new).zip(&ids) {
            if id.is_empty() || id.contains(['\t', '\n', '\r']) {
                return Err(CatalogueError::BadId(id.to_string()));
            }
            if lookup.insert(id.clone(), item).is_some() {
                return Err(CatalogueError::Repeated(id.to_string()));
            }
        }
        let mut by_popularity: Vec<Item> = (1..).map_while(Item::new).take(ids.len()).collect();
        by_popularity.sort_by_key(|item| (std::cmp::Reverse(popularity[item.column() - 1]), *item));
        Ok(Catalogue { ids, lookup, titles: HashMap::new(), popularity, by_popularity })
    }

    /// The same catalogue with titles, which are optional: ids that it does not know are left out.
    pub fn with_titles(mut self, titles: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Catalogue {
        self.titles =
            titles.into_iter().filter_map(|(id, title)| self.lookup.get(&id).map(|item| (*item, title))).collect();
        self
    }

    /// Number of items, N, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a catalogue is never empty")]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The item of an external id.
    pub fn item(&self, id: &str) -> Option<Item> {
        self.lookup.get(id).copied()
    }

    /// The external id of an item of this catalogue.
    pub fn id(&self, item: Item) -> &str {
        &self.ids[item.column() - 1]
    }

    /// External ids in dense order.
    pub fn ids(&self) -> &[Box<str>] {
        &self.ids
    }

    /// The item's title, where one is known.
    pub fn title(&self, item: Item) -> Option<&str> {
        self.titles.get(&item).map(|title| &**title)
    }

    /// Interactions of each item in the training data, in dense order.
    pub fn popularity(&self) -> &[u64] {
        &self.popularity
    }

    /// Every item, the most popular first; ties go to the lower item.
    pub fn by_popularity(&self) -> &[Item] {
        &self.by_popularity
    }
}
