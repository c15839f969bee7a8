use std::collections::BTreeMap;
use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use crate::parameters::{Parameters, TrainedSpan};

/// AdamW, which is Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).
///
/// Unlike LibTorch's AdamW, it can save its moments. Each moment is one vector of P values, like the weights, so a step
/// takes the same few operations however many weights there are.
pub(crate) struct AdamW {
    options: AdamWOptions,
    /// Running mean of the gradients: `[P]`
    first: Tensor,
    /// Running mean of the squared gradients: `[P]`
    second: Tensor,
    /// 1 for a weight that decays, else 0: `[P]`
    decaying: Tensor,
    steps: u64,
}

/// Settings of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWOptions {
    /// Decay rates of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of linear weights. Biases, norms, scalars and embedding tables do not decay.
    pub weight_decay: f64,
    /// The step scales the whole gradient down to this norm if it is longer.
    pub clip_norm: f64,
}

/// The moments of one weight, in its shape.
pub(crate) struct Moments {
    /// Running mean of the gradient.
    pub first: Tensor,
    /// Running mean of the squared gradient.
    pub second: Tensor,
}

/// The learning rates of a step.
#[derive(Clone, Copy)]
pub(crate) struct Rates<'a> {
    /// The common one.
    pub learning_rate: f64,
    /// A factor for each weight: `[P]`. `None` if all are 1.
    pub factors: Option<&'a Tensor>,
}

impl Rates<'_> {
    /// The same rate for every weight.
    pub(crate) fn even(learning_rate: f64) -> Rates<'static> {
        Rates { learning_rate, factors: None }
    }
}

impl AdamW {
    /// An optimizer without any steps yet.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn new(options: AdamWOptions, parameters: &Parameters) -> Result<AdamW, TchError> {
        let decaying = parameters.zeros()?;
        for name in parameters.decaying() {
            let _ = parameters.part(&decaying, name)?.f_fill_(1.0)?;
        }
        Ok(AdamW { options, first: parameters.zeros()?, second: parameters.zeros()?, decaying, steps: 0 })
    }

    /// An optimizer that continues from saved moments.
    ///
    /// # Errors
    /// LibTorch's, if a moment and its weight differ in shape.
    pub(crate) fn resume(
        options: AdamWOptions,
        parameters: &Parameters,
        moments: &BTreeMap<String, Moments>,
        steps: u64,
    ) -> Result<AdamW, TchError> {
        let optimizer = AdamW { steps, ..AdamW::new(options, parameters)? };
        for (name, moments) in moments {
            parameters.part(&optimizer.first, name)?.f_copy_(&moments.first)?;
            parameters.part(&optimizer.second, name)?.f_copy_(&moments.second)?;
        }
        Ok(optimizer)
    }

    /// The moments of each weight, for saving.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn moments<'a>(&self, parameters: &'a Parameters) -> Result<Vec<(&'a str, Moments)>, TchError> {
        let moments = |name| -> Result<Moments, TchError> {
            Ok(Moments { first: parameters.part(&self.first, name)?, second: parameters.part(&self.second, name)? })
        };
        parameters.iter().map(|(name, _)| Ok((name, moments(name)?))).collect()
    }

    /// Number of steps that have moved the weights.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Clips the gradients by their common norm, moves every weight that has a gradient, and sets the gradients to
    /// zero. Returns the norm before clipping. A step moves nothing if the norm is not finite.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn step(&mut self, parameters: &Parameters, rates: Rates<'_>) -> Result<f64, TchError> {
        tch::no_grad(|| {
            let trained = parameters.trained_spans()?;
            let norm = total_norm(&trained)?;
            if norm.is_finite() {
                self.steps += 1;
                let clip = (self.options.clip_norm / (norm + 1e-12)).min(1.0);
                for part in &trained {
                    if clip < 1.0 {
                        let _ = part.gradient.shallow_clone().f_mul_scalar_(clip)?;
                    }
                    self.update(part, rates)?;
                }
            }
            for part in trained {
                let _ = part.gradient.shallow_clone().f_zero_()?;
            }
            Ok(norm)
        })
    }

    fn update(&self, part: &TrainedSpan, rates: Rates<'_>) -> Result<(), TchError> {
        let Rates { learning_rate, factors } = rates;
        let AdamWOptions { betas: [beta1, beta2], eps, weight_decay, .. } = self.options;
        let TrainedSpan { span, weights, gradient } = part;
        let (mut first, mut second) = (span.of(&self.first)?, span.of(&self.second)?);
        // The operations are few and in place, because one pass over the tables takes as long as a layer.
        let _ = first.f_lerp_(gradient, 1.0 - beta1)?;
        let _ = second.f_lerp_(&gradient.f_square()?, 1.0 - beta2)?;
        let steps = self.steps as f64;
        let unbiased = |beta: f64| 1.0 - beta.powf(steps);
        // The update is -rate · (first / unbiased1) / (sqrt(second / unbiased2) + eps). The divisor contains its
        // constants.
        let scale = -unbiased(beta1) / learning_rate;
        let mut divisor = second.f_sqrt()?;
        let _ = divisor.f_mul_scalar_(scale / unbiased(beta2).sqrt())?.f_add_scalar_(scale * eps)?;
        let factors = factors.map(|factors| span.of(factors)).transpose()?;
        let mut weights = weights.shallow_clone();
        if weight_decay > 0.0 {
            let mut decay = span.of(&self.decaying)?.f_mul_scalar(-learning_rate * weight_decay)?;
            if let Some(factors) = &factors {
                let _ = decay.f_mul_(factors)?;
            }
            let _ = weights.f_mul_(&decay.f_add_scalar_(1.0)?)?;
        }
        if let Some(factors) = &factors {
            let _ = divisor.f_div_(factors)?;
        }
        let _ = weights.f_addcdiv_(&first, &divisor)?;
        Ok(())
    }
}

fn total_norm(trained: &[TrainedSpan]) -> Result<f64, TchError> {
    let squares = trained.iter().map(|part| part.gradient.f_norm()?.f_square()).collect::<Result<Vec<_>, _>>()?;
    match squares.len() {
        0 => Ok(0.0),
        _ => Tensor::f_stack(&squares, 0)?.f_sum(Kind::Float)?.f_sqrt()?.f_double_value(&[]),
    }
}

/// The learning rate over a stage: linear warm-up, then a cosine down to a tenth of the peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Schedule {
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the stage, warm-up included.
    pub total: u64,
}

impl Schedule {
    /// Learning rate of a step, which is counted from 0.
    pub(crate) fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let decaying = self.total.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / decaying).min(1.0);
        self.peak * (0.1 + 0.9 * 0.5 * (1.0 + (PI * done).cos()))
    }
}

#[cfg(test)]
mod tests {
    use canet_model::{HostTensor, Role};
    use tch::nn::OptimizerConfig;
    use tch::{Device, nn};

    use super::*;

    /// The matrix of a linear layer as the only weight, `x.weight`.
    fn one_weight(values: HostTensor) -> Parameters {
        Parameters::undeclared([("x.weight", Role::Linear, values)], Device::Cpu).unwrap()
    }

    #[test]
    fn ten_steps_move_weights_like_libtorchs_adamw() {
        let start = HostTensor { shape: vec![2, 2], data: vec![0.5, -1.0, 2.0, 0.1] };
        let ours = one_weight(start.clone());
        let options = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.1, clip_norm: 1.5 };
        let mut optimizer = AdamW::new(options, &ours).unwrap();

        let store = nn::VarStore::new(Device::Cpu);
        let mut theirs = store.root().zeros("x", &[2, 2]);
        tch::no_grad(|| theirs.copy_(&Tensor::from_slice(&start.data).reshape([2, 2])));
        let peer = nn::AdamW { beta1: 0.9, beta2: 0.98, wd: 0.1, eps: 1e-8, amsgrad: false };
        let mut peer = peer.build(&store, 0.05).unwrap();

        for step in 0..10 {
            // Some steps clip the gradient and others do not.
            let loss = |x: &Tensor| (x * x * f64::from(step % 3) + x.sin()).sum(Kind::Float);
            let moving = ours.get("x.weight").unwrap();
            loss(moving).backward();
            optimizer.step(&ours, Rates::even(0.05)).unwrap();
            peer.zero_grad();
            loss(&theirs).backward();
            peer.clip_grad_norm(1.5);
            peer.step();
            let off = (moving - &theirs).abs().max().double_value(&[]);
            assert!(off < 1e-6, "step {step}: {off}");
        }
    }

    #[test]
    fn a_factor_is_a_learning_rate_of_its_own() {
        let start = HostTensor { shape: vec![3], data: vec![0.5, -1.0, 2.0] };
        let options = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.1, clip_norm: 1e9 };
        let trained = |learning_rate: f64, factors: Option<[f32; 3]>| -> Vec<f32> {
            let parameters = one_weight(start.clone());
            let factors = factors.map(|factors| {
                let all = parameters.zeros().unwrap().f_add_scalar(1.0).unwrap();
                parameters.part(&all, "x.weight").unwrap().copy_(&Tensor::from_slice(&factors));
                all
            });
            let mut optimizer = AdamW::new(options, &parameters).unwrap();
            for _ in 0..5 {
                parameters.get("x.weight").unwrap().sin().sum(Kind::Float).backward();
                optimizer.step(&parameters, Rates { learning_rate, factors: factors.as_ref() }).unwrap();
            }
            Vec::try_from(parameters.get("x.weight").unwrap()).unwrap()
        };
        let found = trained(0.01, Some([1.0, 2.0, 3.0]));
        for (place, factor) in [1.0, 2.0, 3.0].into_iter().enumerate() {
            let expected = trained(0.01 * factor, None)[place];
            assert!((found[place] - expected).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn a_step_with_a_gradient_that_is_not_finite_moves_nothing() {
        let start = HostTensor { shape: vec![1], data: vec![0.0] };
        let parameters = one_weight(start.clone());
        let options = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.0, clip_norm: 1.0 };
        let mut optimizer = AdamW::new(options, &parameters).unwrap();
        (parameters.get("x.weight").unwrap().log() * 0.0).sum(Kind::Float).backward();
        assert!(!optimizer.step(&parameters, Rates::even(0.1)).unwrap().is_finite());
        assert_eq!((optimizer.steps(), parameters.to_weights().unwrap().get("x.weight").unwrap()), (0, &start));
    }

    #[test]
    fn the_rate_rises_to_its_peak_and_falls_to_a_tenth() {
        let schedule = Schedule { peak: 2.0, warmup: 4, total: 14 };
        let close = |step: u64, rate: f64| assert!((schedule.rate(step) - rate).abs() < 1e-12, "step {step}");
        close(0, 0.5);
        close(3, 2.0);
        close(9, 1.1);
        close(14, 0.2);
        close(99, 0.2);
    }
}
