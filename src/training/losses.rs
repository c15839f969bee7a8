use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use super::batch::Batch;
use super::cut::MaskTables;
use crate::domain::{ModelShape, RouteSpace};

/// Which form of the paper's guide and balance terms to train with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Losses {
    /// The terms as the paper means them: probabilities in the guide, balance over the batch mean, and a term that
    /// knows what a route costs.
    Paper,
    /// As the authors' code has them, for comparison: the guide sums raw logits, the balance acts on each user
    /// alone, and nothing knows a cost.
    PaperCode,
}

/// Weights of the terms beside the cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossWeights {
    /// Of the guide (0.01 in the authors' code).
    pub guide: f64,
    /// Of the balance (0.01 in the authors' code).
    pub balance: f64,
    /// Of the expected-FLOPs term.
    pub flops: f64,
}

/// Straight-through Gumbel-softmax: one-hot in value, soft in gradient. [B, routes] -> [B, routes]
///
/// The value is exactly 0 or 1: the soft part enters as its difference from itself.
///
/// # Errors
/// LibTorch's.
pub(super) fn sample_routes(logits: &Tensor, temperature: f64) -> Result<Tensor, TchError> {
    // -log of a standard exponential is a standard Gumbel; the clamp keeps both logarithms finite.
    let exponential = logits.f_rand_like()?.f_clamp(1e-9, 1.0 - 1e-7)?.f_log()?.f_neg()?;
    let perturbed = logits.f_sub(&exponential.f_log()?)?.f_div_scalar(temperature)?;
    let soft = perturbed.f_softmax(-1, Kind::Float)?;
    let routes = logits.size().last().copied().unwrap_or_default();
    let hard = soft.f_detach()?.f_argmax(-1, false)?.f_one_hot(routes)?.f_to_kind(Kind::Float)?;
    hard.f_add(&soft.f_sub(&soft.f_detach()?)?)
}

/// Mean cross-entropy of the next item over all real positions: scores [T, N + 1], targets [T].
///
/// # Errors
/// LibTorch's.
pub(super) fn next_item(scores: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    scores.f_cross_entropy_loss(targets, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)
}

/// Which rows the smallest route already serves: the true next item is among its `k` best, the row's own items
/// masked. scores [B, N + 1] -> [B], 0 or 1.
///
/// A true item that is also in the history stays masked and so counts as missed.
///
/// # Errors
/// LibTorch's.
pub(super) fn served_by(scores: &Tensor, batch: &Batch, k: i64) -> Result<Tensor, TchError> {
    let masked = scores.f_detach()?.f_scatter_value(1, &batch.items, f64::NEG_INFINITY)?; // [B, N + 1]
    let targets = batch.last_targets.f_unsqueeze(1)?; // [B, 1]
    let target = masked.f_gather(1, &targets, false)?; // [B, 1]
    let above = masked.f_gt_tensor(&target)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64)?; // [B]
    let finite = target.f_isfinite()?.f_squeeze_dim(1)?;
    above.f_lt(k)?.f_logical_and(&finite)?.f_to_kind(Kind::Float)
}

/// Soft targets over the sizes of one axis, leaning to the small end where `easy` is 1 and to the large end where it
/// is 0: weights 2^(sharpness·i), normalised (the authors' `gen_softlabel`; sharpness 2 for widths, 1 for depth).
fn leaning(easy: &Tensor, sizes: i64, sharpness: f64) -> Result<Tensor, TchError> {
    let ladder = Tensor::f_arange(sizes, (Kind::Float, easy.device()))?;
    let large = ladder.f_mul_scalar(sharpness * std::f64::consts::LN_2)?.f_softmax(0, Kind::Float)?; // [sizes]
    let small = large.f_flip([0])?;
    let easy = easy.f_unsqueeze(1)?; // [B, 1]
    easy.f_mul(&small.f_sub(&large)?)?.f_add(&large) // [B, sizes]
}

/// The guide: users whom the smallest route serves lean to small sizes, the others to large ones.
///
/// # Errors
/// LibTorch's.
pub(super) fn guide(losses: Losses, logits: &Tensor, easy: &Tensor, tables: &MaskTables) -> Result<Tensor, TchError> {
    let axes = match losses {
        Losses::Paper => tables.marginals(&logits.f_softmax(-1, Kind::Float)?)?,
        Losses::PaperCode => tables.marginals(logits)?,
    };
    let mut total = Tensor::f_zeros([], (Kind::Float, logits.device()))?;
    for (axis, sharpness) in axes.iter().zip([2.0, 1.0, 2.0]) {
        let sizes = axis.size().last().copied().unwrap_or_default();
        let log_probabilities = match losses {
            Losses::Paper => axis.f_clamp_min(1e-12)?.f_log()?,
            Losses::PaperCode => axis.f_log_softmax(-1, Kind::Float)?,
        };
        total = total.f_add(&soft_cross_entropy(&log_probabilities, &leaning(easy, sizes, sharpness)?)?)?;
    }
    Ok(total)
}

/// The balance: cross-entropy of the uniform distribution over routes, against the batch mean of the router's
/// probabilities, so that the routes are used evenly over users while each user may be certain.
///
/// # Errors
/// LibTorch's.
pub(super) fn balance(losses: Losses, logits: &Tensor) -> Result<Tensor, TchError> {
    let log_probabilities = match losses {
        Losses::Paper => {
            let mean = logits.f_softmax(-1, Kind::Float)?.f_mean_dim([0_i64].as_slice(), true, Kind::Float)?;
            mean.f_clamp_min(1e-12)?.f_log()? // [1, routes]
        }
        Losses::PaperCode => logits.f_log_softmax(-1, Kind::Float)?, // [B, routes]
    };
    log_probabilities.f_mean(Kind::Float)?.f_neg()
}

/// The expected share of the full model's FLOPs that the router spends on a batch, with a gradient.
///
/// # Errors
/// LibTorch's.
pub(super) fn expected_share(
    logits: &Tensor,
    batch: &Batch,
    shape: &ModelShape,
    space: &RouteSpace,
) -> Result<Tensor, TchError> {
    let costs: Vec<f32> = batch
        .lengths
        .iter()
        .flat_map(|length| space.routes().map(|route| shape.route_flops(space, route, *length) as f32))
        .collect();
    let full: f64 = batch.lengths.iter().map(|length| shape.full_flops(space, *length) as f64).sum();
    let costs = Tensor::f_from_slice(&costs)?.f_reshape([batch.rows(), -1])?.f_to_device(logits.device())?;
    logits.f_softmax(-1, Kind::Float)?.f_mul(&costs)?.f_sum(Kind::Float)?.f_div_scalar(full)
}

/// How far a share is from the budget, relative to it, squared: spending less is as far off as spending more.
///
/// # Errors
/// LibTorch's.
pub(super) fn over_budget(share: &Tensor, budget: f64) -> Result<Tensor, TchError> {
    share.f_div_scalar(budget)?.f_sub_scalar(1.0)?.f_square()
}

fn soft_cross_entropy(log_probabilities: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    let rows = log_probabilities.f_mul(targets)?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?; // [B]
    rows.f_mean(Kind::Float)?.f_neg()
}
