use clap::Args;

use super::Failure;
use crate::model::libtorch::{Device, DeviceError, set_threads};

/// Where a command computes.
#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N; auto takes the first GPU where there is one.
    #[arg(long, env = "CANET_DEVICE", default_value = "auto")]
    device: String,
    /// CPU threads for one operation [default: every core; serve leaves one to HTTP].
    #[arg(long, env = "CANET_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

impl DeviceArgs {
    /// The device, with LibTorch's threads set.
    pub(super) fn open(&self) -> Result<Device, Failure> {
        self.open_beside(0)
    }

    /// The device, with LibTorch's threads set to the cores but `busy`, on which other threads of the process run.
    pub(super) fn open_beside(&self, busy: u16) -> Result<Device, Failure> {
        set_threads(self.threads.unwrap_or(cores().saturating_sub(busy)));
        Device::parse(&self.device).map_err(|error| match error {
            DeviceError::Unknown(_) => Failure::usage(error),
            DeviceError::NoLibrary { .. } | DeviceError::NoGpu { .. } => Failure::unavailable(error),
        })
    }
}

/// Cores that the process may use.
pub(super) fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX))
}
