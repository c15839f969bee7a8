//! The network: configuration, weights, checkpoints, import, and one trait with the forwards behind it.
//!
//! No tokio here: a forward is called by the thread that owns the device.

pub mod checkpoint;
mod config;
mod forward;
pub mod import;
pub mod libtorch;
mod weights;

pub use config::{ConfigError, ModelConfig, Parameter, RouterConfig, WidthRule};
pub use forward::{Forward, ForwardError, Query, Rows};
pub use weights::{HostTensor, Weights, WeightsError};
