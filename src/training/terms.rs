use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

/// A step's loss and what it is made of.
pub(super) struct StepLoss {
    /// What to minimise, with its graph.
    pub total: Tensor,
    /// What it is made of, `total` aside, each a scalar on the device.
    pub parts: Vec<(&'static str, Tensor)>,
}

impl StepLoss {
    /// The same in numbers. All come in one transfer: each one waits until the device has done what it was told.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn terms(&self) -> Result<Terms, TchError> {
        let scalars: Vec<Tensor> = self
            .parts
            .iter()
            .map(|(_, part)| part)
            .chain([&self.total])
            .map(Tensor::f_detach)
            .collect::<Result<_, _>>()?;
        let values: Vec<f64> = Vec::try_from(&Tensor::f_stack(&scalars, 0)?.f_to_kind(Kind::Double)?)?;
        let mut terms = Terms::default();
        let names = self.parts.iter().map(|(name, _)| *name).chain(["total"]);
        names.zip(values).for_each(|(name, value)| terms.note(name, value));
        Ok(terms)
    }
}

/// Parts of a loss by name, in nats where they are entropies. `total` is everything, weighted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Terms(BTreeMap<String, f64>);

impl Terms {
    /// Adds a part; a part that is there already is summed up.
    pub(super) fn note(&mut self, name: &str, value: f64) {
        *self.0.entry(name.to_owned()).or_default() += value;
    }

    /// The whole loss.
    pub(super) fn total(&self) -> f64 {
        self.0.get("total").copied().unwrap_or_default()
    }

    /// Adds another step's terms, to be averaged.
    pub(super) fn add(&mut self, other: &Terms) {
        for (name, value) in &other.0 {
            self.note(name, *value);
        }
    }

    /// The mean of `steps` added terms.
    pub(super) fn mean(&self, steps: u64) -> Terms {
        Terms(self.0.iter().map(|(name, sum)| (name.clone(), sum / steps.max(1) as f64)).collect())
    }
}
