//! The forward pass on CPUs, through its public interface.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test reports an error by a panic")]

use canet_cpu::{CpuOptions, Level};
use canet_model::Precision;

mod forward;
mod history_cache;
mod oracle;
mod precision;

/// The options for a level, with the byte scan whether or not the level has instructions for it.
fn options(level: Level, precision: Precision, threads: usize) -> CpuOptions {
    CpuOptions { level, precision, threads, byte_scan: true, history_cache: 0 }
}
