use tch::{Kind, TchError, Tensor};

use crate::dropout::Dropout;
use crate::optimizer::{AdamW, AdamWOptions};
use crate::parameters::{Parameters, Recipe};
use canet_model::{HostTensor, Weights};

/// A small network from pooled features to the worth of each route, and the optimizer that it learns by.
pub(super) struct Teacher {
    parameters: Parameters,
    optimizer: AdamW,
}

const HIDDEN: usize = 64;
const BATCH: i64 = 512;
const LEARNING_RATE: f64 = 1e-3;
const DROPOUT: f64 = 0.3;

/// The utilities are mostly noise, so the network is held short.
const OPTIMIZER: AdamWOptions = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.3, clip_norm: 1.0 };

impl Teacher {
    /// A teacher that predicts nothing yet; draws from tch's generator.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn new(features: i64, routes: usize, device: tch::Device) -> Result<Teacher, TchError> {
        let features = features as usize;
        let draws = Tensor::f_randn([(HIDDEN * features) as i64], (Kind::Float, tch::Device::Cpu))?
            .f_mul_scalar((1.0 / features as f64).sqrt())?;
        let mut weights = Weights::default();
        let mut put = |name: &str, shape: Vec<usize>, data: Vec<f32>| weights.insert(name, HostTensor { shape, data });
        put("inner.weight", vec![HIDDEN, features], Vec::try_from(&draws)?);
        put("inner.bias", vec![HIDDEN], vec![0.0; HIDDEN]);
        put("outer.weight", vec![routes, HIDDEN], vec![0.0; routes * HIDDEN]);
        put("outer.bias", vec![routes], vec![0.0; routes]);
        let parameters = Parameters::from_weights(&weights, Recipe::Paper, false, device)?;
        let optimizer = AdamW::new(OPTIMIZER, &parameters)?;
        Ok(Teacher { parameters, optimizer })
    }

    /// One pass over cases in a drawn order: features [M, F], targets [M, routes].
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn pass(&mut self, features: &Tensor, targets: &Tensor) -> Result<(), TchError> {
        let cases = features.size2()?.0;
        let order = Tensor::f_randperm(cases, (Kind::Int64, features.device()))?;
        for start in (0..cases).step_by(BATCH as usize) {
            let drawn = order.f_narrow(0, start, BATCH.min(cases - start))?;
            let found = self.forward(&features.f_index_select(0, &drawn)?, Dropout::new(DROPOUT))?;
            let loss = found.f_sub(&targets.f_index_select(0, &drawn)?)?.f_square()?.f_mean(Kind::Float)?;
            loss.f_backward()?;
            self.optimizer.step(&self.parameters, LEARNING_RATE)?;
        }
        Ok(())
    }

    /// [M, F] -> [M, routes], without a gradient.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn predict(&self, features: &Tensor) -> Result<Tensor, TchError> {
        tch::no_grad(|| self.forward(features, Dropout::new(0.0)))
    }

    fn forward(&self, features: &Tensor, dropout: Dropout) -> Result<Tensor, TchError> {
        let weight = |name: &str| self.parameters.get(name);
        let inner = features.f_linear(weight("inner.weight")?, Some(weight("inner.bias")?))?.f_relu()?;
        dropout.apply(inner)?.f_linear(weight("outer.weight")?, Some(weight("outer.bias")?))
    }
}
