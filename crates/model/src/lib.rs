//! The network: configuration, weights, checkpoints, import, and the traits of what computes it.
//!
//! A [`Backend`] turns [`Weights`] into a [`Forward`], which answers. The crates `canet-cpu`, `canet-cuda` and `canet-torch`
//! implement both.

mod backend;
pub mod checkpoint;
mod config;
mod device;
mod forward;
pub mod import;
mod load;
mod model;
mod precision;
mod threads;
mod weights;

pub use backend::Backend;
pub use config::{ConfigError, ModelConfig, Parameter, Positions, RouterConfig, WidthRule};
pub use device::{Device, DeviceError};
pub use forward::{Forward, ForwardError, Query, Rows, in_groups};
pub use load::LoadError;
pub use model::{Model, OpenError};
pub use precision::Precision;
pub use threads::{threads_allowed_here, use_one_thread_here};
pub use weights::{HostTensor, Weights, WeightsError};
