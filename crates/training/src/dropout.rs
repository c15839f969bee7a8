use tch::{Kind, TchError, Tensor};

/// Dropout that draws one byte a value on a CPU.
///
/// LibTorch's dropout draws one float a value from the Mersenne Twister. On a CPU that takes several times as long as
/// the matrix product beside it. Here, one 64-bit draw decides about eight values, so the share is a multiple of 1/256.
/// On a GPU, LibTorch's dropout is a single fast kernel and is used as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    /// How many of the 256 values of a byte drop an activation.
    dropping: i64,
}

impl Dropout {
    /// Dropout of a share of the values, from 0 to below 1, rounded to 1/256.
    pub(crate) fn new(share: f64) -> Dropout {
        Dropout { dropping: ((share * 256.0).round() as i64).clamp(0, 255) }
    }

    /// Sets a random share of the values to zero and scales the others so that the expected value stays. Keeps the
    /// shape.
    ///
    /// # Errors
    /// LibTorch's, if memory runs out.
    pub(crate) fn apply(self, x: Tensor) -> Result<Tensor, TchError> {
        if self.dropping == 0 {
            return Ok(x);
        }
        if x.device().is_cuda() {
            return x.f_dropout(self.dropping as f64 / 256.0, true);
        }
        let values = x.numel() as i64;
        let draws =
            Tensor::f_empty([values.div_euclid(8) + 1], (Kind::Int64, x.device()))?.f_random_from_(i64::MIN, None)?;
        let bytes = draws.f_view_dtype(Kind::Uint8)?.f_narrow(0, 0, values)?;
        let kept =
            bytes.f_ge(self.dropping)?.f_to_kind(Kind::Float)?.f_mul_scalar_(256.0 / (256 - self.dropping) as f64)?;
        x.f_mul(&kept.f_view_as(&x)?)
    }
}

/// Shares of activations that a forward pass drops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutShares {
    /// Of the embeddings.
    pub embedding: f64,
    /// Of the attention weights and of each sublayer's output.
    pub blocks: f64,
}

impl DropoutShares {
    /// Drops nothing: the pass computes the function that serving computes.
    pub const NONE: DropoutShares = DropoutShares::even(0.0);

    /// Drops the same share everywhere.
    pub const fn even(share: f64) -> DropoutShares {
        DropoutShares { embedding: share, blocks: share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch_seed::seed_torch;

    #[test]
    fn dropout_zeroes_its_share_keeps_the_mean_and_draws_independently() {
        let _generator = seed_torch(3);
        let x = Tensor::ones([1000, 1001], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let dropped = Dropout::new(0.25).apply(x.shallow_clone()).unwrap();
        let zeros = dropped.eq(0.0).to_kind(Kind::Float);
        let share = zeros.mean(Kind::Float).double_value(&[]);
        // The standard errors over a million draws are 0.0004 for the share and 0.0006 for the mean.
        assert!((share - 0.25).abs() < 0.003, "{share}");
        assert!((dropped.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.004);
        let flat = zeros.flatten(0, 1);
        let values = flat.size()[0];
        for distance in [1, 3, 7, 8, 64] {
            let both = flat.narrow(0, 0, values - distance) * flat.narrow(0, distance, values - distance);
            let both = both.mean(Kind::Float).double_value(&[]);
            assert!((both - 0.0625).abs() < 0.002, "{distance}: {both}");
        }
        // The gradient passes through the kept values, with the same scale.
        dropped.sum(Kind::Float).backward();
        assert_eq!(x.grad(), dropped.detach());
    }

    #[test]
    fn a_share_of_zero_changes_nothing() {
        let x = Tensor::from_slice(&[1.0_f32, 2.0]);
        assert_eq!(Dropout::new(0.0).apply(x.shallow_clone()).unwrap(), x);
    }
}
