use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use crate::model::{HostTensor, ModelConfig, Weights};

/// Initial value of the residual scalars: the blocks start as the identity (ReZero; the authors' 1e-8).
const RESIDUAL_AT_START: f64 = 1e-8;

/// Spread of freshly made embeddings, as in BERT.
const EMBEDDING_STD: f64 = 0.02;

/// The table by which items are scored, and the one by which they are read.
const OUTPUT: &str = "backbone.output.weight";
const ITEMS: &str = "backbone.item_embedding";

/// Weights begin at multiples of this many values, so that the device's kernels find them aligned.
const ALIGNED: usize = 64;

/// The trainable weights, by the names of [`ModelConfig::parameters`]; leaves of the autograd graph.
///
/// All lie behind each other in one vector, and so do their gradients: what is done to every value is one operation, not
/// one a weight.
pub struct Parameters {
    /// Views of `flat`.
    tensors: BTreeMap<String, Tensor>,
    /// Where each begins in `flat`, and how many values it has.
    extents: BTreeMap<String, [i64; 2]>,
    /// [P]
    flat: Tensor,
    /// [P]
    gradient: Tensor,
    /// Whether items are scored by the table by which they are read (Press & Wolf 2017): one weight by two names.
    tied: bool,
    device: tch::Device,
}

/// A stretch of neighbouring weights that have a gradient.
pub(super) struct Stretch {
    /// Its first place in the flat vectors.
    pub first: i64,
    /// Its values: a view of all weights'.
    pub weights: Tensor,
    /// Their gradients: a view too.
    pub gradient: Tensor,
}

impl Parameters {
    /// Fresh weights: embeddings normal with std 0.02, linear weights Xavier normal, biases zero, norms the identity,
    /// residual scalars 1e-8; where `tied`, one table of items, whose two widths are then the same. Draws from tch's
    /// generator, so seed it first; the draws are the same on every device.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn fresh(config: &ModelConfig, tied: bool, device: tch::Device) -> Result<Parameters, TchError> {
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
            tensors.insert(parameter.name, value);
        }
        Parameters::of(tensors, tied, device)
    }

    /// Weights from host memory, of which the table that scores items is left out where it is `tied` to the other.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn from_weights(weights: &Weights, tied: bool, device: tch::Device) -> Result<Parameters, TchError> {
        let mut tensors = BTreeMap::new();
        for (name, host) in weights.iter() {
            let shape: Vec<i64> = host.shape.iter().map(|size| *size as i64).collect();
            tensors.insert(name.to_owned(), Tensor::f_from_slice(&host.data)?.f_reshape(shape)?);
        }
        Parameters::of(tensors, tied, device)
    }

    /// Leaves that collect gradients, of values in host memory.
    fn of(mut values: BTreeMap<String, Tensor>, tied: bool, device: tch::Device) -> Result<Parameters, TchError> {
        if tied {
            values.remove(OUTPUT);
        }
        let (mut parts, mut extents, mut end) = (Vec::new(), BTreeMap::new(), 0_usize);
        for (name, value) in &values {
            let count = value.numel();
            extents.insert(name.clone(), [end as i64, count as i64]);
            let padding = count.next_multiple_of(ALIGNED) - count;
            parts.push(value.f_reshape([-1])?);
            parts.push(Tensor::f_zeros([padding as i64], (Kind::Float, tch::Device::Cpu))?);
            end += count + padding;
        }
        let flat = Tensor::f_cat(&parts, 0)?.f_to_device(device)?;
        let mut tensors = BTreeMap::new();
        for (name, value) in &values {
            let view = within(&flat, extents[name])?.f_reshape(value.size())?;
            tensors.insert(name.clone(), view.f_detach()?.f_set_requires_grad(true)?);
        }
        Ok(Parameters { tensors, extents, gradient: flat.f_zeros_like()?, flat, tied, device })
    }

    /// A copy in host memory.
    ///
    /// # Errors
    /// LibTorch's, when the device is lost.
    pub fn to_weights(&self) -> Result<Weights, TchError> {
        let mut weights = Weights::default();
        for (name, tensor) in self.iter() {
            weights.insert(name, to_host(tensor)?);
        }
        Ok(weights)
    }

    /// The weight of a name.
    ///
    /// # Errors
    /// Where the configuration has no such weight.
    pub fn get(&self, name: &str) -> Result<&Tensor, TchError> {
        self.tensors.get(self.stored_as(name)).ok_or_else(|| missing(name))
    }

    /// The name under which a weight is kept.
    fn stored_as<'a>(&self, name: &'a str) -> &'a str {
        if self.tied && name == OUTPUT { ITEMS } else { name }
    }

    /// Every weight, by name; one of two names comes twice.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let second = self.tied.then(|| self.tensors.get(ITEMS)).flatten().map(|items| (OUTPUT, items));
        self.leaves().chain(second)
    }

    /// Every weight once.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A vector with a place for each weight's values, all zero: [P]
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(super) fn zeros(&self) -> Result<Tensor, TchError> {
        self.flat.f_zeros_like()
    }

    /// The part of such a vector that is a weight's, in the weight's shape.
    ///
    /// # Errors
    /// Where the configuration has no such weight.
    pub(super) fn part(&self, vector: &Tensor, name: &str) -> Result<Tensor, TchError> {
        within(vector, self.extent(name)?)?.f_reshape(self.get(name)?.size())
    }

    fn extent(&self, name: &str) -> Result<[i64; 2], TchError> {
        self.extents.get(self.stored_as(name)).copied().ok_or_else(|| missing(name))
    }

    /// The weights that have gradients, as long stretches of neighbours.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn stretches(&self) -> Result<Vec<Stretch>, TchError> {
        let mut ranges: Vec<[i64; 2]> = Vec::new();
        let mut open = false;
        for (name, tensor) in &self.tensors {
            let mut gradient = tensor.f_grad()?;
            if !gradient.defined() {
                open = false;
                continue;
            }
            let place = self.part(&self.gradient, name)?;
            if gradient.data_ptr() != place.data_ptr() {
                // LibTorch made it in the first backward pass; from now on it adds to this place.
                place.shallow_clone().f_copy_(&gradient)?;
                gradient.f_set_data(&place)?;
            }
            let [first, count] = self.extent(name)?;
            match ranges.last_mut() {
                Some([_, end]) if open => *end = first + count,
                _ => ranges.push([first, first + count]),
            }
            open = true;
        }
        ranges
            .into_iter()
            .map(|[first, end]| {
                let extent = [first, end - first];
                let [weights, gradient] = [within(&self.flat, extent)?, within(&self.gradient, extent)?];
                Ok(Stretch { first, weights, gradient })
            })
            .collect()
    }

    /// Where the weights are.
    pub fn device(&self) -> tch::Device {
        self.device
    }
}

fn missing(name: &str) -> TchError {
    TchError::Torch(format!("weight `{name}` is not there"))
}

/// A stretch of a vector: its first place and its length.
fn within(vector: &Tensor, [first, count]: [i64; 2]) -> Result<Tensor, TchError> {
    vector.f_narrow(0, first, count)
}

/// A tensor's values in host memory.
pub(super) fn to_host(tensor: &Tensor) -> Result<HostTensor, TchError> {
    let values = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0.0_f32; values.numel()];
    let count = data.len();
    values.f_copy_data(&mut data, count)?;
    Ok(HostTensor { shape: values.size().iter().map(|size| *size as usize).collect(), data })
}
