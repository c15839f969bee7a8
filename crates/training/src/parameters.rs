use std::collections::BTreeMap;

use canet_model::{ModelConfig, Weights};
use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use crate::tensors::{Span, from_host, to_host};

/// How weights are initialised, and which of them are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// The usual SASRec (Kang & McAuley 2018, arXiv:1808.09781). Weights are normal with standard deviation 0.02, and
    /// the input layer is the identity. The residual scalars stay 1 and the output bias stays 0.
    Plain,
    /// The recipe of the CANet paper. Linear weights are Xavier normal, embeddings are normal with standard deviation
    /// 0.02. Residual scalars start at 1e-8 (ReZero, Bachlechner et al. 2020, arXiv:2003.04887). They and the output
    /// bias are trained.
    Paper,
}

impl Recipe {
    /// Whether training leaves a weight as it is.
    fn freezes(self, name: &str) -> bool {
        self == Recipe::Plain && name.starts_with("backbone.") && (name.ends_with("_residual") || name == OUTPUT_BIAS)
    }

    /// Initial values of a weight.
    fn initial(self, name: &str, shape: &[i64]) -> Result<Tensor, TchError> {
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
            _ => Tensor::f_randn(shape, options)?.f_mul_scalar(INITIAL_STD),
        }
    }
}

/// Initial value of trained residual scalars, as in the authors' code.
const REZERO: f64 = 1e-8;

/// Standard deviation of initial weights, as in BERT.
const INITIAL_STD: f64 = 0.02;

/// The output layer, which scores items.
pub(crate) const OUTPUT_WEIGHT: &str = "backbone.output.weight";
pub(crate) const OUTPUT_BIAS: &str = "backbone.output.bias";

/// The embedding table of the backbone.
const ITEM_EMBEDDING: &str = "backbone.item_embedding";

/// Every weight begins at a multiple of this many values, so that kernels find it aligned.
const ALIGNMENT: usize = 64;

/// How weights become [`Parameters`].
#[derive(Clone, Copy, Debug)]
pub struct ParameterOptions {
    /// Initialisation, and which weights are trained.
    pub recipe: Recipe,
    /// Whether the output layer uses the embedding table as its weight (Press & Wolf 2017, arXiv:1608.05859). Both must
    /// have the same width. The two names then stand for one weight.
    pub tied: bool,
    /// Where the weights are.
    pub device: tch::Device,
}

/// The weights in training, by the names of [`ModelConfig::parameters`]. They are leaves of the autograd graph.
///
/// All weights lie in one vector of P values, and so do their gradients. The optimizer can then update all values in
/// one operation instead of one a weight.
pub struct Parameters {
    /// Views of `flat`.
    tensors: BTreeMap<String, Tensor>,
    /// Place of each weight in `flat`.
    spans: BTreeMap<String, Span>,
    /// `[P]`
    flat: Tensor,
    /// `[P]`
    gradient: Tensor,
    options: ParameterOptions,
}

/// Neighbouring weights that have a gradient.
pub(crate) struct TrainedSpan {
    /// Their place in the flat vectors.
    pub span: Span,
    /// Their values, as a view: `[count]`
    pub weights: Tensor,
    /// Their gradients, as a view: `[count]`
    pub gradient: Tensor,
}

impl Parameters {
    /// Initialises new weights. Draws from tch's generator, so seed that first. The draws are the same on every device.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub fn fresh(config: &ModelConfig, options: ParameterOptions) -> Result<Parameters, TchError> {
        let mut tensors = BTreeMap::new();
        for parameter in config.parameters() {
            let shape: Vec<i64> = parameter.shape.iter().map(|size| *size as i64).collect();
            let value = options.recipe.initial(&parameter.name, &shape)?;
            tensors.insert(parameter.name, value);
        }
        Parameters::new(tensors, options)
    }

    /// Copies weights from host memory. If they are tied, the output weight is ignored.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub fn from_weights(weights: &Weights, options: ParameterOptions) -> Result<Parameters, TchError> {
        let tensors = weights.iter().map(|(name, host)| Ok((name.to_owned(), from_host(host)?)));
        Parameters::new(tensors.collect::<Result<_, TchError>>()?, options)
    }

    fn new(mut values: BTreeMap<String, Tensor>, options: ParameterOptions) -> Result<Parameters, TchError> {
        if options.tied {
            values.remove(OUTPUT_WEIGHT);
        }
        let (mut parts, mut spans, mut end) = (Vec::new(), BTreeMap::new(), 0_usize);
        for (name, value) in &values {
            let count = value.numel();
            spans.insert(name.clone(), Span { first: end as i64, count: count as i64 });
            let padding = count.next_multiple_of(ALIGNMENT) - count;
            parts.push(value.f_reshape([-1])?);
            parts.push(Tensor::f_zeros([padding as i64], (Kind::Float, tch::Device::Cpu))?);
            end += count + padding;
        }
        let flat = Tensor::f_cat(&parts, 0)?.f_to_device(options.device)?; // [P]
        let mut tensors = BTreeMap::new();
        for (name, value) in &values {
            let view = spans[name].of(&flat)?.f_reshape(value.size())?;
            tensors.insert(name.clone(), view.f_detach()?.f_set_requires_grad(!options.recipe.freezes(name))?);
        }
        Ok(Parameters { tensors, spans, gradient: flat.f_zeros_like()?, flat, options })
    }

    /// Copies the weights into host memory.
    ///
    /// # Errors
    /// LibTorch's, if the device is lost.
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
    /// If the configuration has no such weight.
    pub fn get(&self, name: &str) -> Result<&Tensor, TchError> {
        self.tensors.get(self.stored_name(name)).ok_or_else(|| missing(name))
    }

    /// The name under which a weight is stored.
    fn stored_name<'a>(&self, name: &'a str) -> &'a str {
        if self.options.tied && name == OUTPUT_WEIGHT { ITEM_EMBEDDING } else { name }
    }

    /// Every name with its weight. A tied weight comes twice.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let tied = self.options.tied.then(|| self.tensors.get(ITEM_EMBEDDING)).flatten();
        self.leaves().chain(tied.map(|table| (OUTPUT_WEIGHT, table)))
    }

    /// Every weight once, with the name under which it is stored.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A zero for each value of each weight: `[P]`
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn zeros(&self) -> Result<Tensor, TchError> {
        self.flat.f_zeros_like()
    }

    /// The part of a vector of P values that belongs to a weight, as a view in the weight's shape.
    ///
    /// # Errors
    /// If the configuration has no such weight.
    pub(crate) fn part(&self, vector: &Tensor, name: &str) -> Result<Tensor, TchError> {
        self.span(name)?.of(vector)?.f_reshape(self.get(name)?.size())
    }

    fn span(&self, name: &str) -> Result<Span, TchError> {
        self.spans.get(self.stored_name(name)).copied().ok_or_else(|| missing(name))
    }

    /// The weights that have a gradient. Neighbours are merged.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn trained_spans(&self) -> Result<Vec<TrainedSpan>, TchError> {
        let mut spans: Vec<Span> = Vec::new();
        let mut open = false;
        for (name, tensor) in &self.tensors {
            if !tensor.f_grad()?.defined() {
                open = false;
                continue;
            }
            let _ = self.place_gradient(name, tensor)?;
            let own = self.span(name)?;
            match spans.last_mut() {
                Some(last) if open => last.count = own.first + own.count - last.first,
                _ => spans.push(own),
            }
            open = true;
        }
        let view =
            |span: Span| Ok(TrainedSpan { span, weights: span.of(&self.flat)?, gradient: span.of(&self.gradient)? });
        spans.into_iter().map(view).collect()
    }

    /// The gradient of a weight, as a view. Whatever a caller adds to it counts like a gradient of the backward pass.
    ///
    /// # Errors
    /// LibTorch's, and if the configuration has no such weight.
    pub(crate) fn gradient(&self, name: &str) -> Result<Tensor, TchError> {
        let tensor = self.get(name)?;
        if !tensor.f_grad()?.defined() {
            // Only a backward pass creates a gradient.
            tensor.f_mul_scalar(0.0)?.f_sum(Kind::Float)?.f_backward()?;
        }
        self.place_gradient(name, tensor)
    }

    /// Makes a weight's gradient a view of the flat vector of gradients.
    fn place_gradient(&self, name: &str, tensor: &Tensor) -> Result<Tensor, TchError> {
        let (mut gradient, place) = (tensor.f_grad()?, self.part(&self.gradient, name)?);
        if gradient.data_ptr() != place.data_ptr() {
            // LibTorch allocates the gradient in the first backward pass. Later passes add to this view.
            place.shallow_clone().f_copy_(&gradient)?;
            gradient.f_set_data(&place)?;
        }
        Ok(place)
    }

    /// Where the weights are.
    pub fn device(&self) -> tch::Device {
        self.options.device
    }
}

fn missing(name: &str) -> TchError {
    TchError::Torch(format!("there is no weight `{name}`"))
}
