//! The network: configuration, weights, checkpoints, and the traits [`Backend`] and [`Forward`], which the computing
//! crates `canet-cpu`, `canet-cuda` and `canet-torch` implement.
//!
//! - [`Model::open`] opens a checkpoint for answers. It needs a [`Backend`], which turns [`Weights`] into a [`Forward`].
//! - [`mod@import`] converts the authors' checkpoints into this project's.
//! - [`TensorFile`] reads safetensors files, which hold the weights of checkpoints and the state of training.

mod backend;
pub mod checkpoint;
mod config;
mod device;
mod forward;
mod history_cache;
pub mod import;
mod json;
mod model;
mod tensor_file;
mod weights;

pub use backend::{Backend, LoadError, Precision, threads_allowed_here, use_one_thread_here};
pub use config::{Axis, ConfigError, ModelConfig, ModelPart, Parameter, Positions, Role, RouterConfig, WidthRule};
pub use device::{Device, DeviceError};
pub use forward::{Forward, ForwardError, Query, Rows, in_groups};
pub use history_cache::{HistoryCache, HistoryCacheStats, RankedBatch};
pub use json::JsonError;
pub use model::{Model, OpenError};
pub use tensor_file::{TensorFile, TensorFileError, TensorToWrite, write_tensors};
pub use weights::{HostTensor, Weights, WeightsError};
