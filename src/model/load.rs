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
    /// The GPU, its driver or its compiler refused them.
    #[cfg(feature = "libtorch")]
    #[error(transparent)]
    Cuda(#[from] super::cuda::CudaError),
    /// Our own kernels for GPUs are not made for the model's sizes.
    #[cfg(feature = "libtorch")]
    #[error("the native kernels for GPUs do not fit this model: {0}; use --backend auto or libtorch")]
    Misfit(#[from] super::cuda::Misfit),
    /// The device refused them.
    #[cfg(feature = "libtorch")]
    #[error("LibTorch: {0}")]
    Torch(#[from] tch::TchError),
}
