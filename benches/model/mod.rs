//! A random model of MovieLens-1M's size with the default routes, and histories for it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a bench reports an error by a panic")]

use canet_domain::{History, RouteSpace};
use canet_model::{Device, ModelConfig, Precision, Weights};
use canet_torch::{TorchForward, set_threads};
use rand_chacha::ChaCha8Rng;

/// Items of MovieLens-1M.
pub(crate) const ITEMS: usize = 3416;

/// The longest history.
pub(crate) const MAX_LEN: usize = 50;

pub(crate) use canet_testing::rng;

/// A history of random items.
pub(crate) fn history(length: usize, rng: &mut ChaCha8Rng) -> History {
    canet_testing::random_history(ITEMS, length, rng)
}

/// The sizes of the model.
pub(crate) fn config() -> ModelConfig {
    ModelConfig { max_len: MAX_LEN, ..canet_testing::full_size_config(ITEMS) }
}

/// The weights of the model.
pub(crate) fn weights() -> Weights {
    canet_testing::random_weights(&config(), &mut rng(1))
}

/// The model over LibTorch on one core, and its 36 routes.
pub(crate) fn model() -> (TorchForward, RouteSpace) {
    set_threads(1);
    (TorchForward::load(&config(), &weights(), Precision::Fp32, Device::CPU).unwrap(), config().check().unwrap())
}
