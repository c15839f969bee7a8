use canet_model::{HostTensor, Role};
use tch::{Kind, TchError, Tensor};

use crate::dropout::Dropout;
use crate::optimizer::{AdamW, AdamWOptions, Rates};
use crate::parameters::Parameters;

/// A network with one hidden layer that predicts the utility of each route from a history's features.
///
/// Shapes: M histories, F features.
pub(super) struct UtilityPredictor {
    parameters: Parameters,
    optimizer: AdamW,
}

pub(super) const HIDDEN: usize = 64;
const BATCH: i64 = 512;
const LEARNING_RATE: f64 = 1e-3;
const DROPOUT: f64 = 0.3;

/// The weight decay is high, because utilities are mostly noise.
const OPTIMIZER: AdamWOptions = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.3, clip_norm: 1.0 };

impl UtilityPredictor {
    /// A predictor that predicts zero. Draws from tch's generator.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn new(features: i64, routes: usize, device: tch::Device) -> Result<UtilityPredictor, TchError> {
        let features = features as usize;
        let random = Tensor::f_randn([(HIDDEN * features) as i64], (Kind::Float, tch::Device::Cpu))?
            .f_mul_scalar((1.0 / features as f64).sqrt())?;
        let zeros = |shape: Vec<usize>| HostTensor { data: vec![0.0; shape.iter().product()], shape };
        let weights = [
            ("inner.weight", Role::Linear, HostTensor { shape: vec![HIDDEN, features], data: Vec::try_from(&random)? }),
            ("inner.bias", Role::Bias, zeros(vec![HIDDEN])),
            ("outer.weight", Role::Linear, zeros(vec![routes, HIDDEN])),
            ("outer.bias", Role::Bias, zeros(vec![routes])),
        ];
        let parameters = Parameters::undeclared(weights, device)?;
        let optimizer = AdamW::new(OPTIMIZER, &parameters)?;
        Ok(UtilityPredictor { parameters, optimizer })
    }

    /// Trains for one pass over all histories in random order: features `[M, F]`, targets `[M, routes]`.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn train_pass(&mut self, features: &Tensor, targets: &Tensor) -> Result<(), TchError> {
        let cases = features.size2()?.0;
        let order = Tensor::f_randperm(cases, (Kind::Int64, features.device()))?; // [M]
        for start in (0..cases).step_by(BATCH as usize) {
            let drawn = order.f_narrow(0, start, BATCH.min(cases - start))?; // [BATCH]
            let found = self.forward(&features.f_index_select(0, &drawn)?, Dropout::new(DROPOUT))?; // [BATCH, routes]
            let loss = found.f_sub(&targets.f_index_select(0, &drawn)?)?.f_square()?.f_mean(Kind::Float)?;
            loss.f_backward()?;
            self.optimizer.step(&self.parameters, Rates::even(LEARNING_RATE))?;
        }
        Ok(())
    }

    /// Predicts without dropout and without a gradient: `[M, F] -> [M, routes]`
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn predict(&self, features: &Tensor) -> Result<Tensor, TchError> {
        tch::no_grad(|| self.forward(features, Dropout::new(0.0)))
    }

    /// `[M, F] -> [M, routes]`
    fn forward(&self, features: &Tensor, dropout: Dropout) -> Result<Tensor, TchError> {
        let weight = |name: &str| self.parameters.get(name);
        let inner = features.f_linear(weight("inner.weight")?, Some(weight("inner.bias")?))?.f_relu()?; // [M, HIDDEN]
        dropout.apply(inner)?.f_linear(weight("outer.weight")?, Some(weight("outer.bias")?))
    }
}
