use tch::{Kind, TchError, Tensor};

use crate::batch::Batch;
use crate::parameters::{OUTPUT_BIAS, OUTPUT_WEIGHT, Parameters};
use crate::step_loss::{Exit, Exits, LossPart, StepLoss};
use crate::tensors::{gather, prefix};

/// Softmax over the true item and K negatives, which are random items of the N in the catalogue.
///
/// All positions of a batch and all slices share the negatives. They are drawn uniformly, and log(N / K) is added to
/// their scores, so that the sum of their exponentials estimates the sum over the whole catalogue (Bengio & Senécal
/// 2008, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model"). A negative
/// that is also the true item is left out. With K = N this is the full softmax.
///
/// Shapes: S positions that carry the loss, D the largest width, h a slice's width.
pub(crate) struct SampledSoftmax {
    true_items: OutputRows,
    /// With the correction in their biases.
    negatives: OutputRows,
    /// Whether a negative is the position's true item: `[S, K]`, bool
    same: Tensor,
}

/// Some rows of the output layer.
struct OutputRows {
    /// `[S, D]` or `[K, D]`
    weight: Tensor,
    /// `[S]` or `[K]`
    bias: Tensor,
}

/// Scores of one slice under a [`SampledSoftmax`].
struct SampledScores {
    /// Scores of the true items: `[S]`
    true_items: Tensor,
    /// Scores of the negatives: `[S, K]`
    negatives: Tensor,
    /// Logarithm of the sum of all their exponentials: `[S]`
    normaliser: Tensor,
}

/// Probabilities of one slice, which other slices learn.
struct SoftTargets {
    /// `[S]`
    true_items: Tensor,
    /// `[S, K]`
    negatives: Tensor,
}

/// Score of a negative that is left out. It is finite, so that zero times it is zero.
const LEFT_OUT: f64 = -1e9;

impl SampledSoftmax {
    /// Draws `negatives` of the catalogue's `items` from tch's generator. If the catalogue has no more items than that,
    /// takes all of them.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn draw(
        parameters: &Parameters,
        batch: &Batch,
        items: usize,
        negatives: usize,
    ) -> Result<SampledSoftmax, TchError> {
        let options = (Kind::Int64, batch.targets.device());
        let (drawn, correction) = if negatives < items {
            let drawn = Tensor::f_randint_low(1, items as i64 + 1, [negatives as i64], options)?; // [K]
            (drawn, (items as f64 / negatives as f64).ln())
        } else {
            (Tensor::f_arange_start(1, items as i64 + 1, options)?, 0.0) // [N]
        };
        let (weight, bias) = (parameters.get(OUTPUT_WEIGHT)?, parameters.get(OUTPUT_BIAS)?);
        let rows = |items: &Tensor| -> Result<OutputRows, TchError> {
            let bias = gather(&bias.f_unsqueeze(1)?, items)?.f_squeeze_dim(1)?;
            Ok(OutputRows { weight: gather(weight, items)?, bias })
        };
        let negatives = rows(&drawn)?;
        Ok(SampledSoftmax {
            true_items: rows(&batch.targets)?,
            negatives: OutputRows { bias: negatives.bias.f_add_scalar(correction)?, ..negatives },
            same: batch.targets.f_unsqueeze(1)?.f_eq_tensor(&drawn.f_unsqueeze(0)?)?,
        })
    }

    /// The loss of a step's exits, a mean over the S positions.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn loss(&self, exits: &Exits) -> Result<StepLoss, TchError> {
        let scores = self.scores(&exits.teacher.hidden)?;
        let soft = scores.probabilities()?;
        let mut loss = StepLoss::default();
        let mut add = |exit: &Exit, value: Tensor| {
            let objective = value.f_mul_scalar(exit.weight)?;
            loss.add(LossPart { name: exit.name, value: value.f_detach()?, weight: exit.weight, objective })
        };
        add(&exits.teacher, scores.cross_entropy()?)?;
        for student in &exits.students {
            add(student, self.scores(&student.hidden)?.distilled(&soft, exits.distillation)?)?;
        }
        Ok(loss)
    }

    /// Scores of hidden states, `[S, h]`.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    fn scores(&self, hidden: &Tensor) -> Result<SampledScores, TchError> {
        let width = hidden.size2()?.1 as usize;
        let weight = prefix(&self.true_items.weight, 1, width)?; // [S, h]
        let true_items = hidden.f_mul(&weight)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?; // [S]
        let true_items = true_items.f_add(&self.true_items.bias)?; // [S]
        let weight = prefix(&self.negatives.weight, 1, width)?; // [K, h]
        let mut negatives = hidden.f_linear(&weight, Some(&self.negatives.bias))?; // [S, K]
        let _ = negatives.f_masked_fill_(&self.same, LEFT_OUT)?;
        let normaliser = negatives.f_logsumexp([1_i64].as_slice(), false)?.f_logaddexp(&true_items)?; // [S]
        Ok(SampledScores { true_items, negatives, normaliser })
    }
}

impl SampledScores {
    /// Mean cross-entropy of the true items: a scalar.
    ///
    /// # Errors
    /// LibTorch's.
    fn cross_entropy(&self) -> Result<Tensor, TchError> {
        self.normaliser.f_sub(&self.true_items)?.f_mean(Kind::Float)
    }

    /// Mean cross-entropy of targets that are `soft` by the share `distillation` and the true item otherwise: a scalar.
    ///
    /// # Errors
    /// LibTorch's.
    fn distilled(&self, soft: &SoftTargets, distillation: f64) -> Result<Tensor, TchError> {
        let targets = soft.true_items.f_mul_scalar(distillation)?.f_add_scalar(1.0 - distillation)?; // [S]
        let true_items = targets.f_mul(&self.true_items)?; // [S]
        let negatives = soft.negatives.f_mul(&self.negatives)?;
        let negatives = negatives.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?; // [S]
        // The targets sum to one, so the normaliser has the factor 1.
        self.normaliser.f_sub(&true_items)?.f_sub(&negatives.f_mul_scalar(distillation)?)?.f_mean(Kind::Float)
    }

    /// The probabilities, without a gradient.
    ///
    /// # Errors
    /// LibTorch's.
    fn probabilities(&self) -> Result<SoftTargets, TchError> {
        let normaliser = self.normaliser.f_detach()?;
        Ok(SoftTargets {
            true_items: self.true_items.f_detach()?.f_sub(&normaliser)?.f_exp()?,
            negatives: self.negatives.f_detach()?.f_sub(&normaliser.f_unsqueeze(1)?)?.f_exp()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use canet_domain::Item;
    use canet_model::{HostTensor, Role};
    use tch::Device;

    use super::*;
    use crate::batch::Sample;
    use crate::torch_seed::seed_torch;

    #[test]
    fn the_mean_over_draws_is_the_sum_over_the_whole_catalogue() {
        let _generator = seed_torch(6);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
        let (items, width) = (20_usize, 3);
        let rows = items as i64 + 1;
        let weight = HostTensor { shape: vec![items + 1, width], data: values(&random(&[rows, 3])) };
        let bias = HostTensor { shape: vec![items + 1], data: values(&random(&[rows])) };
        let weights = [(OUTPUT_WEIGHT, Role::Linear, weight), (OUTPUT_BIAS, Role::Bias, bias)];
        let parameters = Parameters::undeclared(weights, Device::Cpu).unwrap();
        let sequence: Vec<Item> = [4, 9, 20].into_iter().filter_map(Item::new).collect();
        let sample = Sample { inputs: &sequence[..2], targets: &sequence[1..] };
        let batch = Batch::new(&[sample], 5, Device::Cpu).unwrap();
        let hidden = random(&[2, 3]);
        let sums = |negatives: usize| {
            let draw = SampledSoftmax::draw(&parameters, &batch, items, negatives).unwrap();
            values(&draw.scores(&hidden).unwrap().normaliser.exp().detach())
        };
        let whole = sums(items);
        let draws: Vec<Vec<f32>> = (0..4000).map(|_| sums(5)).collect();
        for (position, whole) in whole.into_iter().enumerate() {
            let found: Vec<f64> = draws.iter().map(|draw| f64::from(draw[position])).collect();
            let mean = found.iter().sum::<f64>() / found.len() as f64;
            let variance = found.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / found.len() as f64;
            let error = (variance / found.len() as f64).sqrt();
            // The first condition makes sure that the draws differ.
            assert!(
                error > 0.001 * mean && (mean - f64::from(whole)).abs() < 4.0 * error,
                "{mean} ±{error}, not {whole}"
            );
        }
    }
}
