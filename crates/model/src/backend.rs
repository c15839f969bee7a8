use std::cell::Cell;
use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Tolerance;
use crate::{ConfigError, Device, Forward, ModelConfig, Weights, WeightsError};

/// One implementation of the forward pass, on one device and in one precision.
///
/// The crates `canet-cpu`, `canet-cuda` and `canet-torch` each have one.
pub trait Backend: Debug + Send + Sync {
    /// Loads weights onto the device.
    ///
    /// # Errors
    /// [`LoadError`] if the configuration is invalid, the weights do not fit it, the kernels do not support the model, or
    /// the device refuses the weights.
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError>;

    /// The device that it computes on.
    fn device(&self) -> Device;

    /// The numbers in which it stores weights and multiplies.
    fn precision(&self) -> Precision;

    /// Threads that one call may use on a CPU.
    fn threads(&self) -> usize;

    /// The most bytes that each forward may use to keep states of histories from one request to the next. 0 if it keeps
    /// none.
    fn history_cache(&self) -> usize {
        0
    }

    /// How far its answers may be from a checkpoint's recorded answers.
    fn tolerance(&self) -> Tolerance {
        match self.precision() {
            Precision::Fp32 => Tolerance::FP32,
            Precision::Bf16 => Tolerance::BF16,
        }
    }

    /// Rows of a batch beyond which a larger batch gains little. A GPU needs more rows, because launching a kernel costs
    /// more than a small kernel's work.
    fn max_batch(&self) -> u16 {
        if self.device().is_cuda() { 256 } else { 64 }
    }

    /// How long it computes more slowly at first. A GPU loads each kernel when it first uses it.
    fn warm_up(&self) -> Duration {
        if self.device().is_cuda() { Duration::from_millis(300) } else { Duration::ZERO }
    }
}

/// The numbers in which a forward stores its weights and multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// float32 everywhere.
    Fp32,
    /// The backbone's linear layers store their weights in bfloat16 and round their inputs to it; sums are float32.
    /// Embedding tables, layer norms, softmax, residuals and the router stay float32.
    Bf16,
}

impl Precision {
    /// Its name on the command line and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// Why a backend cannot load weights.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The backend's kernels do not support the model's sizes.
    #[error(transparent)]
    Unfit(Box<dyn Error + Send + Sync>),
    /// The device, its driver or its library refused the weights.
    #[error(transparent)]
    Device(Box<dyn Error + Send + Sync>),
}

thread_local! {
    static ONE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// From now on, every forward that the calling thread runs computes on that thread alone.
pub fn use_one_thread_here() {
    ONE_THREAD.set(true);
}

/// How many of `most` threads the calling thread may compute with.
#[inline]
pub fn threads_allowed_here(most: usize) -> usize {
    if ONE_THREAD.get() { 1 } else { most }
}
