use tch::{Kind, TchError, Tensor};

use super::error::TorchError;
use super::tensors::from_host;
use canet_model::{Precision, Weights};

/// Copies named host weights to a device.
pub(crate) struct Loader<'a> {
    weights: &'a Weights,
    device: tch::Device,
    /// The kind of linear layers. Everything else is float32.
    kind: Kind,
    /// The epsilon of layer norms.
    eps: f64,
}

/// The kind of linear layers.
pub(crate) fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}

impl<'a> Loader<'a> {
    pub(crate) fn new(weights: &'a Weights, device: tch::Device, kind: Kind, eps: f64) -> Loader<'a> {
        Loader { weights, device, kind, eps }
    }

    /// A stored weight, in its own shape.
    pub(crate) fn tensor(&self, name: &str) -> Result<Tensor, TorchError> {
        Ok(from_host(self.weights.get(name)?)?.f_to_device(self.device)?)
    }

    /// A stored linear layer.
    pub(crate) fn linear(&self, name: &str) -> Result<Linear, TorchError> {
        let part =
            |part| -> Result<Tensor, TorchError> { Ok(self.tensor(&format!("{name}.{part}"))?.f_to_kind(self.kind)?) };
        Ok(Linear { weight: part("weight")?, bias: part("bias")? })
    }

    /// A stored layer norm.
    pub(crate) fn norm(&self, name: &str) -> Result<LayerNorm, TorchError> {
        let part = |part| self.tensor(&format!("{name}.{part}"));
        Ok(LayerNorm { weight: part("weight")?, bias: part("bias")?, eps: self.eps })
    }

    /// Row numbers on the device.
    pub(crate) fn rows(&self, rows: &[i64]) -> Result<Tensor, TorchError> {
        Ok(Tensor::f_from_slice(rows)?.f_to_device(self.device)?)
    }
}

/// `y = x Wᵀ + b`, whole or a view of a wider layer.
pub(crate) struct Linear {
    /// [out, in]
    pub(crate) weight: Tensor,
    /// [out]
    pub(crate) bias: Tensor,
}

impl Linear {
    /// The first `out` outputs over the first `input` inputs, as a view.
    pub(crate) fn slice(&self, out: usize, input: usize) -> Result<Linear, TchError> {
        let weight = self.weight.f_narrow(0, 0, out as i64)?.f_narrow(1, 0, input as i64)?; // [out, input]
        Ok(Linear { weight, bias: self.bias.f_narrow(0, 0, out as i64)? })
    }

    /// The outputs from `start` on.
    pub(crate) fn outputs(&self, start: usize, count: usize) -> Result<Linear, TchError> {
        let [start, count] = [start as i64, count as i64];
        Ok(Linear { weight: self.weight.f_narrow(0, start, count)?, bias: self.bias.f_narrow(0, start, count)? })
    }

    /// [T, in] -> [T, out], input and output rounded to the weights' kind.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_to_kind(self.weight.f_kind()?)?.f_linear(&self.weight, Some(&self.bias))
    }

    /// The same, converted to float32: [T, in] -> [T, out]
    pub(crate) fn forward_to_float(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.forward(x)?.f_to_kind(Kind::Float)
    }

    pub(crate) fn tensors(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }
}

/// Layer norm over the last axis, whole or a prefix of a wider norm.
pub(crate) struct LayerNorm {
    /// [h]
    weight: Tensor,
    /// [h]
    bias: Tensor,
    /// Added to the variance.
    eps: f64,
}

impl LayerNorm {
    /// The norm over the first `width` features.
    pub(crate) fn slice(&self, width: usize) -> Result<LayerNorm, TchError> {
        let prefix = |tensor: &Tensor| tensor.f_narrow(0, 0, width as i64);
        Ok(LayerNorm { weight: prefix(&self.weight)?, bias: prefix(&self.bias)?, eps: self.eps })
    }

    /// [T, h] -> [T, h]
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)
    }

    /// Normalises the first features of each row, as many as `widths` says, [T, 1]. `beyond`, [T, h], is true at all
    /// other features, which become zero: [T, h] -> [T, h]
    pub(crate) fn forward_prefixes(&self, x: &Tensor, widths: &Tensor, beyond: &Tensor) -> Result<Tensor, TchError> {
        let mean_of = |x: &Tensor| x.f_sum_dim_intlist(1, true, Kind::Float)?.f_div(widths); // [T, h] -> [T, 1]
        let mean = mean_of(&x.f_masked_fill(beyond, 0.0)?)?; // [T, 1]
        let centred = x.f_sub(&mean)?.f_masked_fill(beyond, 0.0)?; // [T, h]
        let variance = mean_of(&centred.f_square()?)?; // [T, 1]
        let scaled = centred.f_mul(&variance.f_add_scalar(self.eps)?.f_rsqrt()?)?; // [T, h]
        self.bias.f_addcmul(&scaled, &self.weight)?.f_masked_fill(beyond, 0.0) // [T, h]
    }

    pub(crate) fn tensors(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }
}
