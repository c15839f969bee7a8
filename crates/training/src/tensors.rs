//! Operations on tensors that several modules share. [`canet_torch::tensors`] has those that serving needs as well.

use tch::{TchError, Tensor};

/// Neighbouring places along the first axis of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: i64,
    pub count: i64,
}

impl Span {
    /// These places of a tensor, as a view: `[T, ..] -> [count, ..]`
    ///
    /// # Errors
    /// LibTorch's, if the tensor has fewer places.
    pub(crate) fn of(self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_narrow(0, self.first, self.count)
    }
}

/// Rows of a matrix by index: `[R, h]`, `[n] -> [n, h]`
///
/// On a CPU this is an embedding lookup, because the gradient of LibTorch's `index_select` is added up row by row
/// there. On a GPU it is `index_select`, because the gradient of the lookup sorts the indices and waits for the result.
///
/// # Errors
/// LibTorch's, if an index is past the end.
pub(crate) fn gather(x: &Tensor, index: &Tensor) -> Result<Tensor, TchError> {
    match x.device().is_cuda() {
        true => x.f_index_select(0, index),
        false => Tensor::f_embedding(x, index, -1, false, false),
    }
}

/// The first `count` places along an axis. If these are all, the result is the tensor itself, which spares its gradient
/// a copy.
///
/// # Errors
/// LibTorch's, if the axis is shorter.
pub(crate) fn prefix(x: &Tensor, axis: i64, count: usize) -> Result<Tensor, TchError> {
    match x.size().get(axis as usize) {
        Some(all) if *all == count as i64 => Ok(x.shallow_clone()),
        _ => x.f_narrow(axis, 0, count as i64),
    }
}
