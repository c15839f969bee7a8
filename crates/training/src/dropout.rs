use tch::{Kind, TchError, Tensor};

/// Dropout whose draws cost a byte a value.
///
/// On a CPU LibTorch's own draws a float from the Mersenne Twister for each value, which takes several times as long as
/// the matrix product beside it. Eight bytes of one draw decide for eight values here; so the share is a multiple of
/// 1/256. A GPU draws fast enough, and LibTorch's dropout is one kernel there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    /// Values of a byte that drop, of 256.
    dropping: i64,
}

impl Dropout {
    /// Drops a share of the values, from 0 to below 1.
    pub(crate) fn new(share: f64) -> Dropout {
        Dropout { dropping: ((share * 256.0).round() as i64).clamp(0, 255) }
    }

    /// Zeroes values by lot and scales the others so that the mean stays.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
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

/// Shares of activations that a pass drops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutShares {
    /// Of what is read of the item table.
    pub embedding: f64,
    /// Of attention weights and of what each sublayer gives.
    pub blocks: f64,
}

impl DropoutShares {
    /// Nothing is dropped: the pass computes what serving does.
    pub const NONE: DropoutShares = DropoutShares::even(0.0);

    /// The same share everywhere.
    pub const fn even(share: f64) -> DropoutShares {
        DropoutShares { embedding: share, blocks: share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_zero_the_mean_stays_and_neighbours_are_independent() {
        tch::manual_seed(3);
        let x = Tensor::ones([1000, 1001], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let dropped = Dropout::new(0.25).apply(x.shallow_clone()).unwrap();
        let zeros = dropped.eq(0.0).to_kind(Kind::Float);
        let share = zeros.mean(Kind::Float).double_value(&[]);
        // Standard errors over a million draws: 0.0004 and 0.0006.
        assert!((share - 0.25).abs() < 0.003, "{share}");
        assert!((dropped.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.004);
        let flat = zeros.flatten(0, 1);
        let values = flat.size()[0];
        for distance in [1, 3, 7, 8, 64] {
            let both = flat.narrow(0, 0, values - distance) * flat.narrow(0, distance, values - distance);
            let both = both.mean(Kind::Float).double_value(&[]);
            assert!((both - 0.0625).abs() < 0.002, "{distance}: {both}");
        }
        // The gradient passes where the value did, equally scaled.
        dropped.sum(Kind::Float).backward();
        assert_eq!(x.grad(), dropped.detach());
    }

    #[test]
    fn nothing_is_drawn_where_nothing_drops() {
        let x = Tensor::from_slice(&[1.0_f32, 2.0]);
        assert_eq!(Dropout::new(0.0).apply(x.shallow_clone()).unwrap(), x);
    }
}
