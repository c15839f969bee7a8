use std::ffi::{c_int, c_void};
use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result};
use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};
use parking_lot::Mutex;

use super::driver::{Argument, CudaError, Driver, Kernel, Launch};
use super::sizes::KernelSizes;

/// The major compute capability that the kernels need: tensor cores for eleven bits and for bfloat16.
const LEAST_CAPABILITY: i32 = 8;

/// The number of compiled modules that are kept: two generations of two models.
const CACHED_MODULES: usize = 4;

/// Compiled kernels, kept for the next generation of the same sizes.
static COMPILED: Mutex<Vec<Compiled>> = Mutex::new(Vec::new());

/// The compiled kernels of a source, in a GPU's memory.
struct Compiled {
    ordinal: usize,
    source: String,
    module: Arc<CudaModule>,
}

/// A GPU, a stream of its own, and the kernels for a model's sizes.
pub(crate) struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: [CudaFunction; Kernel::ALL.len()],
    processors: usize,
}

/// What a GPU offers a block of threads.
pub(crate) struct Limits {
    context: Arc<CudaContext>,
    /// Bytes of shared memory.
    pub(crate) shared: usize,
    capability: (i32, i32),
    processors: usize,
}

/// Words of a GPU's memory.
pub(crate) struct GpuMemory {
    context: Arc<CudaContext>,
    address: u64,
    words: usize,
}

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> CudaError {
        CudaError(error.to_string())
    }
}

impl Gpu {
    /// Threads of a block.
    pub(crate) const THREADS: usize = 512;

    /// Opens a GPU.
    ///
    /// # Errors
    /// [`CudaError`] if the driver, the compiler or the device is missing, or if the device is too old.
    pub(crate) fn limits(ordinal: u16) -> Result<Limits, CudaError> {
        preload();
        #[expect(unsafe_code, reason = "looking for a library opens it")]
        // SAFETY: both are NVIDIA's own libraries, which are made to be opened at run time.
        let present = unsafe { [cudarc::driver::sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()] };
        if !present[0] {
            return Err(CudaError("the driver, libcuda.so.1, is not there".to_owned()));
        }
        if !present[1] {
            return Err(CudaError("the compiler, libnvrtc.so.13, is not there".to_owned()));
        }
        let context = CudaContext::new(usize::from(ordinal))?;
        let capability = context.compute_capability()?;
        if capability.0 < LEAST_CAPABILITY {
            let (major, minor) = capability;
            return Err(CudaError(format!("its compute capability is {major}.{minor}, and the kernels need 8.0")));
        }
        let shared = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let processors = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        Ok(Limits { context, shared: shared.max(0) as usize, capability, processors: processors.max(1) as usize })
    }

    /// Compiles the kernels, or takes them from the cache.
    pub(crate) fn open(limits: &Limits, sizes: &KernelSizes) -> Result<Gpu, CudaError> {
        let context = limits.context.clone();
        context.bind_to_thread()?;
        let source = sizes.source(include_str!("kernels/primitives.cuh"));
        let module = compiled(limits, source)?;
        let kernel = |kernel: Kernel| -> Result<CudaFunction, CudaError> {
            let function = module.load_function(kernel.name())?;
            let shared = match kernel {
                Kernel::Backbone => sizes.shared[0],
                Kernel::Router => sizes.shared[1],
                Kernel::Score => sizes.shared[2],
                Kernel::Select => return Ok(function),
            };
            function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared as c_int)?;
            Ok(function)
        };
        let [backbone, router, score, select] = Kernel::ALL.map(kernel);
        Ok(Gpu {
            stream: context.new_stream()?,
            context,
            kernels: [backbone?, router?, score?, select?],
            processors: limits.processors,
        })
    }
}

/// Opens the compiler's libraries. NVRTC opens its builtins by name alone, and only this binary's rpath leads to their
/// directory.
fn preload() {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    for name in ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"] {
        #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
        // SAFETY: they are NVIDIA's own libraries, which are made to be opened at run time.
        if let Ok(library) = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) } {
            std::mem::forget(library);
        }
    }
}

fn compiled(limits: &Limits, source: String) -> Result<Arc<CudaModule>, CudaError> {
    let mut compiled = COMPILED.lock();
    let ordinal = limits.context.ordinal();
    if let Some(place) = compiled.iter().position(|known| known.ordinal == ordinal && known.source == source) {
        // The least recently used module is first.
        let known = compiled.remove(place);
        let module = known.module.clone();
        compiled.push(known);
        return Ok(module);
    }
    let (major, minor) = limits.capability;
    let options = CompileOptions {
        options: vec![format!("--gpu-architecture=compute_{major}{minor}"), "--std=c++17".to_owned()],
        ..CompileOptions::default()
    };
    let image = compile_ptx_with_opts(&source, options).map_err(|error| match error {
        CompileError::CompileError { log, .. } => {
            CudaError(format!("compiling the kernels: {}", log.to_string_lossy()))
        }
        error => CudaError(format!("compiling the kernels: {error:?}")),
    })?;
    let module = limits.context.load_module(image)?;
    if compiled.len() >= CACHED_MODULES {
        // Forwards that still run hold their module.
        compiled.remove(0);
    }
    compiled.push(Compiled { ordinal, source, module: module.clone() });
    Ok(module)
}

impl Driver for Gpu {
    type Memory = GpuMemory;

    fn threads(&self) -> usize {
        Gpu::THREADS
    }

    fn processors(&self) -> usize {
        self.processors
    }

    fn memory(&self, words: usize) -> Result<GpuMemory, CudaError> {
        self.context.bind_to_thread()?;
        #[expect(unsafe_code, reason = "the driver hands out an address")]
        // SAFETY: uploads and kernels write the memory before anything reads it.
        let address = unsafe { result::malloc_sync(4 * words.max(1)) }?;
        Ok(GpuMemory { context: self.context.clone(), address, words })
    }

    fn upload(&self, to: &GpuMemory, words: &[u32]) -> Result<(), CudaError> {
        if words.len() > to.words {
            return Err(CudaError(format!("{} words do not fit {}", words.len(), to.words)));
        }
        self.context.bind_to_thread()?;
        #[expect(unsafe_code, reason = "the driver copies by address")]
        // SAFETY: the memory has room, and the caller keeps the words until the stream is done.
        unsafe { result::memcpy_htod_async(to.address, words, self.stream.cu_stream()) }?;
        Ok(())
    }

    fn download(&self, from: &GpuMemory, first: usize, to: &mut [u32]) -> Result<(), CudaError> {
        if first + to.len() > from.words {
            return Err(CudaError(format!("{} words from {first} on are not in {}", to.len(), from.words)));
        }
        self.context.bind_to_thread()?;
        let address = from.address + 4 * first as u64;
        #[expect(unsafe_code, reason = "the driver copies by address")]
        // SAFETY: the words are in range, and `to` is borrowed until the stream is done.
        unsafe { result::memcpy_dtoh_async(to, address, self.stream.cu_stream()) }?;
        Ok(self.stream.synchronize()?)
    }

    fn wait(&self) -> Result<(), CudaError> {
        self.context.bind_to_thread()?;
        Ok(self.stream.synchronize()?)
    }

    fn launch(&self, launch: &Launch, arguments: &[Argument<'_, GpuMemory>]) -> Result<(), CudaError> {
        self.context.bind_to_thread()?;
        let mut values: Vec<u64> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Memory(memory, first) => memory.address + 4 * *first as u64,
                // The kernel reads the lower half as a signed number.
                Argument::Number(number) => *number as u64,
            })
            .collect();
        let mut places: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let [x, y] = launch.grid.map(|blocks| blocks as u32);
        let function = self.kernels[launch.kernel as usize].cu_function();
        let (block, shared, stream) = ((Gpu::THREADS as u32, 1, 1), launch.shared as u32, self.stream.cu_stream());
        #[expect(unsafe_code, reason = "a kernel reads and writes by address")]
        // SAFETY: the arguments are those of the kernel's signature, eight bytes each. Memory has the size that follows
        // from the sizes for which the kernel was compiled. It outlives the kernel, because a later download waits for
        // this stream.
        unsafe { result::launch_kernel(function, (x, y, 1), block, shared, stream, &mut places) }?;
        Ok(())
    }
}

impl Drop for GpuMemory {
    fn drop(&mut self) {
        // `free_sync` waits for kernels that use the memory. A failure cannot be reported.
        let _ = self.context.bind_to_thread();
        #[expect(unsafe_code, reason = "the driver takes an address back")]
        // SAFETY: the address came from the driver and is freed once.
        let _ = unsafe { result::free_sync(self.address) };
    }
}
