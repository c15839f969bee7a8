use std::cell::Cell;

use canet_model::{Device, threads_allowed_here};

/// A device in tch's words.
pub fn tch_device(device: Device) -> tch::Device {
    device.gpu().map_or(tch::Device::Cpu, |ordinal| tch::Device::Cuda(usize::from(ordinal)))
}

/// How many GPUs are visible. Loads LibTorch's CUDA half into the process, for good: its kernels register themselves as it
/// loads.
///
/// The binary links the CPU half alone, so that one binary serves both kinds of machine. This must happen before
/// anything asks LibTorch about CUDA, because it caches that answer for the life of the process.
///
/// # Errors
/// The dynamic linker's words where that half is not installed.
pub fn count_gpus() -> Result<i64, String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
    // SAFETY: the library is LibTorch's own, of the version that this binary is linked against; its initialisers only
    // register kernels and are made to run at load time.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| error.to_string())?;
    // Never unloaded: the registered kernels point into it.
    std::mem::forget(library);
    Ok(tch::Cuda::device_count())
}

/// Sets the threads that one LibTorch operation may use on the CPU. LibTorch's own default is every core, whatever
/// else runs on them.
pub fn set_threads(threads: u16) {
    tch::set_num_threads(i32::from(threads.max(1)));
}

thread_local! {
    static BOUND: Cell<bool> = const { Cell::new(false) };
}

/// Bounds LibTorch's operations on the calling thread to that thread, if [it asked for that](canet_model::use_one_thread_here).
///
/// LibTorch's setter sets the count of the calling thread and the default of threads that have computed nothing yet,
/// so the default is set back, on a thread of its own.
pub(crate) fn heed_thread_bound() {
    if BOUND.get() || threads_allowed_here(2) > 1 {
        return;
    }
    BOUND.set(true);
    let default = tch::get_num_threads();
    tch::set_num_threads(1);
    // If no thread can be started, later threads compute on one core: slower, not wrong.
    if let Ok(setter) = std::thread::Builder::new().spawn(move || tch::set_num_threads(default)) {
        drop(setter.join());
    }
}
