use crate::Item;

/// Items in a word.
const WORD: usize = u64::BITS as usize;

/// A set of a catalogue's items, as one bit an item.
///
/// ```
/// use canet_domain::{Item, ItemSet};
///
/// let mut set = ItemSet::empty(70);
/// let item = |id| Item::new(id).unwrap();
/// set.insert(item(3));
/// set.insert(item(70));
/// // The catalogue has no item 71.
/// set.insert(item(71));
/// assert_eq!(set.iter().collect::<Vec<_>>(), [item(3), item(70)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemSet {
    /// The bit of an item is that of its column, so the lowest bit is the padding's and never set.
    words: Vec<u64>,
    items: usize,
}

impl ItemSet {
    /// No item of a catalogue of `items`.
    pub fn empty(items: usize) -> ItemSet {
        ItemSet { words: vec![0; words(items)], items }
    }

    /// Every item of a catalogue of `items`.
    pub fn full(items: usize) -> ItemSet {
        let mut set = ItemSet { words: vec![!0; words(items)], items };
        set.trim();
        set
    }

    /// Number of items of the catalogue.
    pub fn catalogue_len(&self) -> usize {
        self.items
    }

    /// Whether the set has the item.
    #[inline]
    pub fn contains(&self, item: Item) -> bool {
        let (word, bit) = place(item);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds an item. An item that the catalogue lacks is ignored.
    #[inline]
    pub fn insert(&mut self, item: Item) {
        let (word, bit) = place(item);
        if item.column() <= self.items
            && let Some(word) = self.words.get_mut(word)
        {
            *word |= bit;
        }
    }

    /// Removes an item.
    #[inline]
    pub fn remove(&mut self, item: Item) {
        let (word, bit) = place(item);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Number of items of the set. It counts bits, so a large catalogue takes microseconds.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set has no item.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The items, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Item> {
        self.words.iter().enumerate().flat_map(|(place, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Item::new(u32::try_from(place * WORD + bit).ok()?)
            })
        })
    }

    /// The bits of the items from a column on, the lowest bit first. The bits of columns beyond the column's multiple of 64
    /// are 0, so a caller reads groups of columns that divide 64.
    #[inline(always)]
    pub fn bits_from(&self, column: usize) -> u64 {
        self.words.get(Self::word_of(column)).map_or(0, |word| word >> (column % WORD))
    }

    /// The place of the [word](Self::words) that has a column's bit.
    #[inline(always)]
    pub fn word_of(column: usize) -> usize {
        column / WORD
    }

    /// Removes every item.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds the items of another set of the same catalogue.
    pub fn union_with(&mut self, other: &ItemSet) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Keeps the items that another set of the same catalogue has.
    pub fn intersect_with(&mut self, other: &ItemSet) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Removes the items of another set of the same catalogue.
    pub fn subtract(&mut self, other: &ItemSet) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    /// Turns the set into the items of the catalogue that it does not have.
    pub fn complement(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.trim();
    }

    /// The words, for a device that reads the bits itself.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Clears the bits that are no item's.
    fn trim(&mut self) {
        if let Some(first) = self.words.first_mut() {
            *first &= !1;
        }
        let columns = self.items + 1;
        if let Some(last) = self.words.last_mut()
            && !columns.is_multiple_of(WORD)
        {
            *last &= !0 >> (WORD - columns % WORD);
        }
    }
}

fn words(items: usize) -> usize {
    (items + 1).div_ceil(WORD)
}

/// The word and the bit of an item.
#[inline(always)]
fn place(item: Item) -> (usize, u64) {
    (item.column() / WORD, 1 << (item.column() % WORD))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ItemSet;
    use crate::Item;

    fn items(ids: impl IntoIterator<Item = u32>) -> Vec<Item> {
        ids.into_iter().filter_map(Item::new).collect()
    }

    /// The set's items by hand: those whose id `has` holds for.
    fn set(count: usize, has: impl Fn(u32) -> bool) -> (ItemSet, BTreeSet<Item>) {
        let mut set = ItemSet::empty(count);
        let expected: BTreeSet<Item> = items(1..=count as u32).into_iter().filter(|item| has(item.id())).collect();
        expected.iter().for_each(|item| set.insert(*item));
        (set, expected)
    }

    #[test]
    fn operations_are_those_of_sets() {
        for count in [1, 5, 62, 63, 64, 65, 127, 128, 300] {
            let (threes, by_three) = set(count, |id| id % 3 == 0);
            let (odd, by_two) = set(count, |id| id % 2 == 1);
            let check = |found: &ItemSet, expected: &BTreeSet<Item>| {
                assert_eq!(found.iter().collect::<BTreeSet<_>>(), *expected, "{count}");
                assert_eq!((found.len(), found.is_empty()), (expected.len(), expected.is_empty()));
                assert!(
                    items(1..=count as u32 + 70).iter().all(|item| found.contains(*item) == expected.contains(item))
                );
            };
            check(&threes, &by_three);
            let all = BTreeSet::from_iter(items(1..=count as u32));
            check(&ItemSet::full(count), &all);
            let apply = |operation: fn(&mut ItemSet, &ItemSet)| {
                let mut set = threes.clone();
                operation(&mut set, &odd);
                set
            };
            check(&apply(ItemSet::union_with), &(&by_three | &by_two));
            check(&apply(ItemSet::intersect_with), &(&by_three & &by_two));
            check(&apply(ItemSet::subtract), &(&by_three - &by_two));
            check(&apply(|set, _| set.complement()), &(&all - &by_three));
            check(&apply(|set, _| set.clear()), &BTreeSet::new());
        }
    }

    #[test]
    fn bits_are_those_of_columns() {
        let (set, expected) = set(200, |id| id % 7 < 3);
        for column in (0..256).step_by(16) {
            let bits = set.bits_from(column);
            for lane in 0..16 {
                let item = Item::new((column + lane) as u32);
                assert_eq!(bits >> lane & 1 == 1, item.is_some_and(|item| expected.contains(&item)), "{column} {lane}");
            }
        }
    }

    #[test]
    fn items_of_another_catalogue_are_ignored() {
        let mut set = ItemSet::empty(10);
        items([11, 63, 64, 1000]).into_iter().for_each(|item| {
            set.insert(item);
            set.remove(item);
        });
        assert!(set.is_empty() && set.catalogue_len() == 10);
    }
}
