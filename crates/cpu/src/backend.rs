use std::sync::Arc;

use canet_model::{Backend, Device, Forward, LoadError, ModelConfig, Precision, Weights};

use super::forward::{CpuForward, CpuOptions};
use super::simd::Level;

/// Loads models for this machine's CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuBackend {
    precision: Precision,
    threads: usize,
    history_cache: usize,
}

/// The CPU cannot multiply bfloat16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bfloat16 needs a CPU with AVX512-BF16, which this one lacks")]
pub struct NoBf16;

impl CpuBackend {
    /// A backend whose calls use up to `threads` threads each.
    ///
    /// # Errors
    /// [`NoBf16`] if `precision` is bfloat16 and the CPU has no instruction for it: float32 would be faster.
    pub fn new(precision: Precision, threads: usize) -> Result<CpuBackend, NoBf16> {
        if precision == Precision::Bf16 && !Level::best().multiplies_bf16() {
            return Err(NoBf16);
        }
        Ok(CpuBackend { precision, threads, history_cache: 0 })
    }

    /// One thread in float32, which works on every CPU.
    pub const fn single_threaded() -> CpuBackend {
        CpuBackend { precision: Precision::Fp32, threads: 1, history_cache: 0 }
    }

    /// The same, with up to `bytes` of states of histories kept by each forward.
    #[must_use]
    pub const fn with_history_cache(self, bytes: usize) -> CpuBackend {
        CpuBackend { history_cache: bytes, ..self }
    }
}

impl Backend for CpuBackend {
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        let options = CpuOptions::fastest(self.precision, self.threads);
        let options = CpuOptions { history_cache: self.history_cache, ..options };
        Ok(Arc::new(CpuForward::load(config, weights, options)?))
    }

    fn device(&self) -> Device {
        Device::CPU
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn history_cache(&self) -> usize {
        self.history_cache
    }
}
