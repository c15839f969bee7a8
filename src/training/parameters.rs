use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use crate::model::{HostTensor, ModelConfig, Weights};

/// Initial value of the residual scalars: the blocks start as the identity (ReZero; the authors' 1e-8).
const RESIDUAL_AT_START: f64 = 1e-8;

/// Spread of freshly made embeddings, as in BERT.
const EMBEDDING_STD: f64 = 0.02;

/// The trainable weights, by the names of [`ModelConfig::parameters`]; leaves of the autograd graph.
pub struct Parameters {
    tensors: BTreeMap<String, Tensor>,
    device: tch::Device,
}

impl Parameters {
    /// Fresh weights: embeddings normal with std 0.02, linear weights Xavier normal, biases zero, norms the identity,
    /// residual scalars 1e-8. Draws from tch's generator, so seed it first; the draws are the same on every device.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn fresh(config: &ModelConfig, device: tch::Device) -> Result<Parameters, TchError> {
        let mut tensors = BTreeMap::new();
        for parameter in config.parameters() {
            let shape: Vec<i64> = parameter.shape.iter().map(|size| *size as i64).collect();
            let name = parameter.name.as_str();
            let options = (Kind::Float, tch::Device::Cpu);
            let value = match shape.as_slice() {
                [] => Tensor::f_full([], RESIDUAL_AT_START, options)?,
                [_] if name.ends_with("norm.weight") => Tensor::f_ones(&shape, options)?,
                [_] => Tensor::f_zeros(&shape, options)?,
                [out, input] if !name.ends_with("embedding") => {
                    let std = (2.0 / (*out + *input) as f64).sqrt();
                    Tensor::f_randn(&shape, options)?.f_mul_scalar(std)?
                }
                _ => Tensor::f_randn(&shape, options)?.f_mul_scalar(EMBEDDING_STD)?,
            };
            tensors.insert(parameter.name, leaf(&value, device)?);
        }
        Ok(Parameters { tensors, device })
    }

    /// Weights from host memory.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn from_weights(weights: &Weights, device: tch::Device) -> Result<Parameters, TchError> {
        let mut tensors = BTreeMap::new();
        for (name, host) in weights.iter() {
            let shape: Vec<i64> = host.shape.iter().map(|size| *size as i64).collect();
            tensors.insert(name.to_owned(), leaf(&Tensor::f_from_slice(&host.data)?.f_reshape(shape)?, device)?);
        }
        Ok(Parameters { tensors, device })
    }

    /// A copy in host memory.
    ///
    /// # Errors
    /// LibTorch's, when the device is lost.
    pub fn to_weights(&self) -> Result<Weights, TchError> {
        let mut weights = Weights::default();
        for (name, tensor) in &self.tensors {
            weights.insert(name.clone(), to_host(tensor)?);
        }
        Ok(weights)
    }

    /// The weight of a name.
    ///
    /// # Errors
    /// Where the configuration has no such weight.
    pub fn get(&self, name: &str) -> Result<&Tensor, TchError> {
        self.tensors.get(name).ok_or_else(|| TchError::Torch(format!("weight `{name}` is not there")))
    }

    /// Every weight, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Where the weights are.
    pub fn device(&self) -> tch::Device {
        self.device
    }
}

/// A leaf that collects gradients.
fn leaf(value: &Tensor, device: tch::Device) -> Result<Tensor, TchError> {
    value.f_to_device(device)?.f_detach()?.f_set_requires_grad(true)
}

/// A tensor's values in host memory.
pub(super) fn to_host(tensor: &Tensor) -> Result<HostTensor, TchError> {
    let values = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0.0_f32; values.numel()];
    let count = data.len();
    values.f_copy_data(&mut data, count)?;
    Ok(HostTensor { shape: values.size().iter().map(|size| *size as usize).collect(), data })
}
