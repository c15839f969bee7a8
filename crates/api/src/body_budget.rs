use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Default budget of a server, in bytes.
const DEFAULT_BYTES: usize = 64 << 20;

/// Limits the bytes of all request bodies that a server holds at one time.
///
/// A body counts from its first byte until its request is answered. Clones share one budget.
#[derive(Clone, Debug)]
pub struct BodyBudget {
    left: Arc<AtomicUsize>,
}

impl BodyBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> BodyBudget {
        BodyBudget { left: Arc::new(AtomicUsize::new(bytes)) }
    }
}

impl Default for BodyBudget {
    fn default() -> BodyBudget {
        BodyBudget::new(DEFAULT_BYTES)
    }
}

/// One request's share of a [`BodyBudget`]. Dropping it returns the share.
#[derive(Debug)]
pub(crate) struct BodyPermit {
    budget: BodyBudget,
    bytes: AtomicUsize,
}

impl BodyPermit {
    /// A permit that holds no bytes yet.
    pub(crate) fn empty(budget: &BodyBudget) -> BodyPermit {
        BodyPermit { budget: budget.clone(), bytes: AtomicUsize::new(0) }
    }

    /// Takes `bytes` more from the budget. Returns false, and takes nothing, if the budget has fewer left.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let is_taken = self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if is_taken {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        is_taken
    }

    /// Returns all bytes to the budget.
    pub(crate) fn release(&self) {
        self.budget.left.fetch_add(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.release();
    }
}

/// The time and memory that a listener grants the body of one request. The listener puts it into the request's
/// extensions.
#[derive(Clone, Debug)]
pub(crate) struct BodyAllowance {
    /// The body must arrive within this time.
    pub(crate) timeout: Duration,
    /// Holds the body's bytes until the request is answered.
    pub(crate) permit: Arc<BodyPermit>,
}

#[cfg(test)]
mod tests {
    use super::{BodyBudget, BodyPermit};

    #[test]
    fn permits_share_a_budget_and_return_their_bytes() {
        let budget = BodyBudget::new(10);
        let (a, b) = (BodyPermit::empty(&budget), BodyPermit::empty(&budget.clone()));
        assert!(a.take(6) && a.take(1) && b.take(3));
        assert!(!b.take(1), "the budget is spent");
        drop(a);
        assert!(b.take(7));
        b.release();
        assert!(b.take(10) && !b.take(1));
    }

    #[test]
    fn a_refused_take_changes_nothing() {
        let budget = BodyBudget::new(4);
        let permit = BodyPermit::empty(&budget);
        assert!(!permit.take(5));
        assert!(permit.take(4));
        permit.release();
        permit.release();
        assert!(permit.take(4) && !permit.take(1), "bytes are returned once");
    }
}
