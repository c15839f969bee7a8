use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use canet_model::{HostTensor, ModelConfig, Weights};

/// How weights begin, and which of them are learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// Weights are normal with std 0.02, and the input layer is the identity. Residual connections have the factor 1, the
    /// output layer has the bias 0, and neither is learnt: the usual SASRec.
    Plain,
    /// As published. Linear weights are Xavier normal and embeddings normal with std 0.02. Residual scalars begin at 1e-8
    /// (ReZero, Bachlechner et al. 2020) and are learnt, and so is the output bias.
    Paper,
}

impl Recipe {
    /// Whether a weight stays as it is.
    fn freezes(self, name: &str) -> bool {
        self == Recipe::Plain && name.starts_with("backbone.") && (name.ends_with("_residual") || name == OUTPUT_BIAS)
    }

    /// Values of a weight at the start.
    fn start(self, name: &str, shape: &[i64]) -> Result<Tensor, TchError> {
        let options = (Kind::Float, tch::Device::Cpu);
        match shape {
            [] if self == Recipe::Plain => Tensor::f_ones([0_i64; 0], options),
            [] => Tensor::f_full([0_i64; 0], REZERO, options),
            [_] if name.ends_with("norm.weight") => Tensor::f_ones(shape, options),
            [_] | [_, _, _] => Tensor::f_zeros(shape, options),
            [out, input] if self == Recipe::Plain && name == "backbone.input.weight" => {
                Tensor::f_eye_m(*out, *input, options)
            }
            [out, input] if self == Recipe::Paper && !name.ends_with("embedding") => {
                let std = (2.0 / (*out + *input) as f64).sqrt();
                Tensor::f_randn(shape, options)?.f_mul_scalar(std)
            }
            _ => Tensor::f_randn(shape, options)?.f_mul_scalar(STD),
        }
    }
}

/// Initial value of learnt residual scalars: the blocks start as the identity (the authors' 1e-8).
const REZERO: f64 = 1e-8;

/// Spread of freshly made weights, as in BERT.
const STD: f64 = 0.02;

/// The table by which items are scored, and its bias.
pub(crate) const OUTPUT_WEIGHT: &str = "backbone.output.weight";
pub(crate) const OUTPUT_BIAS: &str = "backbone.output.bias";

/// The table by which items are read.
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
pub(crate) struct Stretch {
    /// Its first place in the flat vectors.
    pub first: i64,
    /// Its values: a view of all weights'.
    pub weights: Tensor,
    /// Their gradients: a view too.
    pub gradient: Tensor,
}

impl Parameters {
    /// Fresh weights: biases are zero, norms are the identity, and the rest is as the recipe has it. Where `tied`, there is
    /// one table of items, whose two widths are then the same. Draws from tch's generator, so seed it first; the draws are
    /// the same on every device.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn fresh(
        config: &ModelConfig,
        recipe: Recipe,
        tied: bool,
        device: tch::Device,
    ) -> Result<Parameters, TchError> {
        let mut tensors = BTreeMap::new();
        for parameter in config.parameters() {
            let shape: Vec<i64> = parameter.shape.iter().map(|size| *size as i64).collect();
            let value = recipe.start(&parameter.name, &shape)?;
            tensors.insert(parameter.name, value);
        }
        Parameters::of(tensors, recipe, tied, device)
    }

    /// Weights from host memory, of which the table that scores items is left out where it is `tied` to the other.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn from_weights(
        weights: &Weights,
        recipe: Recipe,
        tied: bool,
        device: tch::Device,
    ) -> Result<Parameters, TchError> {
        let mut tensors = BTreeMap::new();
        for (name, host) in weights.iter() {
            let shape: Vec<i64> = host.shape.iter().map(|size| *size as i64).collect();
            tensors.insert(name.to_owned(), Tensor::f_from_slice(&host.data)?.f_reshape(shape)?);
        }
        Parameters::of(tensors, recipe, tied, device)
    }

    /// Leaves that collect gradients, of values in host memory.
    fn of(
        mut values: BTreeMap<String, Tensor>,
        recipe: Recipe,
        tied: bool,
        device: tch::Device,
    ) -> Result<Parameters, TchError> {
        if tied {
            values.remove(OUTPUT_WEIGHT);
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
            tensors.insert(name.clone(), view.f_detach()?.f_set_requires_grad(!recipe.freezes(name))?);
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
        if self.tied && name == OUTPUT_WEIGHT { ITEMS } else { name }
    }

    /// Every weight, by name; one of two names comes twice.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let second = self.tied.then(|| self.tensors.get(ITEMS)).flatten().map(|items| (OUTPUT_WEIGHT, items));
        self.leaves().chain(second)
    }

    /// Every weight once.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A vector with a place for each weight's values, all zero: [P]
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn zeros(&self) -> Result<Tensor, TchError> {
        self.flat.f_zeros_like()
    }

    /// The part of such a vector that is a weight's, in the weight's shape.
    ///
    /// # Errors
    /// Where the configuration has no such weight.
    pub(crate) fn part(&self, vector: &Tensor, name: &str) -> Result<Tensor, TchError> {
        within(vector, self.extent(name)?)?.f_reshape(self.get(name)?.size())
    }

    fn extent(&self, name: &str) -> Result<[i64; 2], TchError> {
        self.extents.get(self.stored_as(name)).copied().ok_or_else(|| missing(name))
    }

    /// The weights that have gradients, as long stretches of neighbours.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn stretches(&self) -> Result<Vec<Stretch>, TchError> {
        let mut ranges: Vec<[i64; 2]> = Vec::new();
        let mut open = false;
        for (name, tensor) in &self.tensors {
            if !tensor.f_grad()?.defined() {
                open = false;
                continue;
            }
            let _ = self.settle_gradient(name, tensor)?;
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

    /// Where a weight's gradient is collected: what is added there counts as the backward pass's own.
    ///
    /// # Errors
    /// LibTorch's, and where the configuration has no such weight.
    pub(crate) fn gradient(&self, name: &str) -> Result<Tensor, TchError> {
        let tensor = self.get(name)?;
        if !tensor.f_grad()?.defined() {
            // Only a backward pass makes one.
            tensor.f_mul_scalar(0.0)?.f_sum(Kind::Float)?.f_backward()?;
        }
        self.settle_gradient(name, tensor)
    }

    /// Moves a weight's gradient to its place among the others, where it is not there yet.
    fn settle_gradient(&self, name: &str, tensor: &Tensor) -> Result<Tensor, TchError> {
        let (mut gradient, place) = (tensor.f_grad()?, self.part(&self.gradient, name)?);
        if gradient.data_ptr() != place.data_ptr() {
            // LibTorch made it in the first backward pass; from now on it adds to this place.
            place.shallow_clone().f_copy_(&gradient)?;
            gradient.f_set_data(&place)?;
        }
        Ok(place)
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
pub(crate) fn to_host(tensor: &Tensor) -> Result<HostTensor, TchError> {
    let values = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0.0_f32; values.numel()];
    let count = data.len();
    values.f_copy_data(&mut data, count)?;
    Ok(HostTensor { shape: values.size().iter().map(|size| *size as usize).collect(), data })
}
