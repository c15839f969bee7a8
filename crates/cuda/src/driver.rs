/// Runs kernels: a GPU's driver, or in tests the emulator.
pub(crate) trait Driver: Send + Sync {
    /// Memory of the device, freed when dropped.
    type Memory: Send + Sync;

    /// Threads of a block, in whole warps.
    fn threads(&self) -> usize;

    /// The number of multiprocessors.
    fn processors(&self) -> usize;

    /// Allocates memory without initialising it.
    ///
    /// # Errors
    /// [`CudaError`] if there is too little memory.
    fn memory(&self, words: usize) -> Result<Self::Memory, CudaError>;

    /// Queues a write to the first words of `to`. The caller must keep `words` in place until [`wait`](Self::wait)
    /// returns.
    ///
    /// # Errors
    /// [`CudaError`] if the device fails.
    fn upload(&self, to: &Self::Memory, words: &[u32]) -> Result<(), CudaError>;

    /// Waits until everything queued is done, then reads words from `first` on.
    ///
    /// # Errors
    /// [`CudaError`] if the device fails.
    fn download(&self, from: &Self::Memory, first: usize, to: &mut [u32]) -> Result<(), CudaError>;

    /// Waits until everything queued is done.
    ///
    /// # Errors
    /// [`CudaError`] if the device fails.
    fn wait(&self) -> Result<(), CudaError>;

    /// Queues a kernel.
    ///
    /// # Errors
    /// [`CudaError`] if the device refuses it.
    fn launch(&self, launch: &Launch, arguments: &[Argument<'_, Self::Memory>]) -> Result<(), CudaError>;
}

/// How a kernel runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    pub(crate) kernel: Kernel,
    /// Blocks along each axis.
    pub(crate) grid: [usize; 2],
    /// Bytes of shared memory a block.
    pub(crate) shared: usize,
}

/// The kernels, named as in their source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Backbone,
    Router,
    Score,
    Select,
}

impl Kernel {
    pub(crate) const ALL: [Kernel; 4] = [Kernel::Backbone, Kernel::Router, Kernel::Score, Kernel::Select];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kernel::Backbone => "backbone",
            Kernel::Router => "router",
            Kernel::Score => "score",
            Kernel::Select => "select",
        }
    }
}

/// A kernel's argument.
#[derive(Debug)]
pub(crate) enum Argument<'a, M> {
    /// Memory from a word on.
    Memory(&'a M, usize),
    Number(usize),
}

/// The message of a device, its driver or its compiler that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CUDA: {0}")]
pub struct CudaError(pub(crate) String);
