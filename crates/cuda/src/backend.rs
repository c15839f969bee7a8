use std::sync::Arc;

use canet_model::{Backend, Device, Forward, ForwardError, LoadError, ModelConfig, Precision, Weights};

use super::driver::CudaError;
use super::forward::CudaForward;
use super::gpu::Gpu;
use super::sizes::UnsupportedModel;

/// Loads models for the kernels of this crate on one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaBackend {
    /// The GPU.
    pub device: Device,
    /// The precision of the backbone's linear layers.
    pub precision: Precision,
}

impl Backend for CudaBackend {
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        Ok(Arc::new(CudaForward::<Gpu>::load(self.device.gpu().unwrap_or_default(), self.precision, config, weights)?))
    }

    fn device(&self) -> Device {
        self.device
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    /// One thread launches a GPU's batch.
    fn threads(&self) -> usize {
        1
    }
}

impl From<UnsupportedModel> for LoadError {
    fn from(error: UnsupportedModel) -> LoadError {
        LoadError::Unfit(error.into())
    }
}

impl From<CudaError> for LoadError {
    fn from(error: CudaError) -> LoadError {
        LoadError::Device(error.into())
    }
}

impl From<CudaError> for ForwardError {
    fn from(error: CudaError) -> ForwardError {
        ForwardError::Device(error.into())
    }
}
