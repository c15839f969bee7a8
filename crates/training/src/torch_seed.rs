//! LibTorch's random generator in tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seeds LibTorch's random generator. The process has one: a test that draws from it keeps this guard to its end, so that no test
/// beside it takes some of its draws.
pub(crate) fn seed_torch(seed: i64) -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    guard
}
