use crate::model::Device;

impl Device {
    /// The same, in tch's words.
    pub fn tch(self) -> tch::Device {
        self.gpu.map_or(tch::Device::Cpu, |ordinal| tch::Device::Cuda(usize::from(ordinal)))
    }
}

/// How many GPUs are visible. Loads LibTorch's CUDA half into the process, for good: its kernels register themselves as it
/// loads.
///
/// The binary links the CPU half alone, so that one binary serves both kinds of machine. This must happen before
/// anything asks LibTorch about CUDA, because it caches that answer for the life of the process.
///
/// # Errors
/// The dynamic linker's words where that half is not installed.
pub(in crate::model) fn gpus() -> Result<i64, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
    // SAFETY: the library is LibTorch's own, of the version that this binary is linked against; its initialisers only
    // register kernels and are made to run at load time.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) }?;
    // Never unloaded: the registered kernels point into it.
    std::mem::forget(library);
    Ok(tch::Cuda::device_count())
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
pub(in crate::model) fn use_one_thread_here() {
    let default = tch::get_num_threads();
    tch::set_num_threads(1);
    // Where no thread can be started, later threads compute on one core: slower, not wrong.
    if let Ok(setter) = std::thread::Builder::new().spawn(move || tch::set_num_threads(default)) {
        drop(setter.join());
    }
}
