use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Tolerance;
use crate::{Device, Forward, LoadError, ModelConfig, Precision, Weights};

/// One implementation of the forward, on one device and in one precision: the way from weights to a [`Forward`].
///
/// Each of the crates `canet-cpu`, `canet-cuda` and `canet-torch` has one. Whoever opens a model chooses.
pub trait Backend: Debug + Send + Sync {
    /// Makes weights ready to run.
    ///
    /// # Errors
    /// [`LoadError`] if the configuration is not sane, the weights do not fit it, the kernels do not fit the model, or the
    /// device refuses the weights.
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError>;

    /// The device that it computes on.
    fn device(&self) -> Device;

    /// The numbers in which it stores weights and multiplies.
    fn precision(&self) -> Precision;

    /// Threads that one call may use on a CPU.
    fn threads(&self) -> usize;

    /// How far its answers may be from a checkpoint's recorded ones.
    fn tolerance(&self) -> Tolerance {
        match self.precision() {
            Precision::Fp32 => Tolerance::FP32,
            Precision::Bf16 => Tolerance::BF16,
        }
    }

    /// Rows of a batch beyond which a larger batch gains little. On a GPU that takes more rows, because launching
    /// kernels costs more than running small ones.
    fn max_batch(&self) -> u16 {
        if self.device().is_cuda() { 256 } else { 64 }
    }

    /// How long it computes more slowly at first: a GPU loads each kernel at its first use.
    fn warm_up(&self) -> Duration {
        if self.device().is_cuda() { Duration::from_millis(300) } else { Duration::ZERO }
    }
}
