use std::sync::Arc;

use canet_data::{ItemKey, ItemTable};
use canet_domain::{Catalogue, Item, ItemSet};
use hashbrown::HashMap;

/// A value with at least one item in so many has a set, which takes no more memory than its list.
const DENSE_ONE_IN: usize = 32;

/// The place of an item that the file lacks.
const NOT_IN_FILE: u32 = u32::MAX;

/// A catalogue file over the items of one model.
///
/// An item that the file lacks is visible and has no values. A hidden item is in no answer, but counts in histories.
///
/// The index has few allocations, so that a request that holds the last reference to an old one frees it at once.
#[derive(Debug)]
pub struct ItemIndex {
    table: Arc<ItemTable>,
    /// The place in the file of item `i` at `i - 1`.
    places: Vec<u32>,
    visible: ItemSet,
    keys: Vec<KeyIndex>,
    hidden: usize,
    missing: usize,
}

/// The items of each value of a key.
#[derive(Debug)]
struct KeyIndex {
    /// The ids of the first value's items, ascending, then those of the next one, and so on.
    items: Vec<u32>,
    /// Where each value's items end.
    ends: Vec<u32>,
    /// The sets of values with many items.
    sets: HashMap<u32, ItemSet>,
}

/// A key of a catalogue file, for a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySummary<'a> {
    /// The name.
    pub name: &'a str,
    /// Every value, ascending.
    pub values: &'a [Box<str>],
}

impl ItemIndex {
    /// Indexes a file for the items of a model. Ids that the model does not know are [counted](Self::unknown).
    pub fn new(table: Arc<ItemTable>, catalogue: &Catalogue) -> ItemIndex {
        let mut places = vec![NOT_IN_FILE; catalogue.len()];
        let mut visible = ItemSet::full(catalogue.len());
        let mut hidden = 0;
        // A file has fewer places than `u32::MAX`: its ids are numbered as items are.
        for (place, row) in (0..table.len()).zip(0_u32..) {
            let Some(item) = catalogue.item(table.id(place)) else { continue };
            places[item.column() - 1] = row;
            if table.is_hidden(place) {
                visible.remove(item);
                hidden += 1;
            }
        }
        let missing = places.iter().filter(|place| **place == NOT_IN_FILE).count();
        let keys = table.keys().iter().map(|key| KeyIndex::new(key, &places)).collect();
        ItemIndex { table, places, visible, keys, hidden, missing }
    }

    /// The item's title in the file.
    pub fn title(&self, item: Item) -> Option<&str> {
        self.table.title(self.place(item)?)
    }

    /// The items that answers may have.
    pub fn visible(&self) -> &ItemSet {
        &self.visible
    }

    /// Number of the model's items that are hidden.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Number of the model's items that the file lacks.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Number of the file's ids that the model does not know.
    pub fn unknown(&self) -> usize {
        self.table.len() - (self.places.len() - self.missing)
    }

    /// The file.
    pub fn table(&self) -> &Arc<ItemTable> {
        &self.table
    }

    /// The keys, in the order of the file.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = KeySummary<'_>> {
        self.table.keys().iter().map(|key| KeySummary { name: key.name(), values: key.values() })
    }

    /// Number of items.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The place of a key.
    pub(crate) fn key(&self, name: &str) -> Option<usize> {
        self.table.keys().iter().position(|key| key.name() == name)
    }

    /// The names of a key's values, ascending.
    pub(crate) fn values(&self, key: usize) -> &[Box<str>] {
        self.table.keys()[key].values()
    }

    /// The values of an item, ascending.
    pub(crate) fn values_of(&self, key: usize, item: Item) -> &[u32] {
        self.place(item).map_or(&[], |place| self.table.keys()[key].values_of(place))
    }

    /// Adds the items of a value to a set.
    pub(crate) fn add_items(&self, key: usize, value: u32, to: &mut ItemSet) {
        let key = &self.keys[key];
        match key.sets.get(&value) {
            Some(set) => to.union_with(set),
            None => key.items(value).for_each(|item| to.insert(item)),
        }
    }

    /// Removes the items of a value from a set.
    pub(crate) fn remove_items(&self, key: usize, value: u32, from: &mut ItemSet) {
        let key = &self.keys[key];
        match key.sets.get(&value) {
            Some(set) => from.subtract(set),
            None => key.items(value).for_each(|item| from.remove(item)),
        }
    }

    fn place(&self, item: Item) -> Option<usize> {
        let place = self.places.get(item.column() - 1).copied().filter(|place| *place != NOT_IN_FILE)?;
        Some(place as usize)
    }
}

impl KeyIndex {
    fn new(key: &ItemKey, places: &[u32]) -> KeyIndex {
        let of_items = || {
            let items = (1..).map_while(Item::new).zip(places);
            items
                .filter(|(_, place)| **place != NOT_IN_FILE)
                .flat_map(|(item, place)| key.values_of(*place as usize).iter().map(move |value| (item, *value)))
        };
        // First where each value's items begin, then, as they are filled in, where they end.
        let mut ends = vec![0_u32; key.values().len()];
        of_items().for_each(|(_, value)| ends[value as usize] += 1);
        let mut total = 0;
        for end in &mut ends {
            total += std::mem::replace(end, total);
        }
        let mut items = vec![0; total as usize];
        for (item, value) in of_items() {
            let end = &mut ends[value as usize];
            items[*end as usize] = item.id();
            *end += 1;
        }
        let mut index = KeyIndex { items, ends, sets: HashMap::new() };
        for value in 0..index.ends.len() as u32 {
            if index.ids(value).len() * DENSE_ONE_IN >= places.len() {
                let mut set = ItemSet::empty(places.len());
                index.items(value).for_each(|item| set.insert(item));
                index.sets.insert(value, set);
            }
        }
        index
    }

    /// The items of a value, ascending.
    fn items(&self, value: u32) -> impl Iterator<Item = Item> {
        self.ids(value).iter().filter_map(|id| Item::new(*id))
    }

    /// Their ids.
    fn ids(&self, value: u32) -> &[u32] {
        let value = value as usize;
        let start = if value == 0 { 0 } else { self.ends[value - 1] };
        &self.items[start as usize..self.ends[value] as usize]
    }
}
