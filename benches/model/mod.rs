//! A random model of MovieLens-1M's size with the default routes, and histories for it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a bench says by a panic what is wrong")]

use canet_testing as support;

use canet_domain::{History, RouteSpace};
use canet_model::{Device, ModelConfig, Weights};
use canet_torch::{LibTorch, set_threads};
use rand_chacha::ChaCha8Rng;

/// Items of MovieLens-1M.
pub(crate) const ITEMS: usize = 3416;

/// Longest history.
pub(crate) const MAX_LEN: usize = 50;

pub(crate) use support::rng;

/// A history of random items.
pub(crate) fn history(length: usize, rng: &mut ChaCha8Rng) -> History {
    support::random_history(ITEMS, length, rng)
}

/// Its sizes.
pub(crate) fn config() -> ModelConfig {
    ModelConfig { max_len: MAX_LEN, ..support::full_size_config(ITEMS) }
}

/// Its weights.
pub(crate) fn weights() -> Weights {
    support::random_weights(&config(), &mut rng(1))
}

/// It on one core, by LibTorch, and its 36 routes.
pub(crate) fn model() -> (LibTorch, RouteSpace) {
    set_threads(1);
    (LibTorch::load(&config(), &weights(), Device::CPU).unwrap(), config().check().unwrap())
}
