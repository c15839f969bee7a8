use crate::Item;

/// Which items of a longer history the model reads.
///
/// With a `stride` above 1 the oldest item that is read stays the same for several requests of a user. What a forward
/// computed for the items then serves the next request too. With a stride of 1 the model always reads the last `max_len`.
///
/// ```
/// use canet_domain::Window;
///
/// let window = Window { max_len: 8, stride: 4 };
/// let starts: Vec<usize> = [8, 9, 12, 13].map(|length| window.start(length)).into();
/// assert_eq!(starts, [0, 4, 4, 8]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Length of the longest history that the model reads, at least 1.
    pub max_len: usize,
    /// The oldest item that is read has a place in the user's whole history that is a multiple of this. From 1 to
    /// `max_len`.
    pub stride: usize,
}

impl Window {
    /// The last `max_len` items.
    pub fn last(max_len: usize) -> Window {
        Window { max_len, stride: 1 }
    }

    /// The place of the oldest item that is read, in a whole history of `length` items.
    pub fn start(&self, length: usize) -> usize {
        let beyond = length.saturating_sub(self.max_len);
        beyond.checked_next_multiple_of(self.stride).unwrap_or(beyond)
    }

    /// The items that are read. `before` says how many earlier items of the user's history are missing from `items`.
    pub fn of<'a>(&self, items: &'a [Item], before: usize) -> &'a [Item] {
        // The sum must not overflow.
        let before = before.min(usize::MAX - items.len());
        let start = self.start(before + items.len()).saturating_sub(before);
        &items[start.min(items.len())..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: u32) -> Vec<Item> {
        (1..=count).filter_map(Item::new).collect()
    }

    #[test]
    fn a_stride_of_one_reads_the_last_items() {
        let items = items(20);
        for length in 0..20 {
            assert_eq!(Window::last(6).of(&items[..length], 0), &items[length.saturating_sub(6)..length]);
            assert_eq!(Window::last(6).of(&items[..length], 1000), &items[length.saturating_sub(6)..length]);
        }
    }

    #[test]
    fn windows_start_at_multiples_of_the_stride_and_hold_the_newest_items() {
        let items = items(40);
        for (max_len, stride) in [(8, 4), (8, 3), (8, 8), (5, 2), (1, 1)] {
            let window = Window { max_len, stride };
            for length in 1..=40 {
                let read = window.of(&items[..length], 0);
                let start = length - read.len();
                assert!(start.is_multiple_of(stride) && read.len() <= max_len, "{window:?} {length}");
                // The window is as long as it can be.
                assert!(start < stride || read.len() + stride > max_len, "{window:?} {length}");
                assert_eq!(read.last(), items[..length].last());
            }
        }
    }

    #[test]
    fn a_client_that_leaves_out_early_items_gets_the_same_window() {
        let (items, window) = (items(40), Window { max_len: 8, stride: 4 });
        for length in 1..=40_usize {
            for sent in [8, 11, 40] {
                let before = length.saturating_sub(sent);
                assert_eq!(window.of(&items[before..length], before), window.of(&items[..length], 0));
            }
        }
        // Fewer items than the window has room for are read whole.
        assert_eq!(window.of(&items[38..], 38), &items[38..]);
        // 2^64 - 8 is the first multiple of four within eight items of the largest length.
        assert_eq!(window.of(&items, usize::MAX), &items[items.len() - 7..]);
    }
}
