//! Operations on tensors that serving and training share.

use canet_model::HostTensor;
use tch::{Kind, TchError, Tensor};

/// Exact GELU: `[n, f] -> [n, f]`
///
/// It is computed over the transposed view. For a contiguous float32 tensor LibTorch calls oneDNN, which compiles and
/// keeps another kernel for every n. Under a load of mixed lengths these take hundreds of megabytes.
///
/// # Errors
/// LibTorch's, if memory runs out.
pub fn gelu(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_transpose(0, 1)?.f_gelu("none")?.f_transpose(0, 1)
}

/// Concatenates tensors along their first axis. A single one is not copied.
///
/// # Errors
/// LibTorch's, if there is no tensor, if their other sizes differ, or if memory runs out.
pub fn concatenate(mut parts: Vec<Tensor>) -> Result<Tensor, TchError> {
    match parts.len() {
        1 => Ok(parts.swap_remove(0)),
        _ => Tensor::f_cat(&parts, 0),
    }
}

/// Copies a tensor into host memory, as float32. The copy has the tensor's shape and no gradient.
///
/// # Errors
/// LibTorch's, if the device is lost.
pub fn to_host(tensor: &Tensor) -> Result<HostTensor, TchError> {
    let values = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut data = vec![0.0_f32; values.numel()];
    let count = data.len();
    values.f_copy_data(&mut data, count)?;
    Ok(HostTensor { shape: values.size().iter().map(|size| *size as usize).collect(), data })
}

/// Copies a tensor from host memory into a LibTorch tensor on the CPU.
///
/// # Errors
/// LibTorch's, if memory runs out or the values do not fill the shape.
pub fn from_host(host: &HostTensor) -> Result<Tensor, TchError> {
    let shape: Vec<i64> = host.shape.iter().map(|size| *size as i64).collect();
    Tensor::f_from_slice(&host.data)?.f_reshape(shape)
}
