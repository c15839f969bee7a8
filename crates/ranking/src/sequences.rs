use canet_domain::{Catalogue, Item};

/// The known items of many users, oldest first, in one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    items: Vec<Item>,
    /// Where each user's items end.
    ends: Vec<usize>,
    unknown: usize,
}

impl Sequences {
    /// Adds an item to the user who is being added. An id that the catalogue lacks is counted and dropped.
    #[inline]
    pub fn push(&mut self, catalogue: &Catalogue, id: &str) {
        self.push_item(catalogue.item(id));
    }

    /// Adds an item that was looked up before. `None` is an id that the catalogue lacks.
    #[inline]
    pub fn push_item(&mut self, item: Option<Item>) {
        match item {
            Some(item) => self.items.push(item),
            None => self.unknown += 1,
        }
    }

    /// Ends the user who is being added.
    pub fn end_user(&mut self) {
        self.ends.push(self.items.len());
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no user.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Number of ids that the catalogue lacks.
    pub fn unknown(&self) -> usize {
        self.unknown
    }

    /// The items of the user at a place. A place past the end has none.
    pub fn user(&self, place: usize) -> &[Item] {
        let start = match place.checked_sub(1) {
            Some(before) => self.ends.get(before).copied(),
            None => Some(0),
        };
        let range = start.zip(self.ends.get(place).copied());
        range.and_then(|(start, end)| self.items.get(start..end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use canet_domain::Catalogue;

    use super::Sequences;

    #[test]
    fn users_keep_their_known_items_in_order() {
        let ids = ["a", "b", "c"].map(Into::into).to_vec();
        let catalogue = Catalogue::new(ids, vec![0; 3]).unwrap();
        let mut sequences = Sequences::default();
        for user in [&["b", "z", "a", "b"][..], &[], &["z"], &["c"]] {
            user.iter().for_each(|id| sequences.push(&catalogue, id));
            sequences.end_user();
        }
        let found: Vec<Vec<u32>> =
            (0..5).map(|user| sequences.user(user).iter().map(|item| item.id()).collect()).collect();
        assert_eq!(found, [vec![2, 1, 2], vec![], vec![], vec![3], vec![]]);
        assert_eq!((sequences.len(), sequences.unknown(), sequences.is_empty()), (4, 2, false));
    }
}
