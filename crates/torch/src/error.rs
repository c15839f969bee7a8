use canet_model::{ConfigError, ForwardError, LoadError, WeightsError};
use tch::TchError;

/// Why LibTorch cannot load or run a model.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// LibTorch refused an operation, for example because memory ran out or the device was lost.
    #[error("TorchForward: {0}")]
    Tch(#[from] TchError),
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl From<TorchError> for ForwardError {
    fn from(error: TorchError) -> ForwardError {
        ForwardError::Device(error.into())
    }
}

impl From<TorchError> for LoadError {
    fn from(error: TorchError) -> LoadError {
        match error {
            TorchError::Config(error) => LoadError::Config(error),
            TorchError::Weights(error) => LoadError::Weights(error),
            TorchError::Tch(_) => LoadError::Device(error.into()),
        }
    }
}
