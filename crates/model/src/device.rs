use std::fmt;

/// Where tensors live and kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// A GPU's number; none for the CPU.
    gpu: Option<u16>,
}

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A name that is no device's.
    #[error("device {0:?} is unknown: use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    /// LibTorch's CUDA libraries are not installed where the binary looks for them, or the build has no LibTorch.
    #[error(
        "device {device} needs LibTorch's CUDA libraries, which cannot be used ({reason}): use --device cpu, or run `make setup` on a machine with a GPU and build with `make build`"
    )]
    NoLibrary {
        /// The device asked for.
        device: String,
        /// Why: the dynamic linker's words, or those of a build without LibTorch.
        reason: String,
    },
    /// The libraries are there, the GPU or its driver is not.
    #[error(
        "device {device} is not there: {found} CUDA devices are visible; use --device cpu, or check the driver and CUDA_VISIBLE_DEVICES"
    )]
    NoGpu {
        /// The device asked for.
        device: String,
        /// Devices that are.
        found: i64,
    },
}

impl Device {
    /// The CPU, which is always there.
    pub const CPU: Device = Device { gpu: None };

    /// The device of a name: `cpu`, `cuda`, `cuda:N`, or `auto`, which is the first GPU if there is one. `count_gpus` tells
    /// how many GPUs are visible, or why none can be.
    ///
    /// # Errors
    /// [`DeviceError`] if the name is unknown or the device is not there.
    pub fn parse(name: &str, count_gpus: impl Fn() -> Result<i64, String>) -> Result<Device, DeviceError> {
        let gpu = |ordinal: u16| {
            let device = name.to_owned();
            match count_gpus() {
                Err(reason) => Err(DeviceError::NoLibrary { device, reason }),
                Ok(found) if i64::from(ordinal) >= found => Err(DeviceError::NoGpu { device, found }),
                Ok(_) => Ok(Device { gpu: Some(ordinal) }),
            }
        };
        match name {
            "cpu" => Ok(Device::CPU),
            "auto" => Ok(gpu(0).unwrap_or(Device::CPU)),
            "cuda" => gpu(0),
            _ => {
                let ordinal = name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok());
                gpu(ordinal.ok_or_else(|| DeviceError::Unknown(name.to_owned()))?)
            }
        }
    }

    /// Whether this is a GPU.
    pub fn is_cuda(self) -> bool {
        self.gpu.is_some()
    }

    /// The GPU's number; `None` for the CPU.
    pub fn gpu(self) -> Option<u16> {
        self.gpu
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gpu {
            Some(ordinal) => write!(f, "cuda:{ordinal}"),
            None => f.write_str("cpu"),
        }
    }
}
