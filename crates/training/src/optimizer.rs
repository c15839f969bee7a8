use std::collections::BTreeMap;
use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use super::parameters::{Parameters, Stretch};

/// AdamW (Loshchilov & Hutter 2019) with decoupled decay, whose moments can be saved: LibTorch's own cannot. Its moments
/// lie as the weights do, in one vector each, so that a step is a few operations, however many weights there are.
pub(crate) struct AdamW {
    options: AdamWOptions,
    /// Running mean of the gradients: [P]
    first: Tensor,
    /// Of their squares: [P]
    second: Tensor,
    /// 1 where a weight decays, else 0: [P]
    decaying: Tensor,
    steps: u64,
}

/// Settings of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWOptions {
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; biases, norms, scalars and embedding tables are spared.
    pub weight_decay: f64,
    /// Greatest norm of the whole gradient.
    pub clip_norm: f64,
}

/// Running means of a weight's gradient and of its square, in its shape.
pub(crate) struct Moments {
    /// Of the gradient.
    pub first: Tensor,
    /// Of its square.
    pub second: Tensor,
}

impl AdamW {
    /// An optimizer that has not stepped yet.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn new(options: AdamWOptions, parameters: &Parameters) -> Result<AdamW, TchError> {
        let decaying = parameters.zeros()?;
        for (name, _) in parameters.leaves().filter(|(name, _)| decays(name)) {
            let _ = parameters.part(&decaying, name)?.f_fill_(1.0)?;
        }
        Ok(AdamW { options, first: parameters.zeros()?, second: parameters.zeros()?, decaying, steps: 0 })
    }

    /// The same optimizer with saved moments of every weight.
    ///
    /// # Errors
    /// LibTorch's, where a moment has another shape than its weight.
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

    /// Moments by weight, to be saved.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn moments<'a>(&self, parameters: &'a Parameters) -> Result<Vec<(&'a str, Moments)>, TchError> {
        let moments = |name| -> Result<Moments, TchError> {
            Ok(Moments { first: parameters.part(&self.first, name)?, second: parameters.part(&self.second, name)? })
        };
        parameters.iter().map(|(name, _)| Ok((name, moments(name)?))).collect()
    }

    /// Steps made.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Clips the gradients by their common norm, moves every weight that has one, and clears them.
    /// Returns the norm before clipping; a step whose norm is not finite moves nothing.
    ///
    /// # Errors
    /// LibTorch's.
    pub(crate) fn step(&mut self, parameters: &Parameters, learning_rate: f64) -> Result<f64, TchError> {
        tch::no_grad(|| {
            let stretches = parameters.stretches()?;
            let norm = total_norm(&stretches)?;
            if norm.is_finite() {
                self.steps += 1;
                let clip = (self.options.clip_norm / (norm + 1e-12)).min(1.0);
                for stretch in &stretches {
                    if clip < 1.0 {
                        let _ = stretch.gradient.shallow_clone().f_mul_scalar_(clip)?;
                    }
                    self.update(stretch, learning_rate)?;
                }
            }
            for stretch in stretches {
                let _ = stretch.gradient.shallow_clone().f_zero_()?;
            }
            Ok(norm)
        })
    }

    fn update(&self, stretch: &Stretch, learning_rate: f64) -> Result<(), TchError> {
        let AdamWOptions { betas: [beta1, beta2], eps, weight_decay, .. } = self.options;
        let Stretch { first: place, weights, gradient } = stretch;
        let own = |vector: &Tensor| vector.f_narrow(0, *place, weights.numel() as i64);
        let (mut first, mut second) = (own(&self.first)?, own(&self.second)?);
        // In place and in few passes: over the tables, each one costs as much as a layer.
        let _ = first.f_lerp_(gradient, 1.0 - beta1)?;
        let _ = second.f_lerp_(&gradient.f_square()?, 1.0 - beta2)?;
        let steps = self.steps as f64;
        let unbiased = |beta: f64| 1.0 - beta.powf(steps);
        // -rate · (first / unbiased) / (sqrt(second / unbiased) + eps), its constants drawn into the divisor.
        let scale = -unbiased(beta1) / learning_rate;
        let mut divisor = second.f_sqrt()?;
        let _ = divisor.f_mul_scalar_(scale / unbiased(beta2).sqrt())?.f_add_scalar_(scale * eps)?;
        let mut weights = weights.shallow_clone();
        if weight_decay > 0.0 {
            let kept = own(&self.decaying)?.f_mul_scalar(-learning_rate * weight_decay)?.f_add_scalar_(1.0)?;
            let _ = weights.f_mul_(&kept)?;
        }
        let _ = weights.f_addcdiv_(&first, &divisor)?;
        Ok(())
    }
}

/// Weights of linear layers decay; tables, norms, biases and scalars do not.
fn decays(name: &str) -> bool {
    name.ends_with(".weight") && !name.ends_with("_norm.weight")
}

fn total_norm(stretches: &[Stretch]) -> Result<f64, TchError> {
    let squares =
        stretches.iter().map(|stretch| stretch.gradient.f_norm()?.f_square()).collect::<Result<Vec<_>, _>>()?;
    match squares.len() {
        0 => Ok(0.0),
        _ => Tensor::f_stack(&squares, 0)?.f_sum(Kind::Float)?.f_sqrt()?.f_double_value(&[]),
    }
}

/// The learning rate over a run: linear warm-up, then a cosine down to a tenth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Schedule {
    /// Rate at the end of the warm-up.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub total: u64,
}

impl Schedule {
    /// The rate of a step, counted from 0.
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
    use tch::nn::OptimizerConfig;
    use tch::{Device, nn};

    use super::*;
    use crate::parameters::Recipe;
    use canet_model::{HostTensor, Weights};

    /// LibTorch's own AdamW is the peer: same start, same gradients, same weights after each of ten steps.
    #[test]
    fn ten_steps_move_as_libtorchs_adamw() {
        let start = HostTensor { shape: vec![2, 2], data: vec![0.5, -1.0, 2.0, 0.1] };
        let mut weights = Weights::default();
        weights.insert("x.weight", start.clone());
        let ours = Parameters::from_weights(&weights, Recipe::Paper, false, Device::Cpu).unwrap();
        let options = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.1, clip_norm: 1.5 };
        let mut optimizer = AdamW::new(options, &ours).unwrap();

        let store = nn::VarStore::new(Device::Cpu);
        let mut theirs = store.root().zeros("x", &[2, 2]);
        tch::no_grad(|| theirs.copy_(&Tensor::from_slice(&start.data).reshape([2, 2])));
        let peer = nn::AdamW { beta1: 0.9, beta2: 0.98, wd: 0.1, eps: 1e-8, amsgrad: false };
        let mut peer = peer.build(&store, 0.05).unwrap();

        for step in 0..10 {
            // The gradient's norm passes the clipping bound in some steps and not in others.
            let loss = |x: &Tensor| (x * x * f64::from(step % 3) + x.sin()).sum(Kind::Float);
            let moving = ours.get("x.weight").unwrap();
            loss(moving).backward();
            optimizer.step(&ours, 0.05).unwrap();
            peer.zero_grad();
            loss(&theirs).backward();
            peer.clip_grad_norm(1.5);
            peer.step();
            let off = (moving - &theirs).abs().max().double_value(&[]);
            assert!(off < 1e-6, "step {step}: {off}");
        }
    }

    #[test]
    fn a_step_without_a_finite_gradient_moves_nothing() {
        let mut weights = Weights::default();
        weights.insert("x.weight", HostTensor { shape: vec![1], data: vec![0.0] });
        let parameters = Parameters::from_weights(&weights, Recipe::Paper, false, Device::Cpu).unwrap();
        let options = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.0, clip_norm: 1.0 };
        let mut optimizer = AdamW::new(options, &parameters).unwrap();
        (parameters.get("x.weight").unwrap().log() * 0.0).sum(Kind::Float).backward();
        assert!(!optimizer.step(&parameters, 0.1).unwrap().is_finite());
        assert_eq!((optimizer.steps(), parameters.to_weights().unwrap()), (0, weights));
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
