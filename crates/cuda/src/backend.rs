use std::sync::Arc;

use canet_model::{Backend, Device, Forward, ForwardError, LoadError, ModelConfig, Precision, Weights};

use crate::{Cuda, CudaError, Misfit};

/// The native forward on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaBackend {
    /// The GPU.
    pub device: Device,
    /// In which numbers.
    pub precision: Precision,
}

impl Backend for CudaBackend {
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        Ok(Arc::new(Cuda::load(self.device.gpu().unwrap_or_default(), self.precision, config, weights)?))
    }

    fn device(&self) -> Device {
        self.device
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    /// A GPU's batch is launched by one thread.
    fn threads(&self) -> usize {
        1
    }
}

impl From<Misfit> for LoadError {
    fn from(misfit: Misfit) -> LoadError {
        LoadError::Unfit(misfit.into())
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
