use std::sync::Arc;

use canet_model::{Backend, Device, Forward, LoadError, ModelConfig, Precision, Weights};

use crate::LibTorch;

/// The forward over LibTorch on one device.
///
/// On a CPU its threads are [set for the whole process](crate::set_threads); `threads` only says how many that are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TorchBackend {
    /// Where it computes.
    pub device: Device,
    /// In which numbers.
    pub precision: Precision,
    /// Threads that LibTorch was given.
    pub threads: usize,
}

impl Backend for TorchBackend {
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        Ok(Arc::new(LibTorch::load_in(self.precision, config, weights, self.device)?))
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
