use std::fmt;

/// The CPU or one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The GPU's number; `None` for the CPU.
    gpu: Option<u16>,
}

/// Why a device is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The name is not a device's.
    #[error("device {0:?} is unknown: use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    /// LibTorch's CUDA libraries are missing, or the build has no LibTorch.
    #[error(
        "device {device} needs LibTorch's CUDA libraries, which cannot be used ({reason}): use --device cpu, or run `make setup` on a machine with a GPU and build with `make build`"
    )]
    NoLibrary {
        /// The requested device.
        device: String,
        /// The dynamic linker's error, or that of a build without LibTorch.
        reason: String,
    },
    /// The libraries are installed, but the GPU or its driver is missing.
    #[error(
        "device {device} is not there: {found} CUDA devices are visible; use --device cpu, or check the driver and CUDA_VISIBLE_DEVICES"
    )]
    NoGpu {
        /// The requested device.
        device: String,
        /// Number of visible devices.
        found: i64,
    },
}

impl Device {
    /// The CPU, which is always available.
    pub const CPU: Device = Device { gpu: None };

    /// The device of a name: `cpu`, `cuda`, `cuda:N`, or `auto`, which is the first GPU if there is one. `count_gpus` returns
    /// the number of visible GPUs, or the reason why none can be used.
    ///
    /// # Errors
    /// [`DeviceError`] if the name is unknown or the device is not available.
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
