use std::num::NonZeroU32;

/// A dense item id inside the model: 1..=N. Id 0 is padding and cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item(NonZeroU32);

impl Item {
    /// The item of this dense id; `None` for 0, the padding.
    #[inline]
    pub fn new(id: u32) -> Option<Item> {
        NonZeroU32::new(id).map(Item)
    }

    /// The dense id, 1..=N.
    #[inline]
    pub fn id(self) -> u32 {
        self.0.get()
    }

    /// The item's column in a score row, whose column 0 is padding.
    #[inline]
    pub fn column(self) -> usize {
        self.0.get() as usize
    }
}
