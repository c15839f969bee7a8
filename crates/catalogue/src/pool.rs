use canet_domain::ItemSet;

/// Sets that are used again. A set of a large catalogue takes microseconds to allocate and clear.
#[derive(Debug, Default)]
pub struct SetPool {
    /// Of one catalogue size.
    free: Vec<ItemSet>,
}

impl SetPool {
    /// An empty set over `items` items.
    pub(crate) fn take(&mut self, items: usize) -> ItemSet {
        match self.free.pop() {
            Some(mut set) if set.catalogue_len() == items => {
                set.clear();
                set
            }
            // The sets of another model's catalogue are of no use.
            _ => {
                self.free.clear();
                ItemSet::empty(items)
            }
        }
    }

    /// Takes a set back.
    pub(crate) fn give_back(&mut self, set: ItemSet) {
        self.free.push(set);
    }
}
