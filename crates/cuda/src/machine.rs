/// What runs kernels: a GPU's driver, or a CPU's imitation of it in tests.
pub(crate) trait Machine: Send + Sync {
    /// Words of the machine's memory, given back when dropped.
    type Memory: Send + Sync;

    /// Threads of a block; whole warps.
    fn threads(&self) -> usize;

    /// Multiprocessors.
    fn processors(&self) -> usize;

    /// New memory; what it holds is open.
    ///
    /// # Errors
    /// [`CudaError`] where there is not as much.
    fn memory(&self, words: usize) -> Result<Self::Memory, CudaError>;

    /// Queues writing the first words, which have to stay where they are until the machine is [done](Self::wait).
    ///
    /// # Errors
    /// [`CudaError`] where the device fails.
    fn upload(&self, to: &Self::Memory, words: &[u32]) -> Result<(), CudaError>;

    /// Reads words from `first` on, when everything launched before is done.
    ///
    /// # Errors
    /// [`CudaError`] where the device fails.
    fn download(&self, from: &Self::Memory, first: usize, to: &mut [u32]) -> Result<(), CudaError>;

    /// Waits until everything that was queued is done.
    ///
    /// # Errors
    /// [`CudaError`] where the device fails.
    fn wait(&self) -> Result<(), CudaError>;

    /// Queues a kernel behind what was queued before.
    ///
    /// # Errors
    /// [`CudaError`] where the device refuses it.
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

/// The device, its driver or its compiler failed, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CUDA: {0}")]
pub struct CudaError(pub(crate) String);
