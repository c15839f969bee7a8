use clap::Args;

use super::Failure;
use crate::model::{Backend, Device, DeviceError, Precision, Target, set_threads};

/// Most batches that run at a time.
pub(super) const MOST_EXECUTORS: u16 = 256;

/// Where a command computes.
#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N; auto takes the first GPU where there is one.
    #[arg(long, env = "CANET_DEVICE", default_value = "auto")]
    device: String,
    /// CPU threads that compute [default: every core; serve leaves one to HTTP and divides the rest by --executors].
    #[arg(long, env = "CANET_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// Where a command runs a model, and what computes it.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// What computes: native, kernels of our own; libtorch; auto takes native, on a GPU libtorch where native does not fit
    #[arg(long, env = "CANET_BACKEND", value_enum, default_value = "auto")]
    backend: Backend,
    /// In which numbers the model's linear layers are stored and multiplied: bf16 takes half the memory and about half the
    /// time, and moves scores a little; on a CPU it needs AVX512-BF16 and the native backend
    #[arg(long, env = "CANET_PRECISION", value_enum, default_value = "fp32")]
    precision: Precision,
}

impl TargetArgs {
    /// Every thread for one batch.
    pub(super) fn open(&self) -> Result<Target, Failure> {
        self.open_for(1)
    }

    /// Every thread for several executors, each with its share.
    pub(super) fn open_for(&self, executors: u16) -> Result<Target, Failure> {
        self.share(executors, self.device.threads.unwrap_or_else(cores))
    }

    /// For executors beside the runtime, each with its share of the threads: no more compute than there are cores.
    /// Returns their number too, which is chosen where none is given.
    ///
    /// A thread each is what native runs fastest on (docs/performance.md); LibTorch's batches take all threads.
    pub(super) fn open_beside_runtime(&self, executors: Option<u16>) -> Result<(Target, u16), Failure> {
        let threads = self.device.threads.unwrap_or(cores().saturating_sub(1)).max(1);
        let given = executors.unwrap_or(1);
        let target = self.share(given, threads)?;
        if executors.is_none() && target.is_native() {
            let executors = threads.min(MOST_EXECUTORS);
            return Ok((self.share(executors, threads)?, executors));
        }
        Ok((target, given))
    }

    fn share(&self, executors: u16, threads: u16) -> Result<Target, Failure> {
        let share = (threads / executors).max(1);
        let device = match (self.backend, self.device.device.as_str()) {
            // Only a CPU can be meant.
            (Backend::Native, "auto") => Device::CPU,
            _ => self.device.open_with(share)?,
        };
        if device.is_cuda() && executors > 1 {
            return Err(Failure::usage("--executors above 1 is for the CPU: a GPU runs one batch at a time"));
        }
        Target::new(device, self.backend, self.precision, share.into()).map_err(Failure::usage)
    }
}

impl DeviceArgs {
    /// What computes there by itself, with LibTorch's threads set.
    #[cfg(feature = "libtorch")]
    pub(super) fn open(&self) -> Result<Target, Failure> {
        let threads = self.threads.unwrap_or_else(cores);
        Target::new(self.open_with(threads)?, Backend::Auto, Precision::Fp32, usize::from(threads))
            .map_err(Failure::usage)
    }

    fn open_with(&self, threads: u16) -> Result<Device, Failure> {
        // Before any thread has computed: LibTorch gives this number to each that does later.
        set_threads(threads);
        Device::parse(&self.device).map_err(|error| match error {
            DeviceError::Unknown(_) => Failure::usage(error),
            DeviceError::NoLibrary { .. } | DeviceError::NoGpu { .. } | DeviceError::NoLibTorch { .. } => {
                Failure::unavailable(error)
            }
        })
    }
}

/// Cores that the process may use.
pub(super) fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}
