//! Stands in for `gpu.rs` in a build without LibTorch.

use std::sync::Arc;
use std::time::Duration;

use canet_cpu::Level;
use canet_model::{Backend, Device, ForwardError, Precision};

/// No GPU can be used.
pub(crate) fn count() -> Result<i64, String> {
    Err("this build has no LibTorch".to_owned())
}

/// There is nothing to set: each native forward is given its threads.
pub(crate) fn set_threads(_: u16) {}

/// Floating-point operations a second and a thread: the native backend is the only one.
pub(crate) fn gemm_peak(target: &dyn Backend, time: Duration) -> Result<f64, ForwardError> {
    Ok(canet_cpu::gemm_peak(Level::best(), target.precision(), time))
}

/// Needs LibTorch.
pub(crate) fn libtorch(_: Device, _: Precision, _: usize) -> Option<Arc<dyn Backend>> {
    None
}

/// Needs CUDA's libraries, which come with LibTorch.
pub(crate) fn native(_: Device, _: Precision) -> Option<Arc<dyn Backend>> {
    None
}

/// Needs LibTorch.
pub(crate) fn native_or_libtorch(_: Device, _: Precision) -> Option<Arc<dyn Backend>> {
    None
}
