//! Checkpoints and imports through the crate's public interface.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

mod checkpoint;
mod model;
mod state_dict;

use canet_cpu::Native;
use canet_model::{ModelConfig, Precision, Weights};

/// The native forward, in float32 on one thread.
fn native(config: &ModelConfig, weights: &Weights) -> Native {
    Native::load(Precision::Fp32, config, weights, 1).unwrap()
}
