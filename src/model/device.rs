use std::fmt;

/// Where tensors live and kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// A GPU's number; none for the CPU.
    pub(super) gpu: Option<u16>,
}

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A name that is no device's.
    #[error("device {0:?} is unknown: use auto, cpu, cuda or cuda:N")]
    Unknown(String),
    /// LibTorch's CUDA half is not installed where the binary looks for it.
    #[error(
        "device {device} needs LibTorch's CUDA libraries, which did not load ({reason}): run `make setup` on a machine with a GPU, or use --device cpu"
    )]
    NoLibrary {
        /// The device asked for.
        device: String,
        /// The dynamic linker's words.
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
    /// A GPU was asked for of a build without LibTorch.
    #[error(
        "device {device} needs LibTorch, and this build has none: use --device cpu, or a build with it (`make build`)"
    )]
    NoLibTorch {
        /// The device asked for.
        device: String,
    },
}

impl Device {
    /// The CPU, which is always there.
    pub const CPU: Device = Device { gpu: None };

    /// The device of a name: `cpu`, `cuda`, `cuda:N`, or `auto`, which is the first GPU where there is one.
    ///
    /// # Errors
    /// [`DeviceError`] where the name is unknown or the device is not there.
    pub fn parse(name: &str) -> Result<Device, DeviceError> {
        match name {
            "cpu" => Ok(Device::CPU),
            "auto" => Ok(Device::cuda(name, 0).unwrap_or(Device::CPU)),
            "cuda" => Device::cuda(name, 0),
            _ => {
                let ordinal = name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok());
                Device::cuda(name, ordinal.ok_or_else(|| DeviceError::Unknown(name.to_owned()))?)
            }
        }
    }

    /// Whether this is a GPU.
    pub fn is_cuda(self) -> bool {
        self.gpu.is_some()
    }

    #[cfg(feature = "libtorch")]
    fn cuda(name: &str, ordinal: u16) -> Result<Device, DeviceError> {
        let device = name.to_owned();
        match super::libtorch::gpus() {
            Err(reason) => Err(DeviceError::NoLibrary { device, reason: reason.to_string() }),
            Ok(found) if i64::from(ordinal) >= found => Err(DeviceError::NoGpu { device, found }),
            Ok(_) => Ok(Device { gpu: Some(ordinal) }),
        }
    }

    #[cfg(not(feature = "libtorch"))]
    fn cuda(name: &str, _: u16) -> Result<Device, DeviceError> {
        Err(DeviceError::NoLibTorch { device: name.to_owned() })
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
