use std::error::Error;

use crate::{ConfigError, WeightsError};

/// Why weights could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration is not sane.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The backend's kernels are not made for the model's sizes.
    #[error(transparent)]
    Unfit(Box<dyn Error + Send + Sync>),
    /// The device, its driver or its library refused the weights.
    #[error(transparent)]
    Device(Box<dyn Error + Send + Sync>),
}
