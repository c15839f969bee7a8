use super::{ConfigError, WeightsError};

/// Why weights could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration is not sane.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device refused them.
    #[cfg(feature = "libtorch")]
    #[error("LibTorch: {0}")]
    Torch(#[from] tch::TchError),
}
