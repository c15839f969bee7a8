//! The forward pass on NVIDIA GPUs, by kernels of our own.
//!
//! # A batch
//!
//! One block of threads computes one history, from its items to its newest position (`kernels/history.cuh`). The
//! history stays in the shared memory of one multiprocessor. So a batch of any routes is one launch, and a slice costs
//! what it computes. With a network of library calls it would cost what the calls take to launch.
//!
//! A batch takes three launches (`batch`): histories to vectors, vectors to scores, scores to the best items. The
//! router takes one. The most expensive rows start first, and the last block of the network runs for the newest
//! position's tile alone.
//!
//! # Kernels
//!
//! - **Weights are read as they are stored** (`layout`, `kernels/product.cuh`). A slice is a prefix of rows and
//!   columns, and a head of a slice is a prefix of a stored head. So all routes share one copy.
//! - **Products run on tensor cores** (`kernels/arithmetic.cuh`). Float32 takes three products of halves of eleven
//!   bits. With bfloat16 the backbone's linear layers take one product; attention, norms, router and scores stay
//!   float32.
//! - **Attention stays in registers** (`kernels/attention.cuh`). One warp computes the scores, the softmax and the
//!   mixed values of a head's queries of one tile.
//! - **Scores share reads** (`kernels/catalogue.cuh`). 64 rows share what they read of the output layer. `select` finds
//!   each row's k-th best score and copies the scores that are not lower; the host ranks them. The host ranks the whole
//!   row if more scores are equal than there is room for, or if the request names its candidates.
//!
//! NVRTC compiles the kernels for a model's sizes when the model is loaded, and keeps them for the next generation.
//! `sizes` decides which models the kernels support. `--backend auto` runs other models over LibTorch.
//!
//! # Tests
//!
//! Kernels run behind the trait `driver::Driver`: a GPU's driver (`gpu`), or in tests an emulator. The emulator
//! compiles the same source for the CPU, behind other primitives. A block's threads are contexts that take turns, and a
//! warp's products follow the definition of PTX. The tests show what the kernels compute. Only a GPU can show that
//! threads never meet too early.

mod backend;
mod batch;
mod driver;
#[cfg(test)]
mod emulated;
mod forward;
mod gpu;
mod layout;
mod sizes;

pub use self::backend::CudaBackend;
pub use self::driver::CudaError;
pub use self::sizes::UnsupportedModel;
