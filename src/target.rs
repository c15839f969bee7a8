//! Which device and which backend a command computes with.

use std::sync::Arc;
use std::time::Duration;

use canet_cpu::{CpuBackend, Level};
use canet_model::{Backend, Device, ForwardError, Precision};
use clap::Args;

use crate::Failure;
use crate::gpu;

/// Most batches that run at a time.
pub(crate) const MOST_EXECUTORS: u16 = 256;

/// The device of a command.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N. auto takes the first GPU if there is one
    #[arg(long, env = "CANET_DEVICE", default_value = "auto")]
    device: String,
    /// CPU threads that compute [default: every core; for serve, every core but one]
    #[arg(long, env = "CANET_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// The device and the backend of a command.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// The implementation of the model. auto takes native, or libtorch on a GPU that the native kernels do not fit
    #[arg(long, env = "CANET_BACKEND", value_enum, default_value = "auto")]
    backend: BackendChoice,
    /// Number format of the model's linear layers. bf16 halves their memory, is faster where the hardware multiplies
    /// bfloat16, and changes scores a little. On a CPU it needs AVX512-BF16 and the native backend
    #[arg(long, env = "CANET_PRECISION", value_enum, default_value = "fp32")]
    precision: Precision,
}

/// A value of `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendChoice {
    /// native, or libtorch on a GPU that the native kernels do not fit
    Auto,
    /// LibTorch, on any device; not in a build without it
    #[value(name = "libtorch")]
    LibTorch,
    /// canet's own kernels, on the CPU unless --device names a GPU
    Native,
}

/// A device, a backend and a precision do not go together, or not with this machine or build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// The build has no LibTorch.
    #[error("--backend libtorch: this build has no LibTorch; use --backend native, or a build with it (`make build`)")]
    NoLibTorch,
    /// LibTorch compiles a bfloat16 kernel on a CPU for every number of rows that it meets.
    #[error("--precision bf16 on a CPU is for --backend native; with --backend libtorch use --precision fp32")]
    LibTorchOnCpu,
    /// The CPU cannot multiply bfloat16.
    #[error("--precision bf16: {0}; use --precision fp32")]
    NoBf16(#[from] canet_cpu::NoBf16),
}

impl TargetArgs {
    /// Every thread for one batch.
    pub(crate) fn open(&self) -> Result<Arc<dyn Backend>, Failure> {
        self.open_for(1, 0)
    }

    /// Every thread for several executors, each with its share. Each forward keeps up to `history_cache` bytes of states
    /// of histories, if it can.
    pub(crate) fn open_for(&self, executors: u16, history_cache: usize) -> Result<Arc<dyn Backend>, Failure> {
        self.share(executors, self.device.threads.unwrap_or_else(cores), history_cache)
    }

    /// For executors beside the runtime, each with its share of the threads: no more compute than there are cores.
    /// Returns their number too, which is chosen if none is given. Each forward keeps up to `history_cache` bytes of states
    /// of histories, if it can.
    ///
    /// The native backend runs fastest with a thread an executor (docs/performance.md). A batch of LibTorch takes all threads.
    pub(crate) fn open_beside_runtime(
        &self,
        executors: Option<u16>,
        history_cache: usize,
    ) -> Result<(Arc<dyn Backend>, u16), Failure> {
        let threads = self.device.threads.unwrap_or(cores().saturating_sub(1)).max(1);
        let given = executors.unwrap_or(1);
        let backend = self.share(given, threads, history_cache)?;
        if executors.is_none() && self.backend != BackendChoice::LibTorch && !backend.device().is_cuda() {
            let executors = threads.min(MOST_EXECUTORS);
            return Ok((self.share(executors, threads, history_cache)?, executors));
        }
        Ok((backend, given))
    }

    fn share(&self, executors: u16, threads: u16, history_cache: usize) -> Result<Arc<dyn Backend>, Failure> {
        let share = (threads / executors).max(1);
        let device = match (self.backend, self.device.device.as_str()) {
            // As --help says: only --device asks for the native kernels of a GPU.
            (BackendChoice::Native, "auto") => Device::CPU,
            _ => self.device.open(share)?,
        };
        if device.is_cuda() && executors > 1 {
            return Err(Failure::usage("--executors above 1 is for the CPU: a GPU runs one batch at a time"));
        }
        let settings = BackendSettings { precision: self.precision, threads: share.into(), history_cache };
        choose(device, self.backend, settings).map_err(Failure::usage)
    }

    /// Floating-point operations a second and a thread at products of matrices that suit the backend: the best
    /// seen within `time`.
    pub(crate) fn gemm_peak(&self, backend: &dyn Backend, time: Duration) -> Result<f64, ForwardError> {
        if backend.device().is_cuda() || self.backend == BackendChoice::LibTorch {
            return gpu::gemm_peak(backend, time);
        }
        Ok(canet_cpu::gemm_peak(Level::best(), backend.precision(), time))
    }

    /// Floating-point operations a second of one thread that multiplies and adds float32 in registers alone: an upper
    /// bound for the native backend on a CPU. `None` for others.
    pub(crate) fn fma_peak(&self, backend: &dyn Backend, time: Duration) -> Option<f64> {
        let bounds = self.backend != BackendChoice::LibTorch
            && !backend.device().is_cuda()
            && backend.precision() == Precision::Fp32;
        bounds.then(|| canet_cpu::fma_peak(Level::best(), time))
    }
}

impl DeviceArgs {
    /// What computes on the device by itself, in float32 and with every thread.
    #[cfg(feature = "libtorch")]
    pub(crate) fn open_alone(&self) -> Result<Arc<dyn Backend>, Failure> {
        let threads = self.threads.unwrap_or_else(cores);
        let device = self.open(threads)?;
        let settings = BackendSettings { precision: Precision::Fp32, threads: usize::from(threads), history_cache: 0 };
        choose(device, BackendChoice::Auto, settings).map_err(Failure::usage)
    }

    fn open(&self, threads: u16) -> Result<Device, Failure> {
        // Before any thread has computed: LibTorch gives this number to each that does later.
        gpu::set_threads(threads);
        Device::parse(&self.device, gpu::count).map_err(|error| match error {
            canet_model::DeviceError::Unknown(_) => Failure::usage(error),
            canet_model::DeviceError::NoLibrary { .. } | canet_model::DeviceError::NoGpu { .. } => {
                Failure::unavailable(error)
            }
        })
    }
}

/// Precision, threads and cache of a backend.
#[derive(Clone, Copy)]
struct BackendSettings {
    precision: Precision,
    /// The most threads of one call.
    threads: usize,
    /// The most bytes of kept states of histories. Only the native backend on a CPU keeps any.
    history_cache: usize,
}

/// The backend for a device.
fn choose(device: Device, backend: BackendChoice, settings: BackendSettings) -> Result<Arc<dyn Backend>, TargetError> {
    let BackendSettings { precision, threads, .. } = settings;
    let chosen = match (backend, device.is_cuda()) {
        (BackendChoice::Auto | BackendChoice::Native, false) => Some(cpu(settings)?),
        (BackendChoice::LibTorch, _) => gpu::libtorch(device, precision, threads),
        (BackendChoice::Native, true) => gpu::native(device, precision),
        (BackendChoice::Auto, true) => gpu::native_or_libtorch(device, precision),
    };
    let chosen = chosen.ok_or(TargetError::NoLibTorch)?;
    if backend == BackendChoice::LibTorch && precision == Precision::Bf16 && !device.is_cuda() {
        return Err(TargetError::LibTorchOnCpu);
    }
    Ok(chosen)
}

/// The native backend on this machine's CPU.
fn cpu(settings: BackendSettings) -> Result<Arc<dyn Backend>, canet_cpu::NoBf16> {
    let BackendSettings { precision, threads, history_cache } = settings;
    Ok(Arc::new(CpuBackend::new(precision, threads)?.with_history_cache(history_cache)))
}

/// Cores that the process may use.
pub(crate) fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The type of the backend, or the error's text.
    fn chosen(backend: BackendChoice, precision: Precision) -> String {
        let settings = BackendSettings { precision, threads: 1, history_cache: 0 };
        match choose(Device::CPU, backend, settings) {
            Ok(target) => format!("{target:?}").split(' ').next().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    const NO_LIBTORCH: &str = "--backend libtorch: this build has no LibTorch";

    #[test]
    fn a_cpu_gets_the_native_backend_unless_told() {
        assert_eq!(chosen(BackendChoice::Auto, Precision::Fp32), "CpuBackend");
        assert_eq!(chosen(BackendChoice::Native, Precision::Fp32), "CpuBackend");
        let libtorch = if cfg!(feature = "libtorch") { "TorchBackend" } else { NO_LIBTORCH };
        assert!(chosen(BackendChoice::LibTorch, Precision::Fp32).starts_with(libtorch));
    }

    #[test]
    fn a_backend_that_cannot_compute_bfloat16_well_is_refused() {
        let libtorch = if cfg!(feature = "libtorch") { "--precision bf16 on a CPU" } else { NO_LIBTORCH };
        assert!(chosen(BackendChoice::LibTorch, Precision::Bf16).starts_with(libtorch));
        let native = if Level::best().multiplies_bf16() { "CpuBackend" } else { "--precision bf16: " };
        assert!(chosen(BackendChoice::Auto, Precision::Bf16).starts_with(native));
        assert!(chosen(BackendChoice::Native, Precision::Bf16).starts_with(native));
    }
}
