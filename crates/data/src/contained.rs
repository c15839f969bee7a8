//! Decoders of other crates that panic on damaged input.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is expected, so that nothing prints it.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// The decoder panicked.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Runs a decoder. If it panics, nothing is printed, and what it borrowed may hold half of its work.
///
/// # Errors
/// [`Panicked`]
pub(crate) fn contained<T>(decode: impl FnOnce() -> T) -> Result<T, Panicked> {
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !EXPECTED.get() {
                print(panic);
            }
        }));
    });
    EXPECTED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    EXPECTED.set(false);
    result.map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(contained(|| 1).unwrap(), 1);
        assert!(contained(|| panic!("damaged")).is_err());
        assert!(!EXPECTED.get());
    }
}
