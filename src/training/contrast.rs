use tch::{Kind, TchError, Tensor};

use super::batch::{Batch, gather, prefix};
use super::parameters::Parameters;

/// The softmax over the next item that a step learns by: the true item against a draw of others, the same ones for
/// every place of the batch and for every slice.
///
/// Drawn uniformly, K of N; log(N / K) is added to their scores, so that their sum estimates the sum over the whole
/// catalogue (Bengio & Senécal 2008). A true item that was drawn as well counts once.
pub(super) struct Contrast {
    /// Output rows of the true items, and their biases: [T, D], [T]
    own: [Tensor; 2],
    /// Output rows of the drawn items, and their biases, corrected: [K, D], [K]
    others: [Tensor; 2],
    /// Where a drawn item is the true one: [T, K], bool
    same: Tensor,
}

/// Scores of one slice under a [`Contrast`].
pub(super) struct Contrasted {
    /// Of the true items: [T]
    own: Tensor,
    /// Of the drawn items: [T, K]
    others: Tensor,
    /// Logarithm of the sum of both's exponentials: [T]
    normaliser: Tensor,
}

/// Probabilities that a slice should come to.
pub(super) struct SoftTargets {
    /// Of the true items: [T]
    own: Tensor,
    /// Of the drawn items: [T, K]
    others: Tensor,
}

/// What stands for the score of an item that does not take part: finite, so that zero times it is zero.
const ABSENT: f64 = -1e9;

impl Contrast {
    /// Draws `negatives` items by tch's generator, or takes the whole catalogue where that is no larger.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(super) fn draw(
        parameters: &Parameters,
        batch: &Batch,
        items: usize,
        negatives: usize,
    ) -> Result<Contrast, TchError> {
        let device = batch.targets.device();
        let options = (Kind::Int64, device);
        let (drawn, correction) = if negatives < items {
            let drawn = Tensor::f_randint_low(1, items as i64 + 1, [negatives as i64], options)?;
            (drawn, (items as f64 / negatives as f64).ln())
        } else {
            (Tensor::f_arange_start(1, items as i64 + 1, options)?, 0.0)
        };
        let (weight, bias) = (parameters.get("backbone.output.weight")?, parameters.get("backbone.output.bias")?);
        let rows = |of: &Tensor| -> Result<[Tensor; 2], TchError> {
            Ok([gather(weight, of)?, gather(&bias.f_unsqueeze(1)?, of)?.f_squeeze_dim(1)?])
        };
        let [others, other_bias] = rows(&drawn)?;
        Ok(Contrast {
            own: rows(&batch.targets)?,
            others: [others, other_bias.f_add_scalar(correction)?],
            same: batch.targets.f_unsqueeze(1)?.f_eq_tensor(&drawn.f_unsqueeze(0)?)?,
        })
    }

    /// Scores by hidden states, [T, h].
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(super) fn scores(&self, hidden: &Tensor) -> Result<Contrasted, TchError> {
        let width = hidden.size2()?.1 as usize;
        let [own, own_bias] = &self.own;
        let own = hidden.f_mul(&prefix(own, 1, width)?)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?;
        let own = own.f_add(own_bias)?; // [T]
        let [others, other_bias] = &self.others;
        let mut others = hidden.f_linear(&prefix(others, 1, width)?, Some(other_bias))?; // [T, K]
        let _ = others.f_masked_fill_(&self.same, ABSENT)?;
        let normaliser = others.f_logsumexp([1_i64].as_slice(), false)?.f_logaddexp(&own)?; // [T]
        Ok(Contrasted { own, others, normaliser })
    }
}

impl Contrasted {
    /// Mean cross-entropy of the true items.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn cross_entropy(&self) -> Result<Tensor, TchError> {
        self.normaliser.f_sub(&self.own)?.f_mean(Kind::Float)
    }

    /// Mean cross-entropy of probabilities that are `soft` by the share `distillation` and else certain of the true
    /// items.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn distilled(&self, soft: &SoftTargets, distillation: f64) -> Result<Tensor, TchError> {
        let own = soft.own.f_mul_scalar(distillation)?.f_add_scalar(1.0 - distillation)?.f_mul(&self.own)?;
        let others = soft.others.f_mul(&self.others)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?;
        // The probabilities sum to one, so the normaliser counts once.
        self.normaliser.f_sub(&own)?.f_sub(&others.f_mul_scalar(distillation)?)?.f_mean(Kind::Float)
    }

    /// Its own probabilities, without a gradient.
    ///
    /// # Errors
    /// LibTorch's.
    pub(super) fn probabilities(&self) -> Result<SoftTargets, TchError> {
        let normaliser = self.normaliser.f_detach()?;
        Ok(SoftTargets {
            own: self.own.f_detach()?.f_sub(&normaliser)?.f_exp()?,
            others: self.others.f_detach()?.f_sub(&normaliser.f_unsqueeze(1)?)?.f_exp()?,
        })
    }
}
