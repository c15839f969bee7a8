//! The forward pass on CPUs, with no library behind it.
//!
//! # How a row is computed
//!
//! 1. `embedding`: items and positions become the rows that enter the first block.
//! 2. `block`: all positions of a history pass the blocks. `attention` mixes positions, `norm` normalises them.
//! 3. `newest_attention`: the last block computes the newest position alone.
//! 4. `scores`: the output layer scores the catalogue a block of columns at a time and keeps the best items. `scan`
//!    first rules items out of a large catalogue by a copy of the layer in bytes.
//!
//! If a history was computed before, `extension` computes its new positions alone, from the states that `history_cache`
//! kept. `reuse` decides which rows of a batch do so. Their answers are the same to the bit.
//!
//! `router` computes the logits of routes in the same way, from its own small block.
//!
//! # Principles
//!
//! - **One pack of weights serves every slice.** `panels` stores a layer such that a slice's weights are a prefix.
//!   Only Q, K and V, whose slices are a prefix of every head, are packed once for each width.
//! - **A row's sums have a fixed order.** A sum starts with the bias and adds its products in the order of the depth.
//!   Neither the batch nor the number of threads changes that order, so a row's answer is always the same to the bit.
//! - **One source serves every instruction set.** Kernels are generic over `simd`'s vectors and chosen at run time.
//!   Only `simd` has `unsafe` code.
//! - **Histories of one route run together**, up to 128 tokens, one after the other. Only attention looks at them one
//!   by one.
//! - **Threads live for one call.** A call starts a thread when the work is worth it (`parallel`) and joins it at the
//!   end. A pool would save microseconds, but idle cores belong to the other executors.

mod attention;
mod backbone;
mod backend;
mod bench_hooks;
mod block;
mod buffer;
mod elementary;
mod embedding;
mod extension;
mod forward;
mod history_cache;
mod history_states;
mod kept_states;
mod newest_attention;
mod norm;
mod panels;
mod parallel;
mod peak;
mod product;
mod reuse;
mod router;
mod scan;
mod scores;
mod simd;
mod sync;
mod workspace;

pub use self::backend::{CpuBackend, NoBf16};
pub use self::bench_hooks::BlockBench;
pub use self::forward::{CpuForward, CpuOptions};
pub use self::peak::{fma_peak, gemm_peak, read_peak};
pub use self::simd::Level;
