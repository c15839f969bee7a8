use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of bodies that a server receives and holds at a time.
const MOST: usize = 64 << 20;

/// The room for the bodies of requests, from their first bytes to their answers; listeners that share it are clones.
#[derive(Clone, Debug)]
pub struct Bodies {
    left: Arc<AtomicUsize>,
}

impl Bodies {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Bodies {
        Bodies { left: Arc::new(AtomicUsize::new(bytes)) }
    }
}

impl Default for Bodies {
    fn default() -> Bodies {
        Bodies::new(MOST)
    }
}

/// What the body of one request holds of the room; nothing any more once this drops.
#[derive(Debug)]
pub(crate) struct Held {
    bodies: Bodies,
    bytes: AtomicUsize,
}

impl Held {
    pub(super) fn none_of(bodies: &Bodies) -> Held {
        Held { bodies: bodies.clone(), bytes: AtomicUsize::new(0) }
    }

    /// Takes room for `bytes` more, where there is as much.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let is_taken = self.bodies.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if is_taken {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        is_taken
    }

    /// Gives all of it back: what was received is held no more.
    pub(crate) fn give_back(&self) {
        self.bodies.left.fetch_add(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}
