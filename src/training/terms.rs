use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// A step's loss and what it is made of.
pub(super) struct StepLoss {
    /// What to minimise, with its graph.
    pub total: Tensor,
    /// The same in numbers.
    pub terms: Terms,
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
