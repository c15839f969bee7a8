//! What needs LibTorch: GPUs, and the reference on CPUs.

use std::sync::Arc;
use std::time::Duration;

use canet_cuda::CudaBackend;
use canet_model::{Backend, Device, Forward, ForwardError, LoadError, ModelConfig, Precision, Weights};
use canet_torch::{TorchBackend, TorchError};

pub(crate) use canet_torch::{count_gpus as count, set_threads};

/// Tries the native kernels for GPUs, then LibTorch.
#[derive(Debug)]
struct FirstThatFits {
    native: CudaBackend,
    libtorch: TorchBackend,
}

impl Backend for FirstThatFits {
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        match self.native.load(config, weights) {
            Err(error @ (LoadError::Unfit(_) | LoadError::Device(_))) => {
                tracing::warn!(%error, "the native kernels for GPUs cannot run this model: LibTorch runs it");
                self.libtorch.load(config, weights)
            }
            loaded => loaded,
        }
    }

    fn device(&self) -> Device {
        self.native.device
    }

    fn precision(&self) -> Precision {
        self.native.precision
    }

    fn threads(&self) -> usize {
        self.native.threads()
    }
}

/// LibTorch on any device. A build without LibTorch returns `None` from this function and the next two.
pub(crate) fn libtorch(device: Device, precision: Precision, threads: usize) -> Option<Arc<dyn Backend>> {
    Some(Arc::new(TorchBackend { device, precision, threads }))
}

/// The native kernels on a GPU.
pub(crate) fn native(device: Device, precision: Precision) -> Option<Arc<dyn Backend>> {
    Some(Arc::new(CudaBackend { device, precision }))
}

/// The native kernels on a GPU, or LibTorch if they do not fit the model or the GPU.
pub(crate) fn native_or_libtorch(device: Device, precision: Precision) -> Option<Arc<dyn Backend>> {
    let libtorch = TorchBackend { device, precision, threads: 1 };
    Some(Arc::new(FirstThatFits { native: CudaBackend { device, precision }, libtorch }))
}

/// Floating-point operations a second of LibTorch's products of matrices, divided by the threads of a CPU.
pub(crate) fn gemm_peak(target: &dyn Backend, time: Duration) -> Result<f64, ForwardError> {
    let threads = if target.device().is_cuda() { 1 } else { target.threads().max(1) };
    let peak = canet_torch::gemm_peak(target.device(), target.precision(), time);
    peak.map(|peak| peak / threads as f64).map_err(|error: TorchError| error.into())
}
