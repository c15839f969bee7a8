use tch::{Kind, TchError, Tensor};

use super::batch::{Batch, gather, prefix};
use super::full_softmax::Exit;
use super::parameters::{OUTPUT_BIAS, OUTPUT_WEIGHT, Parameters};
use super::terms::StepLoss;

/// A softmax over a draw of items: the true item against K others of N, the same ones for every position of the batch and
/// for every slice.
///
/// They are drawn uniformly, and log(N / K) is added to their scores, so that their sum estimates the sum over the whole
/// catalogue (Bengio & Senécal 2008). A true item that was drawn as well counts once. With K = N it is the full softmax.
pub(crate) struct SampledSoftmax {
    /// Output rows of the true items, and their biases: [S, D], [S]
    own: [Tensor; 2],
    /// Output rows of the drawn items, and their biases, corrected: [K, D], [K]
    others: [Tensor; 2],
    /// Where a drawn item is the true one: [S, K], bool
    same: Tensor,
}

/// Scores of one slice under a [`SampledSoftmax`].
struct SampledScores {
    /// Of the true items: [S]
    own: Tensor,
    /// Of the drawn items: [S, K]
    others: Tensor,
    /// Logarithm of the sum of both's exponentials: [S]
    normaliser: Tensor,
}

/// Probabilities that a slice should come to.
struct SoftTargets {
    /// Of the true items: [S]
    own: Tensor,
    /// Of the drawn items: [S, K]
    others: Tensor,
}

/// What stands for the score of an item that does not take part: finite, so that zero times it is zero.
const ABSENT: f64 = -1e9;

impl SampledSoftmax {
    /// Draws `negatives` items by tch's generator, or takes the whole catalogue where that is no larger.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn draw(
        parameters: &Parameters,
        batch: &Batch,
        items: usize,
        negatives: usize,
    ) -> Result<SampledSoftmax, TchError> {
        let device = batch.targets.device();
        let options = (Kind::Int64, device);
        let (drawn, correction) = if negatives < items {
            let drawn = Tensor::f_randint_low(1, items as i64 + 1, [negatives as i64], options)?;
            (drawn, (items as f64 / negatives as f64).ln())
        } else {
            (Tensor::f_arange_start(1, items as i64 + 1, options)?, 0.0)
        };
        let (weight, bias) = (parameters.get(OUTPUT_WEIGHT)?, parameters.get(OUTPUT_BIAS)?);
        let rows = |of: &Tensor| -> Result<[Tensor; 2], TchError> {
            Ok([gather(weight, of)?, gather(&bias.f_unsqueeze(1)?, of)?.f_squeeze_dim(1)?])
        };
        let [others, other_bias] = rows(&drawn)?;
        Ok(SampledSoftmax {
            own: rows(&batch.targets)?,
            others: [others, other_bias.f_add_scalar(correction)?],
            same: batch.targets.f_unsqueeze(1)?.f_eq_tensor(&drawn.f_unsqueeze(0)?)?,
        })
    }

    /// The loss of several exits: `teacher` learns from true items alone, each student by the share `distillation` from
    /// the teacher's probabilities.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn loss(&self, (teacher, students): (&Exit, &[Exit]), distillation: f64) -> Result<StepLoss, TchError> {
        let scores = self.scores(&teacher.hidden)?;
        let soft = scores.probabilities()?;
        let mut loss = StepLoss::default();
        let mut add = |exit: &Exit, value: Tensor| {
            let objective = value.f_mul_scalar(exit.weight)?;
            loss.add(exit.name, (value.f_detach()?, exit.weight), objective)
        };
        add(teacher, scores.cross_entropy()?)?;
        for student in students {
            add(student, self.scores(&student.hidden)?.distilled(&soft, distillation)?)?;
        }
        Ok(loss)
    }

    /// Scores by hidden states, [S, h].
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    fn scores(&self, hidden: &Tensor) -> Result<SampledScores, TchError> {
        let width = hidden.size2()?.1 as usize;
        let [own, own_bias] = &self.own;
        let own = hidden.f_mul(&prefix(own, 1, width)?)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?;
        let own = own.f_add(own_bias)?; // [S]
        let [others, other_bias] = &self.others;
        let mut others = hidden.f_linear(&prefix(others, 1, width)?, Some(other_bias))?; // [S, K]
        let _ = others.f_masked_fill_(&self.same, ABSENT)?;
        let normaliser = others.f_logsumexp([1_i64].as_slice(), false)?.f_logaddexp(&own)?; // [S]
        Ok(SampledScores { own, others, normaliser })
    }
}

impl SampledScores {
    /// Mean cross-entropy of the true items.
    ///
    /// # Errors
    /// LibTorch's.
    fn cross_entropy(&self) -> Result<Tensor, TchError> {
        self.normaliser.f_sub(&self.own)?.f_mean(Kind::Float)
    }

    /// Mean cross-entropy of probabilities that are `soft` by the share `distillation` and else certain of the true
    /// items.
    ///
    /// # Errors
    /// LibTorch's.
    fn distilled(&self, soft: &SoftTargets, distillation: f64) -> Result<Tensor, TchError> {
        let own = soft.own.f_mul_scalar(distillation)?.f_add_scalar(1.0 - distillation)?.f_mul(&self.own)?;
        let others = soft.others.f_mul(&self.others)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?;
        // The probabilities sum to one, so the normaliser counts once.
        self.normaliser.f_sub(&own)?.f_sub(&others.f_mul_scalar(distillation)?)?.f_mean(Kind::Float)
    }

    /// Its own probabilities, without a gradient.
    ///
    /// # Errors
    /// LibTorch's.
    fn probabilities(&self) -> Result<SoftTargets, TchError> {
        let normaliser = self.normaliser.f_detach()?;
        Ok(SoftTargets {
            own: self.own.f_detach()?.f_sub(&normaliser)?.f_exp()?,
            others: self.others.f_detach()?.f_sub(&normaliser.f_unsqueeze(1)?)?.f_exp()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::Recipe;
    use crate::batch::Sample;
    use canet_domain::Item;
    use canet_model::{HostTensor, Weights};

    /// Over many draws the sums of exponentials are those of the whole catalogue on average.
    #[test]
    fn a_draw_estimates_the_sum_over_the_whole_catalogue() {
        tch::manual_seed(6);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
        let (items, width) = (20_usize, 3);
        let mut weights = Weights::default();
        let rows = items as i64 + 1;
        weights.insert(OUTPUT_WEIGHT, HostTensor { shape: vec![items + 1, width], data: values(&random(&[rows, 3])) });
        weights.insert(OUTPUT_BIAS, HostTensor { shape: vec![items + 1], data: values(&random(&[rows])) });
        let parameters = Parameters::from_weights(&weights, Recipe::Paper, false, Device::Cpu).unwrap();
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
            // The draws differ, or nothing would be estimated.
            assert!(
                error > 0.001 * mean && (mean - f64::from(whole)).abs() < 4.0 * error,
                "{mean} ±{error}, not {whole}"
            );
        }
    }
}
