use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

/// Hidden states of one slice after its last layer or an earlier one.
pub(crate) struct Exit {
    /// Its name in the run log.
    pub name: &'static str,
    /// Hidden states at the S positions that carry the loss: `[S, h]`
    pub hidden: Tensor,
    /// Weight of its loss.
    pub weight: f64,
}

/// The exits of one step and how they learn.
///
/// The teacher learns only from the true items. The students also learn from the teacher's probabilities, which is the
/// inplace distillation of Yu & Huang 2019, arXiv:1903.05134.
pub(crate) struct Exits {
    pub teacher: Exit,
    pub students: Vec<Exit>,
    /// Share of the teacher's probabilities in a student's targets. The rest is the true item.
    pub distillation: f64,
}

impl Exits {
    /// All exits, the teacher first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Exit> {
        std::iter::once(&self.teacher).chain(&self.students)
    }
}

/// The loss of one step and its parts.
#[derive(Default)]
pub(crate) struct StepLoss {
    /// The scalars whose gradients the step follows. Their values need not be those of the loss.
    objectives: Vec<Tensor>,
    /// The weighted parts of the loss, as scalars on the device.
    totals: Vec<Tensor>,
    /// The parts of the loss before weighting, as scalars on the device.
    parts: Vec<(&'static str, Tensor)>,
}

/// One part of a step's loss.
pub(crate) struct LossPart {
    /// Its name in the run log.
    pub name: &'static str,
    /// Its value before weighting: a scalar.
    pub value: Tensor,
    /// Its weight in the loss.
    pub weight: f64,
    /// A scalar that has the gradients of the weighted part.
    pub objective: Tensor,
}

impl StepLoss {
    /// Adds a part.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn add(&mut self, part: LossPart) -> Result<(), TchError> {
        self.totals.push(part.value.f_mul_scalar(part.weight)?);
        self.parts.push((part.name, part.value));
        self.objectives.push(part.objective);
        Ok(())
    }

    /// A loss that is one graph. The parts are only for the run log.
    pub(crate) fn whole(total: Tensor, parts: Vec<(&'static str, Tensor)>) -> StepLoss {
        StepLoss { objectives: vec![total.shallow_clone()], totals: vec![total], parts }
    }

    /// Runs the backward pass, which adds to the gradients of the weights.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn backward(&self) -> Result<(), TchError> {
        Tensor::f_stack(&self.objectives, 0)?.f_sum(Kind::Float)?.f_backward()
    }

    /// The values of all parts. They are copied in one transfer, because every transfer waits for the device.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn values(&self) -> Result<LossValues, TchError> {
        let scalars: Vec<Tensor> = self
            .parts
            .iter()
            .map(|(_, part)| part)
            .chain(&self.totals)
            .map(Tensor::f_detach)
            .collect::<Result<_, _>>()?;
        let values: Vec<f64> = Vec::try_from(&Tensor::f_stack(&scalars, 0)?.f_to_kind(Kind::Double)?)?;
        let mut sums = LossValues::default();
        let names = self.parts.iter().map(|(name, _)| *name).chain(std::iter::repeat(TOTAL));
        names.zip(values).for_each(|(name, value)| sums.add_part(name, value));
        Ok(sums)
    }
}

/// Name of the whole loss among the [`LossValues`].
const TOTAL: &str = "total";

/// Values of a loss's parts by name, and of the weighted whole as `total`. Entropies are in nats.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LossValues(BTreeMap<String, f64>);

impl LossValues {
    /// Adds a value to the part of this name.
    fn add_part(&mut self, name: &str, value: f64) {
        *self.0.entry(name.to_owned()).or_default() += value;
    }

    /// The whole loss.
    pub(crate) fn total(&self) -> f64 {
        self.part(TOTAL)
    }

    /// A part of the loss, 0 if there is none of this name.
    pub(crate) fn part(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Adds the values of another step.
    pub(crate) fn add(&mut self, other: &LossValues) {
        for (name, value) in &other.0 {
            self.add_part(name, *value);
        }
    }

    /// The mean over `steps` added steps.
    pub(crate) fn mean(&self, steps: u64) -> LossValues {
        LossValues(self.0.iter().map(|(name, sum)| (name.clone(), sum / steps.max(1) as f64)).collect())
    }
}

#[cfg(test)]
impl LossValues {
    /// A loss without parts.
    pub(crate) fn of_total(total: f64) -> LossValues {
        LossValues(BTreeMap::from([(TOTAL.to_owned(), total)]))
    }
}
