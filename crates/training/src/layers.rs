use tch::{Kind, TchError, Tensor};

use crate::dropout::{Dropout, DropoutShares};
use crate::parameters::Parameters;
use crate::tensors::prefix;

/// The layers of a forward pass, each at a slice's own sizes.
pub(crate) struct Layers<'a> {
    pub parameters: &'a Parameters,
    pub dropout: DropoutShares,
    /// Added to the variance in every layer norm.
    pub norm_eps: f64,
}

/// The features of each row that a masked layer norm covers.
pub(crate) struct NormMask<'a> {
    /// 1 for a feature that takes part, else 0: `[T, width]`
    pub features: &'a Tensor,
    /// 1 / number of features that take part: `[T, 1]`
    pub per_feature: &'a Tensor,
}

impl Layers<'_> {
    /// The first `out` outputs of a stored linear layer over its first `input` inputs: `[T, input] -> [T, out]`
    pub(crate) fn linear(&self, name: &str, x: &Tensor, out: usize, input: usize) -> Result<Tensor, TchError> {
        let weight = self.parameters.get(&format!("{name}.weight"))?;
        let weight = prefix(&prefix(weight, 0, out)?, 1, input)?; // [out, input]
        let bias = prefix(self.parameters.get(&format!("{name}.bias"))?, 0, out)?; // [out]
        x.f_linear(&weight, Some(&bias))
    }

    /// Layer norm over the first `width` features, or over the features of the mask: `[T, width] -> [T, width]`
    pub(crate) fn norm(
        &self,
        name: &str,
        x: &Tensor,
        width: usize,
        mask: Option<NormMask<'_>>,
    ) -> Result<Tensor, TchError> {
        let part = |part: &str| prefix(self.parameters.get(&format!("{name}.{part}"))?, 0, width);
        let (weight, bias) = (part("weight")?, part("bias")?); // [width] each
        let Some(NormMask { features, per_feature }) = mask else {
            return x.f_layer_norm([width as i64], Some(&weight), Some(&bias), self.norm_eps, true);
        };
        let last = [-1_i64].as_slice();
        let x = x.f_mul(features)?;
        let mean = x.f_sum_dim_intlist(last, true, Kind::Float)?.f_mul(per_feature)?; // [T, 1]
        let centred = x.f_sub(&mean)?.f_mul(features)?; // [T, width]
        let variance = centred.f_square()?.f_sum_dim_intlist(last, true, Kind::Float)?.f_mul(per_feature)?; // [T, 1]
        let scale = variance.f_add_scalar(self.norm_eps)?.f_rsqrt()?; // [T, 1]
        centred.f_mul(&scale)?.f_mul(&weight)?.f_add(&bias)?.f_mul(features)
    }

    /// Dropout of embeddings.
    pub(crate) fn drop_embedding(&self, x: Tensor) -> Result<Tensor, TchError> {
        Dropout::new(self.dropout.embedding).apply(x)
    }

    /// Dropout within blocks.
    pub(crate) fn drop(&self, x: Tensor) -> Result<Tensor, TchError> {
        Dropout::new(self.dropout.blocks).apply(x)
    }
}

/// The product with a mask, if there is one.
pub(crate) fn apply_mask(x: Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
    match mask {
        Some(mask) => x.f_mul(mask),
        None => Ok(x),
    }
}
