use std::cell::Cell;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tch::Tensor;

use super::error::TorchError;
use super::load::kind;
use canet_model::{Device, Precision, threads_allowed_here};

/// The device as tch knows it.
pub fn tch_device(device: Device) -> tch::Device {
    device.gpu().map_or(tch::Device::Cpu, |ordinal| tch::Device::Cuda(usize::from(ordinal)))
}

/// The number of visible GPUs. Loads LibTorch's CUDA libraries into the process for good.
///
/// The binary links the CPU libraries alone, so that it runs on machines with and without a GPU. Call this before
/// anything asks LibTorch about CUDA: LibTorch caches that answer for the whole process.
///
/// # Errors
/// The dynamic linker's message if the libraries are not installed.
pub fn count_gpus() -> Result<i64, String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
    // SAFETY: the library is LibTorch's own, of the version that this binary links. Its initialisers only register
    // kernels and are made to run at load time.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| error.to_string())?;
    // Never unloaded: the registered kernels point into it.
    std::mem::forget(library);
    Ok(tch::Cuda::device_count())
}

/// LibTorch's default of threads, as [`set_threads`] set it, or as the first forward found it.
///
/// Whoever holds the lock may change what LibTorch believes to be the default. It must be this one again when the lock is free.
static DEFAULT: Mutex<Option<i32>> = Mutex::new(None);

/// Sets the threads that one LibTorch operation may use on the CPU. LibTorch's own default is every core.
pub fn set_threads(threads: u16) {
    let threads = i32::from(threads.max(1));
    let mut default = DEFAULT.lock();
    *default = Some(threads);
    tch::set_num_threads(threads);
}

thread_local! {
    /// Whether the calling thread has been limited to one thread. `None` before its first forward.
    static LIMITED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Limits LibTorch's operations on the calling thread to one thread, if [that was
/// requested](canet_model::use_one_thread_here).
///
/// LibTorch's setter sets both the calling thread's count and the default of threads that have not computed yet. So a
/// thread of its own sets the default back. Every thread takes its count from the default under the lock, before its first
/// forward. Otherwise it could find the limit of another one there, and keep it.
pub(crate) fn apply_thread_limit() {
    let limited = threads_allowed_here(2) == 1;
    if LIMITED.get() == Some(limited) {
        return;
    }
    let mut locked = DEFAULT.lock();
    let here = tch::get_num_threads();
    let default = *locked.get_or_insert(here);
    if limited {
        tch::set_num_threads(1);
        // If no thread starts, later threads compute on one core: slower, but correct.
        if let Ok(setter) = std::thread::Builder::new().spawn(move || tch::set_num_threads(default)) {
            drop(setter.join());
        }
    } else if here != default {
        tch::set_num_threads(default);
    }
    LIMITED.set(Some(limited));
}

/// Rows and columns of the matrices.
const SIZE: i64 = 1024;

/// Floating-point operations a second on products of large matrices. A multiply-add counts as 2. Returns the best rate
/// within `time`.
///
/// # Errors
/// [`TorchError`] if the device fails.
pub fn gemm_peak(device: Device, precision: Precision, time: Duration) -> Result<f64, TorchError> {
    let matrix = Tensor::f_ones([SIZE, SIZE], (kind(precision), tch_device(device)))?;
    let (started, mut best) = (Instant::now(), 0.0_f64);
    while started.elapsed() < time {
        let round = Instant::now();
        // Reads one value back, so that the device has finished when the clock is read.
        matrix.f_matmul(&matrix)?.f_get(0)?.f_double_value(&[0])?;
        best = best.max(2.0 * (SIZE as f64).powi(3) / round.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use canet_model::use_one_thread_here;

    use super::*;

    #[test]
    fn threads_that_are_limited_at_the_same_time_leave_the_default_as_it_was() {
        set_threads(3);
        let limited = || {
            use_one_thread_here();
            apply_thread_limit();
            tch::get_num_threads()
        };
        let free = || {
            apply_thread_limit();
            tch::get_num_threads()
        };
        for _ in 0..20 {
            thread::scope(|scope| {
                let started: Vec<_> = (0..8).map(|_| (scope.spawn(limited), scope.spawn(free))).collect();
                for (limited, free) in started {
                    assert_eq!((limited.join().unwrap(), free.join().unwrap()), (1, 3));
                }
            });
            assert_eq!(thread::spawn(tch::get_num_threads).join().unwrap(), 3);
        }
    }
}
