//! Cross-entropy over the whole catalogue, with gradients that are written out.
//!
//! With scores `z = W h + b`, probabilities `p = softmax(z)` and a target distribution `q`, the cross-entropy
//! `log Σ exp z - q·z` has the gradients `Wᵀ(p - q)` for `h` and `(p - q) hᵀ` for `W`. Written out they cost three matrix
//! products and one softmax an exit. LibTorch's own graph costs the same products, more passes over a matrix of samples x
//! items, and a copy of the whole table for each narrower slice.
//!
//! A student's target is `q = (1 - d)·(true item) + d·(the teacher's p)`, as in Hinton et al. 2015 at temperature 1. The
//! teacher's share of a gradient is linear in it, so the teacher's probabilities are used once for all students.

use tch::{Kind, TchError, Tensor};

use super::batch::gather;
use super::parameters::{OUTPUT_BIAS, OUTPUT_WEIGHT, Parameters};
use super::terms::StepLoss;

/// What one slice makes of the positions that carry the loss.
pub(crate) struct Exit {
    /// What it is called in the run log.
    pub name: &'static str,
    /// Its hidden states: [S, h]
    pub hidden: Tensor,
    /// Weight of its loss.
    pub weight: f64,
}

/// Scores that are held at a time, about: 16 MB.
const SCORES: usize = 4 << 20;

/// The loss of several exits on the items that came next, [S]: `teacher` learns from those alone, each student by the
/// share `distillation` from the teacher's probabilities.
///
/// The gradients of the output layer are added to it here; those of the hidden states go on in the result's objective.
///
/// # Errors
/// LibTorch's, when memory runs out.
pub(crate) fn full_softmax(
    parameters: &Parameters,
    targets: &Tensor,
    (teacher, students): (&Exit, &[Exit]),
    distillation: f64,
) -> Result<StepLoss, TchError> {
    let items = parameters.get(OUTPUT_WEIGHT)?.size2()?.0 - 1;
    in_blocks(parameters, targets, (teacher, students), distillation, (SCORES as i64 / items).max(1))
}

/// The same, `most` samples at a time.
fn in_blocks(
    parameters: &Parameters,
    targets: &Tensor,
    (teacher, students): (&Exit, &[Exit]),
    distillation: f64,
    most: i64,
) -> Result<StepLoss, TchError> {
    let samples = targets.size1()?;
    let items = parameters.get(OUTPUT_WEIGHT)?.size2()?.0 - 1;
    let mut layer = Layer::of(parameters, items)?;
    let exits = || std::iter::once(teacher).chain(students);
    let slopes = exits().map(|exit| exit.hidden.f_zeros_like()).collect::<Result<Vec<_>, _>>()?;
    let mut losses =
        exits().map(|_| Tensor::f_zeros([], (Kind::Float, targets.device()))).collect::<Result<Vec<_>, _>>()?;
    tch::no_grad(|| {
        for first in (0..samples).step_by(most as usize) {
            let count = most.min(samples - first);
            let chunk = |x: &Tensor| x.f_narrow(0, first, count);
            let hidden = exits().map(|exit| chunk(&exit.hidden)).collect::<Result<Vec<_>, _>>()?;
            // Column 0 is padding, which is no item.
            let chunk = Chunk { targets: chunk(targets)?.f_sub_scalar(1)?, samples: samples as f64 };
            let weights: Vec<f64> = exits().map(|exit| exit.weight).collect();
            for (exit, (loss, slope)) in
                chunk.gradients(&mut layer, &hidden, &weights, distillation)?.into_iter().enumerate()
            {
                let _ = losses[exit].f_add_(&loss)?;
                slopes[exit].f_narrow(0, first, count)?.f_copy_(&slope)?;
            }
        }
        Ok::<_, TchError>(())
    })?;
    let mut loss = StepLoss::default();
    for ((exit, value), slope) in exits().zip(losses).zip(slopes) {
        // Its gradient for the hidden state is the slope.
        let objective = exit.hidden.f_mul(&slope)?.f_sum(Kind::Float)?;
        loss.add(exit.name, (value, exit.weight), objective)?;
    }
    Ok(loss)
}

/// The output layer without the row of padding, and where its gradients are collected.
struct Layer {
    /// [N, D]
    weight: Tensor,
    /// [N]
    bias: Tensor,
    /// [N, D]
    weight_gradient: Tensor,
    /// [N], where the bias is learnt
    bias_gradient: Option<Tensor>,
}

impl Layer {
    fn of(parameters: &Parameters, items: i64) -> Result<Layer, TchError> {
        let rows = |tensor: &Tensor| tensor.f_detach()?.f_narrow(0, 1, items);
        let bias = parameters.get(OUTPUT_BIAS)?;
        Ok(Layer {
            weight: rows(parameters.get(OUTPUT_WEIGHT)?)?,
            bias: rows(bias)?,
            weight_gradient: rows(&parameters.gradient(OUTPUT_WEIGHT)?)?,
            bias_gradient: match bias.requires_grad() {
                true => Some(rows(&parameters.gradient(OUTPUT_BIAS)?)?),
                false => None,
            },
        })
    }
}

/// Some of a step's positions.
struct Chunk {
    /// Places of their true items among the layer's rows: [C]
    targets: Tensor,
    /// Positions of the whole step, over which the loss is a mean.
    samples: f64,
}

/// What an exit makes of the catalogue.
struct Scored {
    /// [C, N]
    probabilities: Tensor,
    /// Scores of the true items: [C, 1]
    own: Tensor,
    /// Logarithms of the sums of the exponentials: [C, 1]
    normaliser: Tensor,
}

impl Chunk {
    /// Adds the layer's gradients; gives for each exit, the teacher first, its share of the unweighted loss and the
    /// gradient of its hidden states, [C, h].
    fn gradients(
        &self,
        layer: &mut Layer,
        hidden: &[Tensor],
        weights: &[f64],
        distillation: f64,
    ) -> Result<Vec<(Tensor, Tensor)>, TchError> {
        let own = gather(&layer.weight, &self.targets)?; // [C, D]
        let rates: Vec<f64> = weights.iter().map(|weight| weight / self.samples).collect();
        let Scored { probabilities, own: own_score, normaliser } = self.scored(layer, &hidden[0])?;
        let soft = probabilities.f_matmul(&layer.weight)?; // [C, D]
        let soft_bias = probabilities.f_mv(&layer.bias)?.f_unsqueeze(1)?; // [C, 1]
        let slope = soft.f_sub(&own)?.f_mul_scalar(rates[0])?;
        let mut found = vec![(self.mean(&normaliser.f_sub(&own_score)?)?, slope)];
        // Factors of the hidden states in the gradient of the layer, by the teacher's probabilities and by true items.
        let by_teacher = hidden[0].f_mul_scalar(rates[0])?; // [C, D]
        let by_target = hidden[0].f_mul_scalar(rates[0])?; // [C, D]
        let (mut teacher_rate, mut target_rate) = (rates[0], rates[0]);
        for (hidden, rate) in hidden.iter().zip(&rates).skip(1) {
            let width = hidden.size2()?.1;
            let [learnt, given] = [rate * distillation, rate * (1.0 - distillation)];
            let _ = by_teacher.f_narrow(1, 0, width)?.f_add_(&hidden.f_mul_scalar(-learnt)?)?;
            let _ = by_target.f_narrow(1, 0, width)?.f_add_(&hidden.f_mul_scalar(given)?)?;
            (teacher_rate, target_rate) = (teacher_rate - learnt, target_rate + given);
        }
        layer.add(&probabilities, &by_teacher, teacher_rate)?;
        drop(probabilities);
        layer.subtract_at(&self.targets, &by_target, target_rate)?;
        for (hidden, rate) in hidden.iter().zip(&rates).skip(1) {
            let width = hidden.size2()?.1;
            let Scored { probabilities, own: own_score, normaliser } = self.scored(layer, hidden)?;
            let [soft, own] = [soft.f_narrow(1, 0, width)?, own.f_narrow(1, 0, width)?];
            let wanted = soft.f_mul_scalar(distillation)?.f_add(&own.f_mul_scalar(1.0 - distillation)?)?; // [C, h]
            let expected = probabilities.f_matmul(&layer.weight.f_narrow(1, 0, width)?)?; // [C, h]
            layer.add(&probabilities, &hidden.f_mul_scalar(*rate)?, *rate)?;
            let soft_score = hidden.f_mul(&soft)?.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Float)?;
            let soft_score = soft_score.f_add(&soft_bias)?.f_mul_scalar(distillation)?; // [C, 1]
            let score = own_score.f_mul_scalar(1.0 - distillation)?.f_add(&soft_score)?;
            let slope = expected.f_sub(&wanted)?.f_mul_scalar(*rate)?;
            found.push((self.mean(&normaliser.f_sub(&score)?)?, slope));
        }
        Ok(found)
    }

    fn scored(&self, layer: &Layer, hidden: &Tensor) -> Result<Scored, TchError> {
        let weight = layer.weight.f_narrow(1, 0, hidden.size2()?.1)?; // [N, h]
        let scores = hidden.f_linear(&weight, Some(&layer.bias))?; // [C, N]
        let targets = self.targets.f_unsqueeze(1)?; // [C, 1]
        let own = scores.f_gather(1, &targets, false)?;
        let probabilities = scores.f_softmax(1, Kind::Float)?;
        // The smallest positive number keeps a hopeless item's logarithm finite.
        let share = probabilities.f_gather(1, &targets, false)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        Ok(Scored { normaliser: own.f_sub(&share.f_log()?)?, probabilities, own })
    }

    /// The sum over these positions as a share of the mean over all.
    fn mean(&self, losses: &Tensor) -> Result<Tensor, TchError> {
        losses.f_sum(Kind::Float)?.f_div_scalar(self.samples)
    }
}

impl Layer {
    /// Adds `probabilitiesᵀ · hidden` to the gradient of the weights, and their sums times `rate` to that of the bias.
    fn add(&mut self, probabilities: &Tensor, hidden: &Tensor, rate: f64) -> Result<(), TchError> {
        let mut gradient = self.weight_gradient.f_narrow(1, 0, hidden.size2()?.1)?;
        let _ = gradient.f_addmm_(&probabilities.f_transpose(0, 1)?, hidden)?;
        if let Some(gradient) = &mut self.bias_gradient {
            let mut sums = probabilities.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Float)?;
            let _ = gradient.f_add_(&sums.f_mul_scalar_(rate)?)?;
        }
        Ok(())
    }

    /// Subtracts the rows of `hidden` from the gradients of the true items' weights, and `rate` from those of their biases.
    fn subtract_at(&mut self, targets: &Tensor, hidden: &Tensor, rate: f64) -> Result<(), TchError> {
        let _ = self.weight_gradient.f_index_add_(0, targets, &hidden.f_neg()?)?;
        if let Some(gradient) = &mut self.bias_gradient {
            let rates = Tensor::f_full([targets.size1()?], -rate, (Kind::Float, targets.device()))?;
            let _ = gradient.f_index_add_(0, targets, &rates)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::Recipe;
    use canet_model::{HostTensor, Weights};

    /// Loss, gradients of the hidden states, and gradients of the layer, of seven samples over five items.
    fn found(most: i64) -> Vec<Vec<f32>> {
        tch::manual_seed(4);
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.detach().flatten(0, -1)).unwrap();
        let mut weights = Weights::default();
        weights.insert(OUTPUT_WEIGHT, HostTensor { shape: vec![6, 4], data: values(&random(&[6, 4])) });
        weights.insert(OUTPUT_BIAS, HostTensor { shape: vec![6], data: values(&random(&[6])) });
        let parameters = Parameters::from_weights(&weights, Recipe::Paper, false, Device::Cpu).unwrap();
        let targets = Tensor::from_slice(&[1_i64, 5, 3, 3, 2, 4, 5]);
        let exit = |width: i64, weight: f64| {
            let hidden = random(&[7, width]).set_requires_grad(true);
            Exit { name: "exit", hidden, weight }
        };
        let (teacher, students) = (exit(4, 1.0), [exit(2, 1.0), exit(4, 0.5)]);
        let loss = in_blocks(&parameters, &targets, (&teacher, &students), 0.5, most).unwrap();
        loss.backward().unwrap();
        let layer = [OUTPUT_WEIGHT, OUTPUT_BIAS].map(|name| parameters.gradient(name).unwrap());
        let hidden = [&teacher, &students[0], &students[1]].map(|exit| exit.hidden.grad());
        let total = loss.terms().unwrap().total() as f32;
        layer.iter().chain(&hidden).map(values).chain([vec![total]]).collect()
    }

    #[test]
    fn blocks_of_samples_add_up_to_the_whole() {
        let whole = found(7);
        for most in [1, 2, 3] {
            for (found, whole) in found(most).iter().flatten().zip(whole.iter().flatten()) {
                assert!((found - whole).abs() < 1e-5, "blocks of {most}: {found}, not {whole}");
            }
        }
    }
}
