//! Checkpoints and imports through the crate's public interface.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

mod checkpoint;
mod model;
mod recbole;
mod state_dict;

use canet_cpu::{CpuForward, CpuOptions};
use canet_model::{ModelConfig, Precision, Weights};

/// The native forward, in float32 on one thread.
fn native(config: &ModelConfig, weights: &Weights) -> CpuForward {
    CpuForward::load(config, weights, CpuOptions::fastest(Precision::Fp32, 1)).unwrap()
}
