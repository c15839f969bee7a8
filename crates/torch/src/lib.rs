//! The forward pass over LibTorch: the reference of the other forwards, `--backend libtorch`, and the fallback on a GPU
//! for models that the native kernels do not support.
//!
//! # A batch
//!
//! - Rows of one width share layers. `packed` lays their real tokens out one row after the other, the deepest rows
//!   first. So the rows that leave after a block are the last ones, and the others keep their places (`backbone`).
//! - A narrower embedding is a zero mask before the input layer, which is computed at the widest embedding of the
//!   batch.
//! - `attention` pads rows of similar length into one call, or on a CPU calls once for each length.
//! - `device_top_k` copies only the best scores to the host.
//!
//! [`tensors`] has the operations that training uses as well.
//!
//! # Linking
//!
//! - The binary links `libtorch_cpu` alone. [`count_gpus`] loads `libtorch_cuda` into the process before anything asks
//!   LibTorch about CUDA, because LibTorch caches that answer.
//! - tch 0.24 needs LibTorch 2.11.0 exactly. `scripts/libtorch.py` keeps two directories in one cache: `2.11.0-cpu`,
//!   with the headers and three libraries that the build sees, and `2.11.0-cuda`, with the rest in the layout of its
//!   wheels, because these libraries find each other by relative paths. The script unpacks a directory elsewhere and
//!   renames it, so an existing directory is complete.

mod allocator;
mod attention;
mod backbone;
mod backend;
mod bias;
mod block;
mod device;
mod device_top_k;
mod error;
mod forward;
mod load;
mod packed;
mod router;
pub mod tensors;

pub use allocator::keep_freed_memory;
pub use backend::TorchBackend;
pub use device::{count_gpus, gemm_peak, set_threads, tch_device};
pub use error::TorchError;
pub use forward::TorchForward;
