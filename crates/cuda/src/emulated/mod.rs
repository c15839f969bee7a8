//! A driver that runs the kernels on a CPU: the machine's C++ compiler compiles the same source, behind other
//! primitives.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::process::Command;
use std::sync::Mutex;

use libloading::{Library, Symbol};
use tempfile::TempDir;

use super::driver::{Argument, CudaError, Driver, Launch};
use super::sizes::KernelSizes;

mod tests;

/// Threads of a block: few, because they take turns.
const THREADS: usize = 128;

struct Emulated {
    library: Library,
    /// Held by a launch, because blocks share static variables.
    alone: Mutex<()>,
    _directory: TempDir,
}

/// Memory, aligned to 16 bytes, and its number of words. A kernel may write it behind a shared reference, as on a GPU.
struct Memory(Mutex<Vec<u128>>, usize);

/// `emulated_launch` of `launch.h`. The caller must pass the arguments of the named kernel and must be the only caller.
type Entry = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_int, usize, *mut *mut c_void) -> c_int;

impl Emulated {
    fn new(sizes: &KernelSizes) -> Emulated {
        let directory = tempfile::tempdir().unwrap();
        let [source, library] = ["kernels.cpp", "kernels.so"].map(|name| directory.path().join(name));
        let text = sizes.source(include_str!("primitives.h")) + include_str!("launch.h");
        std::fs::write(&source, text).unwrap();
        let flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-w"];
        let made = Command::new("c++").args(flags).arg(&source).arg("-o").arg(&library).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
        // SAFETY: the library was compiled a line above and has no initialisers.
        let library = unsafe { Library::new(&library) }.unwrap();
        Emulated { library, alone: Mutex::new(()), _directory: directory }
    }
}

impl Driver for Emulated {
    type Memory = Memory;

    fn threads(&self) -> usize {
        THREADS
    }

    fn processors(&self) -> usize {
        3
    }

    fn memory(&self, words: usize) -> Result<Memory, CudaError> {
        // Unwritten memory reads as NaN.
        Ok(Memory(Mutex::new(vec![u128::MAX; words.div_ceil(4)]), words))
    }

    fn upload(&self, to: &Memory, words: &[u32]) -> Result<(), CudaError> {
        assert!(words.len() <= to.1);
        let mut memory = to.0.lock().unwrap();
        for (place, word) in words.iter().enumerate() {
            let shift = place % 4 * 32;
            let whole = &mut memory[place / 4];
            *whole = *whole & !(u128::from(u32::MAX) << shift) | u128::from(*word) << shift;
        }
        Ok(())
    }

    fn download(&self, from: &Memory, first: usize, to: &mut [u32]) -> Result<(), CudaError> {
        assert!(first + to.len() <= from.1);
        let memory = from.0.lock().unwrap();
        for (place, word) in (first..).zip(to) {
            *word = (memory[place / 4] >> (place % 4 * 32)) as u32;
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), CudaError> {
        Ok(())
    }

    fn launch(&self, launch: &Launch, arguments: &[Argument<'_, Memory>]) -> Result<(), CudaError> {
        let _alone = self.alone.lock().unwrap();
        let mut values: Vec<u64> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Memory(memory, first) => memory.0.lock().unwrap().as_mut_ptr() as u64 + 4 * *first as u64,
                Argument::Number(number) => *number as u64,
            })
            .collect();
        let mut places: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let name = CString::new(launch.kernel.name()).unwrap();
        let [x, y] = launch.grid.map(|blocks| blocks as c_uint);
        #[expect(unsafe_code, reason = "a kernel reads and writes by address")]
        // SAFETY: the arguments are those of the kernel, as on a GPU, and the lock admits one thread.
        let missing = unsafe {
            let entry: Symbol<'_, Entry> = self.library.get(b"emulated_launch").unwrap();
            entry(name.as_ptr(), x, y, THREADS as c_int, launch.shared, places.as_mut_ptr())
        };
        assert_eq!(missing, 0, "{name:?} is not known");
        Ok(())
    }
}
