//! What a build without LibTorch has in place of GPUs.

use std::sync::Arc;
use std::time::Duration;

use canet_cpu::Level;
use canet_model::{Backend, Device, ForwardError, Precision};

use crate::target::{BackendChoice, TargetError};

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

/// Every other backend needs LibTorch.
pub(crate) fn backend(_: Device, _: BackendChoice, _: Precision, _: usize) -> Result<Arc<dyn Backend>, TargetError> {
    Err(TargetError::NoLibTorch)
}
