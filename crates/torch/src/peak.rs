use std::time::{Duration, Instant};

use tch::Tensor;

use canet_model::{Device, Precision};

use super::load::kind;
use crate::TorchError;

/// Rows and columns of the matrices.
const SIZE: i64 = 1024;

/// Floating-point operations a second at products of large matrices, a multiply-add counted as 2: the best of
/// what was seen within `time`.
///
/// # Errors
/// [`TorchError`] where the device fails.
pub fn gemm_peak(device: Device, precision: Precision, time: Duration) -> Result<f64, TorchError> {
    let matrix = Tensor::f_ones([SIZE, SIZE], (kind(precision), crate::tch_device(device)))?;
    let (started, mut best) = (Instant::now(), 0.0_f64);
    while started.elapsed() < time {
        let round = Instant::now();
        // One value comes back, so that the device is done when the clock is read.
        matrix.f_matmul(&matrix)?.f_get(0)?.f_double_value(&[0])?;
        best = best.max(2.0 * (SIZE as f64).powi(3) / round.elapsed().as_secs_f64());
    }
    Ok(best)
}
