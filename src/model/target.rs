use std::sync::Arc;
use std::time::Duration;

use super::checkpoint::Tolerance;
#[cfg(feature = "libtorch")]
use super::cuda::Cuda;
#[cfg(feature = "libtorch")]
use super::libtorch::{self, LibTorch};
use super::native::{self, Level, Native};
use super::{Device, Forward, ForwardError, LoadError, ModelConfig, Precision, Weights};

/// Which forward computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Native; on a GPU LibTorch where the native kernels do not fit the model or the device.
    Auto,
    /// LibTorch, on any device, where the build has it.
    #[value(name = "libtorch")]
    LibTorch,
    /// Kernels of our own.
    Native,
}

/// Where a model runs and what computes it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    device: Device,
    computes: Computes,
    precision: Precision,
    threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Computes {
    Native,
    /// Kernels of our own on a GPU; LibTorch where they do not fit and that is left open.
    #[cfg(feature = "libtorch")]
    Cuda {
        or_libtorch: bool,
    },
    #[cfg(feature = "libtorch")]
    LibTorch,
}

/// What was asked for does not go together, or not with this machine or build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// LibTorch was asked for of a build without it.
    #[error("--backend libtorch: this build has no LibTorch; use --backend native, or a build with it (`make build`)")]
    NoLibTorch,
    /// LibTorch's bfloat16 was asked for on a CPU, where it compiles a kernel for every number of rows that it meets.
    #[error("--precision bf16 on a CPU is for --backend native; with --backend libtorch use --precision fp32")]
    LibTorchOnCpu,
    /// The CPU cannot multiply bfloat16.
    #[error("--precision bf16 needs a CPU with AVX512-BF16, which this one lacks: use --precision fp32")]
    NoBf16,
}

impl Target {
    /// A device and what computes there; one call of the native forward takes up to `threads` threads. (LibTorch's are
    /// [set for all of it](super::set_threads).)
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn new(device: Device, backend: Backend, precision: Precision, threads: usize) -> Result<Target, TargetError> {
        let computes = match backend {
            Backend::Auto | Backend::Native if !device.is_cuda() => Computes::Native,
            #[cfg(feature = "libtorch")]
            Backend::Auto => Computes::Cuda { or_libtorch: true },
            #[cfg(feature = "libtorch")]
            Backend::Native => Computes::Cuda { or_libtorch: false },
            #[cfg(feature = "libtorch")]
            Backend::LibTorch => Computes::LibTorch,
            #[cfg(not(feature = "libtorch"))]
            Backend::Auto | Backend::Native | Backend::LibTorch => return Err(TargetError::NoLibTorch),
        };
        if precision == Precision::Bf16 && !device.is_cuda() {
            if computes != Computes::Native {
                return Err(TargetError::LibTorchOnCpu);
            }
            if !Level::best().multiplies_bf16() {
                return Err(TargetError::NoBf16);
            }
        }
        Ok(Target { device, computes, precision, threads })
    }

    /// Whether the native forward for CPUs computes.
    pub fn is_native(&self) -> bool {
        self.computes == Computes::Native
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }

    /// In which numbers it stores weights and multiplies.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// How far its answers may be from a checkpoint's recorded ones.
    pub fn tolerance(&self) -> Tolerance {
        match self.precision {
            Precision::Fp32 => Tolerance::FP32,
            Precision::Bf16 => Tolerance::BF16,
        }
    }

    /// Rows of a batch beyond which what computes gains little: a GPU takes longer to be told what to do than to do it.
    pub fn max_batch(&self) -> u16 {
        if self.device.is_cuda() { 256 } else { 64 }
    }

    /// How long what computes is slower at first than later: a GPU loads each kernel at its first use.
    pub fn warm_up(&self) -> Duration {
        if self.device.is_cuda() { Duration::from_millis(300) } else { Duration::ZERO }
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
        match self.computes {
            Computes::Native => Ok(native::gemm_peak(Level::best(), self.precision, time)),
            #[cfg(feature = "libtorch")]
            Computes::Cuda { .. } | Computes::LibTorch => {
                let threads = if self.device.is_cuda() { 1 } else { self.threads.max(1) };
                Ok(libtorch::gemm_peak(self.device, self.precision, time)? / threads as f64)
            }
        }
    }

    /// Floating-point operations a second of one thread that multiplies and adds in registers alone, in float32: what
    /// nothing that the native forward computes in it can exceed. `None` for what else computes.
    pub fn fma_peak(&self, time: Duration) -> Option<f64> {
        let bounds = self.is_native() && self.precision == Precision::Fp32;
        bounds.then(|| native::fma_peak(Level::best(), time))
    }

    /// Makes weights ready to run.
    ///
    /// # Errors
    /// [`LoadError`] where the configuration is not sane, the weights do not fit it, or the device refuses them.
    pub fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        Ok(match self.computes {
            Computes::Native => Arc::new(Native::load(self.precision, config, weights, self.threads)?),
            #[cfg(feature = "libtorch")]
            Computes::Cuda { or_libtorch } => {
                match Cuda::load(self.device.gpu.unwrap_or_default(), self.precision, config, weights) {
                    Ok(cuda) => Arc::new(cuda),
                    Err(error @ (LoadError::Misfit(_) | LoadError::Cuda(_))) if or_libtorch => {
                        tracing::warn!(%error, "the native kernels for GPUs cannot run this model here: LibTorch computes");
                        Arc::new(LibTorch::load_in(self.precision, config, weights, self.device)?)
                    }
                    Err(error) => return Err(error),
                }
            }
            #[cfg(feature = "libtorch")]
            Computes::LibTorch => Arc::new(LibTorch::load_in(self.precision, config, weights, self.device)?),
        })
    }
}
