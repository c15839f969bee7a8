use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use super::batch::Batch;
use super::cut::MaskTables;
use canet_domain::{ModelShape, RouteSpace};

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
pub(crate) fn sample_routes(logits: &Tensor, temperature: f64) -> Result<Tensor, TchError> {
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
pub(crate) fn next_item(scores: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    scores.f_cross_entropy_loss(targets, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)
}

/// Which rows the smallest route already serves: the true next item is among its `k` best, the row's own items
/// masked. scores [B, N + 1] -> [B], 0 or 1.
///
/// A true item that is also in the history stays masked and so counts as missed.
///
/// # Errors
/// LibTorch's.
pub(crate) fn served_by(scores: &Tensor, batch: &Batch, k: i64) -> Result<Tensor, TchError> {
    let masked = scores.f_detach()?.f_scatter_value(1, &batch.histories, f64::NEG_INFINITY)?; // [B, N + 1]
    let targets = batch.last_targets.f_unsqueeze(1)?; // [B, 1]
    let target = masked.f_gather(1, &targets, false)?; // [B, 1]
    // Column 0 is padding and no rival.
    let rivals = masked.f_narrow(1, 1, masked.size2()?.1 - 1)?; // [B, N]
    let above = rivals.f_gt_tensor(&target)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64)?; // [B]
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
pub(crate) fn guide(losses: Losses, logits: &Tensor, easy: &Tensor, tables: &MaskTables) -> Result<Tensor, TchError> {
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
pub(crate) fn balance(losses: Losses, logits: &Tensor) -> Result<Tensor, TchError> {
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
pub(crate) fn expected_share(
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
pub(crate) fn over_budget(share: &Tensor, budget: f64) -> Result<Tensor, TchError> {
    share.f_div_scalar(budget)?.f_sub_scalar(1.0)?.f_square()
}

fn soft_cross_entropy(log_probabilities: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    let rows = log_probabilities.f_mul(targets)?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?; // [B]
    rows.f_mean(Kind::Float)?.f_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Sample;
    use canet_domain::{Item, RouterShape};
    use canet_model::{ModelConfig, Positions, RouterConfig, WidthRule};

    fn config() -> ModelConfig {
        ModelConfig {
            items: 5,
            max_len: 4,
            heads: 1,
            hidden: vec![2, 4],
            layers: vec![1, 2, 3],
            embedding: vec![2],
            router: RouterConfig { dim: 2, heads: 1, ffn: 2 },
            attention_scale: WidthRule::Slice,
            ffn_inner: WidthRule::Slice,
            positions: Positions::Newest,
            embedding_norm: false,
            norm_eps: ModelConfig::NORM_EPS,
        }
    }

    fn tables(config: &ModelConfig) -> (RouteSpace, MaskTables) {
        let space = config.check().unwrap();
        let tables = MaskTables::new(config, &space, tch::Device::Cpu).unwrap();
        (space, tables)
    }

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).unsqueeze(0)
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }

    /// Two histories of two items each, 1 2 -> 3 and 4 5 -> 4.
    fn batch(max_len: usize) -> Batch {
        let items: Vec<Item> = [1, 2, 3, 4, 5, 4].map(|id| Item::new(id).unwrap()).to_vec();
        let samples =
            [&items[..3], &items[3..]].map(|sequence| Sample { inputs: &sequence[..2], targets: &sequence[1..] });
        Batch::new(&samples, max_len, tch::Device::Cpu).unwrap()
    }

    #[test]
    fn a_drawn_route_is_exactly_one_hot_and_passes_the_gradient_on() {
        tch::manual_seed(5);
        let logits = Tensor::zeros([400, 3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let choice = sample_routes(&logits, 1.0).unwrap();
        let ones = choice.eq(1.0).sum(Kind::Int64).int64_value(&[]);
        let zeros = choice.eq(0.0).sum(Kind::Int64).int64_value(&[]);
        assert_eq!((ones, zeros), (400, 800));
        // Equal logits draw each route about equally: 133 of 400, standard deviation 9.4.
        let counts =
            Vec::<f32>::try_from(choice.detach().sum_dim_intlist([0_i64].as_slice(), false, Kind::Float)).unwrap();
        assert!(counts.iter().all(|count| (count - 133.3).abs() < 47.0), "{counts:?}");
        choice.select(1, 0).sum(Kind::Float).backward();
        assert!(logits.grad().abs().sum(Kind::Float).double_value(&[]) > 1.0);
    }

    #[test]
    fn the_guide_leans_as_the_authors_soft_labels() {
        // gen_softlabel(3, multipier=2): weights 1/8, 1/4, 1/2 squared: 1/64, 4/64, 16/64, over their sum.
        let labels = leaning(&Tensor::from_slice(&[0.0_f32, 1.0]), 3, 2.0).unwrap();
        let labels = Vec::<Vec<f32>>::try_from(labels).unwrap();
        for (place, expected) in [1.0 / 21.0, 4.0 / 21.0, 16.0 / 21.0].into_iter().enumerate() {
            close(f64::from(labels[0][place]), expected);
            close(f64::from(labels[1][2 - place]), expected);
        }
    }

    #[test]
    fn the_guide_takes_probabilities_or_as_the_authors_sums_of_logits() {
        let (_, tables) = tables(&config());
        // Routes h2-l1, h2-l2, h2-l3, h4-l1, h4-l2, h4-l3; a hard user.
        let logits = [0.3_f64, -0.2, 0.9, 0.0, 1.1, -0.7];
        let tensor = row(&logits.map(|logit| logit as f32));
        let hard = Tensor::from_slice(&[0.0_f32]);
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let p = logits.map(|logit| logit.exp() / sum);
        let width = [p[0] + p[1] + p[2], p[3] + p[4] + p[5]];
        let depth = [p[0] + p[3], p[1] + p[4], p[2] + p[5]];
        let expected = -(0.2 * width[0].ln() + 0.8 * width[1].ln())
            - (depth[0].ln() + 2.0 * depth[1].ln() + 4.0 * depth[2].ln()) / 7.0;
        close(guide(Losses::Paper, &tensor, &hard, &tables).unwrap().double_value(&[]), expected);

        let log_softmax = |sums: &[f64]| -> Vec<f64> {
            let total: f64 = sums.iter().map(|sum| sum.exp()).sum();
            sums.iter().map(|sum| sum - total.ln()).collect()
        };
        let width = log_softmax(&[1.0, 0.4]);
        let depth = log_softmax(&[0.3, 0.9, 0.2]);
        let expected = -(0.2 * width[0] + 0.8 * width[1]) - (depth[0] + 2.0 * depth[1] + 4.0 * depth[2]) / 7.0;
        close(guide(Losses::PaperCode, &tensor, &hard, &tables).unwrap().double_value(&[]), expected);
    }

    #[test]
    fn certain_users_on_different_routes_are_balanced_and_were_not_to_the_authors_code() {
        let certain = Tensor::from_slice2(&[[20.0_f32, 0.0], [0.0, 20.0]]);
        close(balance(Losses::Paper, &certain).unwrap().double_value(&[]), 2.0_f64.ln());
        close(balance(Losses::PaperCode, &certain).unwrap().double_value(&[]), 10.0);
    }

    #[test]
    fn a_users_own_items_do_not_rank_and_an_item_of_the_history_is_a_miss() {
        let batch = batch(4);
        // Columns: padding and items 1 to 5. The first user's target 3 is second after their own items 1 and 2 are
        // masked; the second user's target 4 is in their history.
        let scores = Tensor::from_slice2(&[[9.0_f32, 8.0, 7.0, 5.0, 6.0, 4.0], [0.0, 1.0, 2.0, 3.0, 9.0, 5.0]]);
        for (k, expected) in [(1, [0.0_f32, 0.0]), (2, [1.0, 0.0]), (6, [1.0, 0.0])] {
            let served = Vec::<f32>::try_from(served_by(&scores, &batch, k).unwrap()).unwrap();
            assert_eq!(served, expected, "k = {k}");
        }
    }

    #[test]
    fn the_expected_share_is_probability_times_cost() {
        let config = config();
        let (space, _) = tables(&config);
        let shape = config.shape();
        assert_eq!(shape.router, RouterShape { dim: 2, ffn: 2 });
        let costs: Vec<f64> = space.routes().map(|route| shape.route_flops(&space, route, 2) as f64).collect();
        let equal = Tensor::zeros([2, 6], (Kind::Float, tch::Device::Cpu));
        let share = expected_share(&equal, &batch(4), &shape, &space).unwrap();
        close(share.double_value(&[]), costs.iter().sum::<f64>() / 6.0 / costs[5]);
        close(over_budget(&row(&[0.36]), 0.3).unwrap().double_value(&[0, 0]), 0.04);
    }
}
