use std::collections::BTreeMap;

use crate::ModelConfig;

/// Float32 weights in host memory, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, HostTensor>,
}

/// A dense row-major float32 array.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The values in row-major order, as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// Why weights do not fit a configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// A weight of the configuration is missing.
    #[error("weight `{0}` is missing")]
    Missing(String),
    /// The configuration does not have the weight.
    #[error("weight `{0}` is not part of this configuration")]
    Unknown(String),
    /// The weight does not have the configuration's shape.
    #[error("weight `{name}` has shape {found:?}, the configuration says {expected:?}")]
    Shape {
        /// The weight.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The configuration's shape.
        expected: Vec<usize>,
    },
    /// A value is so large that its square is not finite.
    #[error(
        "weight `{name}` holds {value} at place {place}: at most {max:e} is possible, because larger values make scores \
         that are not finite",
        max = Weights::LARGEST
    )]
    TooLarge {
        /// The weight.
        name: String,
        /// Index in row-major order.
        place: usize,
        /// The value.
        value: f32,
    },
    /// A value is NaN or infinite.
    #[error("weight `{name}` holds {value} at place {place}: every value must be finite")]
    NotFinite {
        /// The weight.
        name: String,
        /// Index in row-major order.
        place: usize,
        /// The value.
        value: f32,
    },
}

impl Weights {
    /// Limit on the size of a value: the root of the largest float32. Layer norms and attention multiply values with one
    /// another, so a larger one makes every score of a row NaN.
    pub const LARGEST: f32 = 1.844_674_3e19;

    /// Weights without [this limit](Weights::LARGEST). They are added to scores and multiplied with nothing. A large
    /// negative value there keeps an item or a route from being chosen.
    const UNLIMITED: [&str; 2] = ["backbone.output.bias", "router.head.bias"];

    /// Adds or replaces a weight.
    pub fn insert(&mut self, name: impl Into<String>, tensor: HostTensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// The weight of a name.
    ///
    /// # Errors
    /// [`WeightsError::Missing`] if there is none.
    pub fn get(&self, name: &str) -> Result<&HostTensor, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::Missing(name.to_owned()))
    }

    /// Every weight, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of scalars.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.data.len()).sum()
    }

    /// Checks that the weights are exactly those of `config`, that every value is finite, and that none exceeds
    /// [`Weights::LARGEST`].
    ///
    /// # Errors
    /// [`WeightsError`] that names the weight.
    pub fn check(&self, config: &ModelConfig) -> Result<(), WeightsError> {
        let expected: BTreeMap<_, _> =
            config.parameters().into_iter().map(|parameter| (parameter.name, parameter.shape)).collect();
        if let Some(name) = self.tensors.keys().find(|name| !expected.contains_key(*name)) {
            return Err(WeightsError::Unknown(name.clone()));
        }
        for (name, shape) in expected {
            let tensor = self.get(&name)?;
            if tensor.shape != shape || tensor.data.len() != shape.iter().product::<usize>() {
                return Err(WeightsError::Shape { name, found: tensor.shape.clone(), expected: shape });
            }
            if let Some(place) = tensor.data.iter().position(|value| !value.is_finite()) {
                return Err(WeightsError::NotFinite { name, place, value: tensor.data[place] });
            }
            let limited = !Weights::UNLIMITED.contains(&name.as_str());
            let too_large = || tensor.data.iter().position(|value| value.abs() > Weights::LARGEST);
            if let Some(place) = limited.then(too_large).flatten() {
                return Err(WeightsError::TooLarge { name, place, value: tensor.data[place] });
            }
        }
        Ok(())
    }
}
