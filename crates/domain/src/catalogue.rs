use std::collections::HashMap;

use crate::Item;

/// The items that a model knows: external ids, titles and popularity. Titles are optional.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// External id of item `i` at `i - 1`.
    ids: Vec<Box<str>>,
    lookup: HashMap<Box<str>, Item>,
    titles: HashMap<Item, Box<str>>,
    /// Interactions with item `i` in the training data at `i - 1`.
    popularity: Vec<u64>,
    by_popularity: Vec<Item>,
}

/// Why lists are not a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// There are no items.
    #[error("the catalogue is empty")]
    Empty,
    /// There are more items than dense ids.
    #[error("{0} items are too many: at most {max} are allowed", max = Catalogue::MAX_ITEMS)]
    TooMany(usize),
    /// An external id occurs twice.
    #[error("item id {0:?} stands in the catalogue twice")]
    Repeated(String),
    /// A line-based file cannot hold an external id.
    #[error("item id {0:?} is empty or holds a tab or a line break")]
    BadId(String),
    /// The number of popularity counts is not the number of items.
    #[error("{counts} popularity counts for {items} items")]
    Popularity {
        /// Number of counts.
        counts: usize,
        /// Number of items.
        items: usize,
    },
}

impl Catalogue {
    /// Limit on the number of items. With it, dense ids, the padding and the authors' unused row fit into 31 bits.
    pub const MAX_ITEMS: usize = (1 << 31) - 3;

    /// Limit on the length of an external id, in bytes.
    pub const MAX_ID_BYTES: usize = 1024;

    /// Limit on the length of a title, in bytes.
    pub const MAX_TITLE_BYTES: usize = 8192;

    /// A catalogue from external ids in dense order and their popularity counts.
    ///
    /// # Errors
    /// [`CatalogueError`] if there is no id, an id repeats or is unusable, or the lengths differ.
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

    /// Adds titles by external id. It ignores unknown ids.
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

    /// The item's title, if it is known.
    pub fn title(&self, item: Item) -> Option<&str> {
        self.titles.get(&item).map(|title| &**title)
    }

    /// The items whose titles are known, in no order.
    pub fn titles(&self) -> impl Iterator<Item = (Item, &str)> {
        self.titles.iter().map(|(item, title)| (*item, &**title))
    }

    /// Interactions of each item in the training data, in dense order.
    pub fn popularity(&self) -> &[u64] {
        &self.popularity
    }

    /// Every item, the most popular first. The lower item wins a tie.
    pub fn by_popularity(&self) -> &[Item] {
        &self.by_popularity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(ids: &[&str], popularity: &[u64]) -> Result<Catalogue, CatalogueError> {
        Catalogue::new(ids.iter().map(|id| (*id).into()).collect(), popularity.to_vec())
    }

    #[test]
    fn ids_titles_and_popularity_are_found() {
        let titles = [("b", "B"), ("z", "Z")].map(|(id, title)| (id.into(), title.into()));
        let catalogue = catalogue(&["a", "b", "c"], &[1, 5, 5]).unwrap().with_titles(titles);
        let item = |id| catalogue.item(id).unwrap();
        assert_eq!((item("c").id(), catalogue.id(item("c")), catalogue.item("z")), (3, "c", None));
        assert_eq!((catalogue.title(item("a")), catalogue.title(item("b"))), (None, Some("B")));
        assert_eq!(catalogue.by_popularity(), [item("b"), item("c"), item("a")]);
    }

    #[test]
    fn unusable_lists_are_refused() {
        assert_eq!(catalogue(&[], &[]).unwrap_err(), CatalogueError::Empty);
        assert_eq!(catalogue(&["a", "a"], &[0, 0]).unwrap_err(), CatalogueError::Repeated("a".to_owned()));
        for id in ["", "a\tb", "a\n", "a\r"] {
            assert_eq!(catalogue(&[id], &[0]).unwrap_err(), CatalogueError::BadId(id.to_owned()));
        }
        assert_eq!(catalogue(&["a"], &[]).unwrap_err(), CatalogueError::Popularity { counts: 0, items: 1 });
    }
}
