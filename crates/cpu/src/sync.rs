//! The locks and pointers of the history cache. Its own tests run them under every order of threads.

#[cfg(not(test))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(test)]
pub(crate) use std::sync::PoisonError;
