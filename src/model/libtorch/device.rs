use std::fmt;

/// Where tensors live and kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device(tch::Device);

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
}

impl Device {
    /// The CPU, which is always there.
    pub const CPU: Device = Device(tch::Device::Cpu);

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
        matches!(self.0, tch::Device::Cuda(_))
    }

    /// The same, in tch's words.
    pub fn tch(self) -> tch::Device {
        self.0
    }

    fn cuda(name: &str, ordinal: u16) -> Result<Device, DeviceError> {
        load_cuda_library()
            .map_err(|reason| DeviceError::NoLibrary { device: name.to_owned(), reason: reason.to_string() })?;
        let found = tch::Cuda::device_count();
        if i64::from(ordinal) >= found {
            return Err(DeviceError::NoGpu { device: name.to_owned(), found });
        }
        Ok(Device(tch::Device::Cuda(usize::from(ordinal))))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            tch::Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            _ => f.write_str("cpu"),
        }
    }
}

/// Loads LibTorch's CUDA half into the process, for good: its kernels register themselves as it loads.
///
/// The binary links the CPU half alone, so that one binary serves both kinds of machine. This must happen before
/// anything asks LibTorch about CUDA, because it caches that answer for the life of the process.
fn load_cuda_library() -> Result<(), libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
    // SAFETY: the library is LibTorch's own, of the version that this binary is linked against; its initialisers only
    // register kernels and are made to run at load time.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) }?;
    // Never unloaded: the registered kernels point into it.
    std::mem::forget(library);
    Ok(())
}

/// Sets the threads that one LibTorch operation may use on the CPU. LibTorch's own default is every core, whatever
/// else runs on them.
pub fn set_threads(threads: u16) {
    tch::set_num_threads(i32::from(threads.max(1)));
}

/// Bounds the operations of the calling thread to one CPU thread, for good; all other threads keep theirs.
///
/// LibTorch's setter sets the count of the calling thread and the default of threads that have computed nothing yet,
/// so the default is set back, on a thread of its own.
pub fn use_one_thread_here() {
    let default = tch::get_num_threads();
    tch::set_num_threads(1);
    // Where no thread can be started, later threads compute on one core: slower, not wrong.
    if let Ok(setter) = std::thread::Builder::new().spawn(move || tch::set_num_threads(default)) {
        drop(setter.join());
    }
}
