use std::sync::Arc;
use std::time::Duration;

use super::libtorch::{self, Device, LibTorch};
use super::native::{self, Level, Native};
use super::{Forward, ForwardError, LoadError, ModelConfig, Weights};

/// Which forward computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Native on a CPU, LibTorch on a GPU.
    Auto,
    /// LibTorch, on any device.
    #[value(name = "libtorch")]
    LibTorch,
    /// Kernels of our own, on the CPU.
    Native,
}

/// Where a model runs and what computes it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    device: Device,
    native: bool,
    threads: usize,
}

/// The native forward was asked for on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("--backend native is for the CPU: use --device cpu, or --backend auto")]
pub struct NotOnGpu;

impl Target {
    /// A device and what computes there; one call of the native forward takes up to `threads` threads. (LibTorch's are
    /// [set for all of it](super::libtorch::set_threads).)
    ///
    /// # Errors
    /// [`NotOnGpu`].
    pub fn new(device: Device, backend: Backend, threads: usize) -> Result<Target, NotOnGpu> {
        let native = match backend {
            Backend::Auto => !device.is_cuda(),
            Backend::LibTorch => false,
            Backend::Native if device.is_cuda() => return Err(NotOnGpu),
            Backend::Native => true,
        };
        Ok(Target { device, native, threads })
    }

    /// The name of what computes, as it is asked for.
    pub fn backend(&self) -> &'static str {
        if self.native { "native" } else { "libtorch" }
    }

    /// Whether the native forward computes.
    pub fn is_native(&self) -> bool {
        self.native
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Threads of one call.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Floating-point operations a second at products of matrices that suit what computes: the best of what was seen
    /// within `time`, a thread of a CPU.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn gemm_peak(&self, time: Duration) -> Result<f64, ForwardError> {
        match self.native {
            true => Ok(native::gemm_peak(Level::best(), time)),
            false if self.device.is_cuda() => libtorch::gemm_peak(self.device, time),
            false => Ok(libtorch::gemm_peak(self.device, time)? / self.threads.max(1) as f64),
        }
    }

    /// Makes weights ready to run.
    ///
    /// # Errors
    /// [`LoadError`] where the configuration is not sane, the weights do not fit it, or the device refuses them.
    pub fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        Ok(match self.native {
            true => Arc::new(Native::load(config, weights, self.threads)?),
            false => Arc::new(LibTorch::load(config, weights, self.device)?),
        })
    }
}
