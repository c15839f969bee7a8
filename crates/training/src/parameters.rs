use std::collections::{BTreeMap, BTreeSet};

use canet_model::{Axis, HostTensor, ModelConfig, ModelPart, Parameter, Role, Weights};
use canet_torch::tensors::{from_host, to_host};
use tch::{Kind, TchError, Tensor};

use crate::tensors::Span;

/// How weights are initialised, and which of them are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    fn freezes(self, weight: &Parameter) -> bool {
        let is_output_bias = weight.role == Role::Bias && weight.axes == [Axis::Items];
        self == Recipe::Plain && weight.part == ModelPart::Backbone && (weight.role == Role::Residual || is_output_bias)
    }

    /// Initial values of a weight, in its shape. Draws those of tables and linear layers from tch's generator.
    fn initial(self, weight: &Parameter) -> Result<Tensor, TchError> {
        let shape: Vec<i64> = weight.shape.iter().map(|size| *size as i64).collect();
        let (shape, options) = (shape.as_slice(), (Kind::Float, tch::Device::Cpu));
        match (weight.role, self, shape) {
            (Role::Residual, Recipe::Plain, _) | (Role::Norm, ..) => Tensor::f_ones(shape, options),
            (Role::Residual, Recipe::Paper, _) => Tensor::f_full(shape, REZERO, options),
            (Role::Bias, ..) => Tensor::f_zeros(shape, options),
            (Role::Linear, Recipe::Paper, [out, input]) => {
                let std = (2.0 / (*out + *input) as f64).sqrt();
                Tensor::f_randn(shape, options)?.f_mul_scalar(std)
            }
            // The input layer.
            (Role::Linear, Recipe::Plain, [out, input]) if weight.axes == [Axis::Hidden, Axis::Embedding] => {
                Tensor::f_eye_m(*out, *input, options)
            }
            (Role::Linear | Role::Table, ..) => Tensor::f_randn(shape, options)?.f_mul_scalar(INITIAL_STD),
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
pub(crate) const ITEM_EMBEDDING: &str = "backbone.item_embedding";

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
    /// The names of the weights that decay.
    decaying: BTreeSet<String>,
    options: ParameterOptions,
}

/// A weight before it lies in the vector of all weights.
struct NewWeight {
    /// On the CPU, in its shape.
    values: Tensor,
    is_trained: bool,
    /// Weights of linear layers decay. Tables, norms, biases and scalars do not.
    decays: bool,
}

impl NewWeight {
    /// A weight that a configuration declares.
    fn declared(weight: &Parameter, values: Tensor, recipe: Recipe) -> NewWeight {
        NewWeight { values, is_trained: !recipe.freezes(weight), decays: weight.role == Role::Linear }
    }
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
        let mut weights = BTreeMap::new();
        for declared in config.parameters() {
            let values = options.recipe.initial(&declared)?;
            let weight = NewWeight::declared(&declared, values, options.recipe);
            weights.insert(declared.name, weight);
        }
        Parameters::new(weights, options)
    }

    /// Copies weights of a configuration from host memory. If they are tied, the output weight is ignored.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out, and if the configuration does not have a weight.
    pub fn from_weights(
        config: &ModelConfig,
        weights: &Weights,
        options: ParameterOptions,
    ) -> Result<Parameters, TchError> {
        let declared = config.parameters().into_iter().map(|weight| (weight.name.clone(), weight));
        let declared: BTreeMap<String, Parameter> = declared.collect();
        let weights = weights.iter().map(|(name, host)| {
            let weight = declared.get(name).ok_or_else(|| missing(name))?;
            Ok((name.to_owned(), NewWeight::declared(weight, from_host(host)?, options.recipe)))
        });
        Parameters::new(weights.collect::<Result<_, TchError>>()?, options)
    }

    /// Copies weights that no configuration declares from host memory. All of them are trained.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn undeclared<'n>(
        weights: impl IntoIterator<Item = (&'n str, Role, HostTensor)>,
        device: tch::Device,
    ) -> Result<Parameters, TchError> {
        let weights = weights.into_iter().map(|(name, role, host)| {
            let weight = NewWeight { values: from_host(&host)?, is_trained: true, decays: role == Role::Linear };
            Ok((name.to_owned(), weight))
        });
        let options = ParameterOptions { recipe: Recipe::Paper, tied: false, device };
        Parameters::new(weights.collect::<Result<_, TchError>>()?, options)
    }

    fn new(mut weights: BTreeMap<String, NewWeight>, options: ParameterOptions) -> Result<Parameters, TchError> {
        if options.tied {
            weights.remove(OUTPUT_WEIGHT);
        }
        let (mut parts, mut spans, mut end) = (Vec::new(), BTreeMap::new(), 0_usize);
        for (name, NewWeight { values, .. }) in &weights {
            let count = values.numel();
            spans.insert(name.clone(), Span { first: end as i64, count: count as i64 });
            let padding = count.next_multiple_of(ALIGNMENT) - count;
            parts.push(values.f_reshape([-1])?);
            parts.push(Tensor::f_zeros([padding as i64], (Kind::Float, tch::Device::Cpu))?);
            end += count + padding;
        }
        let flat = Tensor::f_cat(&parts, 0)?.f_to_device(options.device)?; // [P]
        let (mut tensors, mut decaying) = (BTreeMap::new(), BTreeSet::new());
        for (name, NewWeight { values, is_trained, decays }) in weights {
            let view = spans[&name].of(&flat)?.f_reshape(values.size())?;
            if decays {
                decaying.insert(name.clone());
            }
            tensors.insert(name, view.f_detach()?.f_set_requires_grad(is_trained)?);
        }
        Ok(Parameters { tensors, spans, gradient: flat.f_zeros_like()?, flat, decaying, options })
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

    /// The names of the weights that decay.
    pub(crate) fn decaying(&self) -> impl Iterator<Item = &str> {
        self.decaying.iter().map(String::as_str)
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
