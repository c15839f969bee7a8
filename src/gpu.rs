//! What needs LibTorch: GPUs, and the reference on CPUs.

use std::sync::Arc;
use std::time::Duration;

use canet_cuda::CudaBackend;
use canet_model::{Backend, Device, Forward, ForwardError, LoadError, ModelConfig, Precision, Weights};
use canet_torch::{TorchBackend, TorchError};

use crate::target::{BackendChoice, TargetError};

pub(crate) use canet_torch::{count_gpus as count, set_threads};

/// The native kernels for GPUs, and LibTorch for models and GPUs that they do not fit.
#[derive(Debug)]
struct FirstThatFits {
    native: CudaBackend,
    libtorch: TorchBackend,
}

impl Backend for FirstThatFits {
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        match self.native.load(config, weights) {
            Err(error @ (LoadError::Unfit(_) | LoadError::Device(_))) => {
                tracing::warn!(%error, "the native kernels for GPUs cannot run this model here: LibTorch computes");
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

/// LibTorch on any device, or the native kernels on a GPU.
pub(crate) fn backend(
    device: Device,
    backend: BackendChoice,
    precision: Precision,
    threads: usize,
) -> Result<Arc<dyn Backend>, TargetError> {
    let native = CudaBackend { device, precision };
    let libtorch = TorchBackend { device, precision, threads };
    Ok(match backend {
        BackendChoice::LibTorch => Arc::new(libtorch),
        BackendChoice::Native => Arc::new(native),
        BackendChoice::Auto => Arc::new(FirstThatFits { native, libtorch }),
    })
}

/// Floating-point operations a second of LibTorch's products of matrices, divided by the threads of a CPU.
pub(crate) fn gemm_peak(target: &dyn Backend, time: Duration) -> Result<f64, ForwardError> {
    let threads = if target.device().is_cuda() { 1 } else { target.threads().max(1) };
    let peak = canet_torch::gemm_peak(target.device(), target.precision(), time);
    peak.map(|peak| peak / threads as f64).map_err(|error: TorchError| error.into())
}
