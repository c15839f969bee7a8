//! The network: configuration, weights, checkpoints, import, and one trait with the forwards behind it.
//!
//! No tokio here: a forward is called by the thread that owns the device.

pub mod checkpoint;
mod config;
#[cfg(feature = "libtorch")]
mod cuda;
mod device;
mod forward;
pub mod import;
#[cfg(feature = "libtorch")]
pub mod libtorch;
mod load;
pub mod native;
mod precision;
mod target;
mod threads;
mod weights;

pub use config::{ConfigError, ModelConfig, Parameter, Positions, RouterConfig, WidthRule};
#[cfg(feature = "libtorch")]
pub use cuda::{CudaError, Misfit};
pub use device::{Device, DeviceError};
pub use forward::{Forward, ForwardError, Query, Rows};
pub use load::LoadError;
pub use precision::Precision;
pub use target::{Backend, Target, TargetError};
pub use threads::{set_threads, use_one_thread_here};
pub use weights::{HostTensor, Weights, WeightsError};
