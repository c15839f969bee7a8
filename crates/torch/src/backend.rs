use std::sync::Arc;

use canet_model::{Backend, Device, Forward, LoadError, ModelConfig, Precision, Weights};

use super::forward::TorchForward;

/// Loads models for LibTorch on one device.
///
/// On a CPU, [`set_threads`](crate::set_threads) sets LibTorch's threads for the whole process. `threads` only reports
/// their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TorchBackend {
    /// The device.
    pub device: Device,
    /// The precision of the backbone's linear layers.
    pub precision: Precision,
    /// The number of LibTorch's threads.
    pub threads: usize,
}

impl Backend for TorchBackend {
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        Ok(Arc::new(TorchForward::load(config, weights, self.precision, self.device)?))
    }

    fn device(&self) -> Device {
        self.device
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn threads(&self) -> usize {
        self.threads
    }
}
