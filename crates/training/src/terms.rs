use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

/// A step's loss and what it is made of.
#[derive(Default)]
pub(crate) struct StepLoss {
    /// What to minimise: scalars with graphs, whose gradients count and whose values may not.
    objectives: Vec<Tensor>,
    /// The loss, weighted, each a scalar on the device.
    totals: Vec<Tensor>,
    /// What it is made of, each a scalar on the device.
    parts: Vec<(&'static str, Tensor)>,
}

impl StepLoss {
    /// Adds a part of the loss with its weight; `objective` has the gradients of the weighted part.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        (value, weight): (Tensor, f64),
        objective: Tensor,
    ) -> Result<(), TchError> {
        self.totals.push(value.f_mul_scalar(weight)?);
        self.parts.push((name, value));
        self.objectives.push(objective);
        Ok(())
    }

    /// A loss that is a graph as a whole, with parts that are only told.
    pub(crate) fn whole(total: Tensor, parts: Vec<(&'static str, Tensor)>) -> StepLoss {
        StepLoss { objectives: vec![total.shallow_clone()], totals: vec![total], parts }
    }

    /// Adds the gradients to those of the weights.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn backward(&self) -> Result<(), TchError> {
        Tensor::f_stack(&self.objectives, 0)?.f_sum(Kind::Float)?.f_backward()
    }

    /// The same in numbers. All come in one transfer: each one waits until the device has done what it was told.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn terms(&self) -> Result<Terms, TchError> {
        let scalars: Vec<Tensor> = self
            .parts
            .iter()
            .map(|(_, part)| part)
            .chain(&self.totals)
            .map(Tensor::f_detach)
            .collect::<Result<_, _>>()?;
        let values: Vec<f64> = Vec::try_from(&Tensor::f_stack(&scalars, 0)?.f_to_kind(Kind::Double)?)?;
        let mut terms = Terms::default();
        let names = self.parts.iter().map(|(name, _)| *name).chain(std::iter::repeat(TOTAL));
        names.zip(values).for_each(|(name, value)| terms.note(name, value));
        Ok(terms)
    }
}

/// The whole loss among the [`Terms`].
const TOTAL: &str = "total";

/// Parts of a loss by name, in nats where they are entropies. `total` is everything, weighted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Terms(BTreeMap<String, f64>);

impl Terms {
    /// Adds a part; a part that is there already is summed up.
    pub(crate) fn note(&mut self, name: &str, value: f64) {
        *self.0.entry(name.to_owned()).or_default() += value;
    }

    /// The whole loss.
    pub(crate) fn total(&self) -> f64 {
        self.0.get(TOTAL).copied().unwrap_or_default()
    }

    /// Adds another step's terms, to be averaged.
    pub(crate) fn add(&mut self, other: &Terms) {
        for (name, value) in &other.0 {
            self.note(name, *value);
        }
    }

    /// The mean of `steps` added terms.
    pub(crate) fn mean(&self, steps: u64) -> Terms {
        Terms(self.0.iter().map(|(name, sum)| (name.clone(), sum / steps.max(1) as f64)).collect())
    }
}
