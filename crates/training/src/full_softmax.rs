//! Cross-entropy over the whole catalogue, with explicit gradients.
//!
//! With scores `z = W h + b`, probabilities `p = softmax(z)` and target distribution `q`, the cross-entropy is
//! `log(sum(exp z)) - q·z`. Its gradient is `Wᵀ(p - q)` for `h` and `(p - q) hᵀ` for `W`. Computed directly, an exit
//! costs three matrix products and one softmax. LibTorch's autograd needs the same products, more passes over a matrix
//! of positions x items, and a copy of the whole table for each narrower slice.
//!
//! A student's target is `q = (1 - d)·(true item) + d·(the teacher's p)`, as in Hinton et al. 2015, arXiv:1503.02531,
//! at temperature 1. The teacher's part of a gradient is linear in `p`, so one product with `p` serves all students.

use tch::{Kind, TchError, Tensor};

use crate::parameters::{OUTPUT_BIAS, OUTPUT_WEIGHT, Parameters};
use crate::step_loss::{Exits, LossPart, StepLoss};
use crate::tensors::gather;

/// Approximate number of scores in memory at a time: 16 MiB.
pub(crate) const SCORES: usize = 4 << 20;

/// The loss of a step's exits, with targets `[S]`. It is a mean over the S positions.
///
/// This function adds the gradients of the output layer to those of the weights. The objectives of the result have the
/// gradients of the hidden states.
///
/// # Errors
/// LibTorch's, if memory runs out.
pub(crate) fn full_softmax(parameters: &Parameters, targets: &Tensor, exits: &Exits) -> Result<StepLoss, TchError> {
    let items = parameters.get(OUTPUT_WEIGHT)?.size2()?.0 - 1;
    in_chunks(parameters, targets, exits, (SCORES as i64 / items).max(1))
}

/// The same, with at most `most` positions at a time.
fn in_chunks(parameters: &Parameters, targets: &Tensor, exits: &Exits, most: i64) -> Result<StepLoss, TchError> {
    let samples = targets.size1()?;
    let mut layer = OutputLayer::new(parameters)?;
    let slopes = exits.iter().map(|exit| exit.hidden.f_zeros_like()).collect::<Result<Vec<_>, _>>()?;
    let mut losses =
        exits.iter().map(|_| Tensor::f_zeros([], (Kind::Float, targets.device()))).collect::<Result<Vec<_>, _>>()?;
    let rates: Vec<f64> = exits.iter().map(|exit| exit.weight / samples as f64).collect();
    tch::no_grad(|| {
        for first in (0..samples).step_by(most as usize) {
            let count = most.min(samples - first);
            let part = |x: &Tensor| x.f_narrow(0, first, count);
            let chunk = Chunk {
                hidden: exits.iter().map(|exit| part(&exit.hidden)).collect::<Result<Vec<_>, _>>()?,
                // The layer has no row for column 0, which is padding.
                targets: part(targets)?.f_sub_scalar(1)?,
                samples: samples as f64,
            };
            for (exit, found) in chunk.gradients(&mut layer, &rates, exits.distillation)?.into_iter().enumerate() {
                let _ = losses[exit].f_add_(&found.loss)?;
                slopes[exit].f_narrow(0, first, count)?.f_copy_(&found.slope)?;
            }
        }
        Ok::<_, TchError>(())
    })?;
    let mut loss = StepLoss::default();
    for ((exit, value), slope) in exits.iter().zip(losses).zip(slopes) {
        // The gradient of this product for the hidden states is the slope.
        let objective = exit.hidden.f_mul(&slope)?.f_sum(Kind::Float)?;
        loss.add(LossPart { name: exit.name, value, weight: exit.weight, objective })?;
    }
    Ok(loss)
}

/// The output layer without the row of padding, and its gradients. All are views.
struct OutputLayer {
    /// `[N, D]`
    weight: Tensor,
    /// `[N]`
    bias: Tensor,
    /// `[N, D]`
    weight_gradient: Tensor,
    /// `None` if the bias is not trained: `[N]`
    bias_gradient: Option<Tensor>,
}

impl OutputLayer {
    fn new(parameters: &Parameters) -> Result<OutputLayer, TchError> {
        let items = parameters.get(OUTPUT_WEIGHT)?.size2()?.0 - 1;
        let rows = |tensor: &Tensor| tensor.f_detach()?.f_narrow(0, 1, items);
        let bias = parameters.get(OUTPUT_BIAS)?;
        Ok(OutputLayer {
            weight: rows(parameters.get(OUTPUT_WEIGHT)?)?,
            bias: rows(bias)?,
            weight_gradient: rows(&parameters.gradient(OUTPUT_WEIGHT)?)?,
            bias_gradient: match bias.requires_grad() {
                true => Some(rows(&parameters.gradient(OUTPUT_BIAS)?)?),
                false => None,
            },
        })
    }

    /// Adds `probabilitiesᵀ · hidden` to the gradient of the weight, and `rate` times the sums of the probabilities to
    /// the gradient of the bias: probabilities `[C, N]`, hidden `[C, h]`.
    fn add(&mut self, probabilities: &Tensor, hidden: &Tensor, rate: f64) -> Result<(), TchError> {
        let mut gradient = self.weight_gradient.f_narrow(1, 0, hidden.size2()?.1)?; // [N, h]
        let _ = gradient.f_addmm_(&probabilities.f_transpose(0, 1)?, hidden)?;
        if let Some(gradient) = &mut self.bias_gradient {
            let mut sums = probabilities.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Float)?; // [N]
            let _ = gradient.f_add_(&sums.f_mul_scalar_(rate)?)?;
        }
        Ok(())
    }

    /// Subtracts each row of `hidden`, `[C, D]`, from the gradient of its target's weight, and `rate` from the gradient
    /// of its target's bias.
    fn subtract_at(&mut self, targets: &Tensor, hidden: &Tensor, rate: f64) -> Result<(), TchError> {
        let _ = self.weight_gradient.f_index_add_(0, targets, &hidden.f_neg()?)?;
        if let Some(gradient) = &mut self.bias_gradient {
            let rates = Tensor::f_full([targets.size1()?], -rate, (Kind::Float, targets.device()))?; // [C]
            let _ = gradient.f_index_add_(0, targets, &rates)?;
        }
        Ok(())
    }
}

/// C of a step's S positions.
struct Chunk {
    /// Hidden states of each exit, the teacher's first: `[C, h]` each
    hidden: Vec<Tensor>,
    /// Rows of the true items in the output layer: `[C]`
    targets: Tensor,
    /// S, over which the loss is a mean.
    samples: f64,
}

/// The softmax of one exit over the catalogue.
struct Softmax {
    /// `[C, N]`
    probabilities: Tensor,
    /// Scores of the true items: `[C, 1]`
    target_score: Tensor,
    /// Logarithm of the sum of the exponentials: `[C, 1]`
    normaliser: Tensor,
}

/// What a chunk contributes to one exit.
struct ExitGradient {
    /// To its unweighted loss: a scalar.
    loss: Tensor,
    /// The gradient of the weighted loss for the hidden states: `[C, h]`
    slope: Tensor,
}

impl Chunk {
    /// Computes the gradients of each exit and adds those of the output layer. `rates` are the exits' weights divided
    /// by S.
    fn gradients(
        &self,
        layer: &mut OutputLayer,
        rates: &[f64],
        distillation: f64,
    ) -> Result<Vec<ExitGradient>, TchError> {
        let teacher_hidden = &self.hidden[0]; // [C, D]
        let students = || self.hidden.iter().zip(rates).skip(1);
        let target_weight = gather(&layer.weight, &self.targets)?; // [C, D]
        let Softmax { probabilities, target_score, normaliser } = self.softmax(layer, teacher_hidden)?;
        // The teacher's expectation over items of the weight and of the bias.
        let soft = probabilities.f_matmul(&layer.weight)?; // [C, D]
        let soft_bias = probabilities.f_mv(&layer.bias)?.f_unsqueeze(1)?; // [C, 1]
        let mut found = vec![ExitGradient {
            slope: soft.f_sub(&target_weight)?.f_mul_scalar(rates[0])?, // [C, D]
            loss: self.share_of_mean(&normaliser.f_sub(&target_score)?)?,
        }];
        // In the gradient of the weight, the teacher's probabilities and the true items have these factors.
        let by_teacher = teacher_hidden.f_mul_scalar(rates[0])?; // [C, D]
        let by_target = teacher_hidden.f_mul_scalar(rates[0])?; // [C, D]
        let (mut teacher_rate, mut target_rate) = (rates[0], rates[0]);
        for (hidden, rate) in students() {
            let width = hidden.size2()?.1;
            let [from_teacher, from_target] = [rate * distillation, rate * (1.0 - distillation)];
            let _ = by_teacher.f_narrow(1, 0, width)?.f_add_(&hidden.f_mul_scalar(-from_teacher)?)?;
            let _ = by_target.f_narrow(1, 0, width)?.f_add_(&hidden.f_mul_scalar(from_target)?)?;
            (teacher_rate, target_rate) = (teacher_rate - from_teacher, target_rate + from_target);
        }
        layer.add(&probabilities, &by_teacher, teacher_rate)?;
        // Only one matrix of probabilities is in memory at a time.
        drop(probabilities);
        layer.subtract_at(&self.targets, &by_target, target_rate)?;
        for (hidden, rate) in students() {
            let width = hidden.size2()?.1;
            let Softmax { probabilities, target_score, normaliser } = self.softmax(layer, hidden)?;
            let [soft, target_weight] = [soft.f_narrow(1, 0, width)?, target_weight.f_narrow(1, 0, width)?]; // [C, h]
            let target_weight = target_weight.f_mul_scalar(1.0 - distillation)?;
            let wanted = soft.f_mul_scalar(distillation)?.f_add(&target_weight)?; // [C, h]
            let expected = probabilities.f_matmul(&layer.weight.f_narrow(1, 0, width)?)?; // [C, h]
            layer.add(&probabilities, &hidden.f_mul_scalar(*rate)?, *rate)?;
            let soft_score = hidden.f_mul(&soft)?.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Float)?; // [C, 1]
            let soft_score = soft_score.f_add(&soft_bias)?.f_mul_scalar(distillation)?; // [C, 1]
            let score = target_score.f_mul_scalar(1.0 - distillation)?.f_add(&soft_score)?; // [C, 1]
            found.push(ExitGradient {
                slope: expected.f_sub(&wanted)?.f_mul_scalar(*rate)?, // [C, h]
                loss: self.share_of_mean(&normaliser.f_sub(&score)?)?,
            });
        }
        Ok(found)
    }

    /// The softmax of hidden states, `[C, h]`.
    fn softmax(&self, layer: &OutputLayer, hidden: &Tensor) -> Result<Softmax, TchError> {
        let weight = layer.weight.f_narrow(1, 0, hidden.size2()?.1)?; // [N, h]
        let scores = hidden.f_linear(&weight, Some(&layer.bias))?; // [C, N]
        let targets = self.targets.f_unsqueeze(1)?; // [C, 1]
        let target_score = scores.f_gather(1, &targets, false)?; // [C, 1]
        let probabilities = scores.f_softmax(1, Kind::Float)?; // [C, N]
        // The bound keeps the logarithm finite if a probability rounds to zero.
        let probability = probabilities.f_gather(1, &targets, false)?; // [C, 1]
        let probability = probability.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        Ok(Softmax { normaliser: target_score.f_sub(&probability.f_log()?)?, probabilities, target_score })
    }

    /// What losses of these C positions add to the mean over all S.
    fn share_of_mean(&self, losses: &Tensor) -> Result<Tensor, TchError> {
        losses.f_sum(Kind::Float)?.f_div_scalar(self.samples)
    }
}

#[cfg(test)]
mod tests {
    use canet_model::{HostTensor, Role};
    use rand::distributions::Uniform;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tch::Device;

    use super::*;
    use crate::step_loss::Exit;

    /// Gradients of the output layer, gradients of the hidden states, and the loss, of seven positions over five items.
    fn gradients(most: i64) -> Vec<Vec<f32>> {
        // LibTorch's generator would not do: tests that run beside this one draw from it too.
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut random = |shape: &[i64]| {
            let count = shape.iter().product::<i64>() as usize;
            let values: Vec<f32> = (&mut rng).sample_iter(Uniform::new(-1.5, 1.5)).take(count).collect();
            Tensor::from_slice(&values).reshape(shape)
        };
        let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.detach().flatten(0, -1)).unwrap();
        let weight = HostTensor { shape: vec![6, 4], data: values(&random(&[6, 4])) };
        let bias = HostTensor { shape: vec![6], data: values(&random(&[6])) };
        let weights = [(OUTPUT_WEIGHT, Role::Linear, weight), (OUTPUT_BIAS, Role::Bias, bias)];
        let parameters = Parameters::undeclared(weights, Device::Cpu).unwrap();
        let targets = Tensor::from_slice(&[1_i64, 5, 3, 3, 2, 4, 5]);
        let mut exit = |width: i64, weight: f64| {
            let hidden = random(&[7, width]).set_requires_grad(true);
            Exit { name: "exit", hidden, weight }
        };
        let exits = Exits { teacher: exit(4, 1.0), students: vec![exit(2, 1.0), exit(4, 0.5)], distillation: 0.5 };
        let loss = in_chunks(&parameters, &targets, &exits, most).unwrap();
        loss.backward().unwrap();
        let layer = [OUTPUT_WEIGHT, OUTPUT_BIAS].map(|name| parameters.gradient(name).unwrap());
        let hidden: Vec<Tensor> = exits.iter().map(|exit| exit.hidden.grad()).collect();
        let total = loss.values().unwrap().total() as f32;
        layer.iter().chain(&hidden).map(values).chain([vec![total]]).collect()
    }

    #[test]
    fn chunks_of_any_size_give_the_same_loss_and_gradients() {
        let whole = gradients(7);
        for most in [1, 2, 3] {
            for (found, whole) in gradients(most).iter().flatten().zip(whole.iter().flatten()) {
                assert!((found - whole).abs() < 1e-5, "chunks of {most}: {found}, not {whole}");
            }
        }
    }
}
