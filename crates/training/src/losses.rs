//! The terms of the CANet paper's objective.
//!
//! Shapes: B rows, S positions that carry the loss, N items. All losses are scalars.

use canet_domain::{ModelShape, RouteSpace};
use canet_evaluation::SeenItems;
use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use crate::batch::Batch;
use crate::subnet_mask::MaskTables;

/// Weights of the terms beside the cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossWeights {
    /// Weight of the guide: 0.01 in the authors' code.
    pub guide: f64,
    /// Weight of the balance: 0.01 in the authors' code.
    pub balance: f64,
    /// Weight of the FLOPs term.
    pub flops: f64,
}

/// Draws a route a row by straight-through Gumbel-softmax (Jang et al. 2017, arXiv:1611.01144): one-hot in value, soft
/// in gradient. `[B, routes] -> [B, routes]`
///
/// # Errors
/// LibTorch's.
pub(crate) fn sample_routes(logits: &Tensor, temperature: f64) -> Result<Tensor, TchError> {
    // -log of a standard exponential variable is a standard Gumbel variable. The clamp keeps both logarithms finite.
    let exponential = logits.f_rand_like()?.f_clamp(1e-9, 1.0 - 1e-7)?.f_log()?.f_neg()?;
    let perturbed = logits.f_sub(&exponential.f_log()?)?.f_div_scalar(temperature)?;
    let soft = perturbed.f_softmax(-1, Kind::Float)?;
    let routes = logits.size().last().copied().unwrap_or_default();
    let hard = soft.f_detach()?.f_argmax(-1, false)?.f_one_hot(routes)?.f_to_kind(Kind::Float)?; // [B, routes]
    // The difference is exactly zero, so the values stay exactly 0 and 1.
    hard.f_add(&soft.f_sub(&soft.f_detach()?)?)
}

/// Mean cross-entropy of the true items: scores `[S, N + 1]`, targets `[S]`.
///
/// # Errors
/// LibTorch's.
pub(crate) fn next_item(scores: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    scores.f_cross_entropy_loss(targets, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)
}

/// 1 for each row whose true next item is among the `k` best of the given scores, else 0: `[B, N + 1] -> [B]`
///
/// If seen items are excluded, items of the row's own history do not rank. A true item among them then counts as missed.
///
/// # Errors
/// LibTorch's.
pub(crate) fn hits(scores: &Tensor, batch: &Batch, k: i64, seen: SeenItems) -> Result<Tensor, TchError> {
    let scores = scores.f_detach()?;
    let masked = match seen {
        SeenItems::Excluded => scores.f_scatter_value(1, &batch.histories, f64::NEG_INFINITY)?, // [B, N + 1]
        SeenItems::Included => scores,
    };
    let targets = batch.last_targets.f_unsqueeze(1)?; // [B, 1]
    let target = masked.f_gather(1, &targets, false)?; // [B, 1]
    // Column 0 is padding and does not rank.
    let rivals = masked.f_narrow(1, 1, masked.size2()?.1 - 1)?; // [B, N]
    let above = rivals.f_gt_tensor(&target)?.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64)?; // [B]
    let finite = target.f_isfinite()?.f_squeeze_dim(1)?; // [B]
    above.f_lt(k)?.f_logical_and(&finite)?.f_to_kind(Kind::Float)
}

/// Soft targets over the ascending sizes of one axis: `[B] -> [B, sizes]`
///
/// Size i has the weight 2^(sharpness·i), normalised. Rows with `easy` = 1 have the same weights in descending order.
/// This is the authors' `gen_softlabel`, whose sharpness is 2 for widths and 1 for depth.
fn soft_size_targets(easy: &Tensor, sizes: i64, sharpness: f64) -> Result<Tensor, TchError> {
    let places = Tensor::f_arange(sizes, (Kind::Float, easy.device()))?; // [sizes]
    let large = places.f_mul_scalar(sharpness * std::f64::consts::LN_2)?.f_softmax(0, Kind::Float)?; // [sizes]
    let small = large.f_flip([0])?;
    let easy = easy.f_unsqueeze(1)?; // [B, 1]
    easy.f_mul(&small.f_sub(&large)?)?.f_add(&large) // [B, sizes]
}

/// The guide: cross-entropy of the router's sizes. Its targets are small sizes for rows with `easy` = 1 and large sizes
/// for the others. `logits` is `[B, routes]`, `easy` is `[B]`.
///
/// It uses probabilities, as the paper describes it; the authors' code sums raw logits.
///
/// # Errors
/// LibTorch's.
pub(crate) fn guide(logits: &Tensor, easy: &Tensor, tables: &MaskTables) -> Result<Tensor, TchError> {
    let axes = tables.marginals(&logits.f_softmax(-1, Kind::Float)?)?;
    let mut total = Tensor::f_zeros([], (Kind::Float, logits.device()))?;
    for (axis, sharpness) in axes.iter().zip([2.0, 1.0, 2.0]) {
        let sizes = axis.size().last().copied().unwrap_or_default();
        let log_probabilities = axis.f_clamp_min(1e-12)?.f_log()?; // [B, sizes]
        let targets = soft_size_targets(easy, sizes, sharpness)?; // [B, sizes]
        total = total.f_add(&soft_cross_entropy(&log_probabilities, &targets)?)?;
    }
    Ok(total)
}

/// The balance: cross-entropy between the uniform distribution over routes and the router's mean probabilities over the
/// batch. `logits` is `[B, routes]`.
///
/// It is lowest if the users are spread evenly over the routes, however certain the router is about each user. In the authors'
/// code it acts on each user alone.
///
/// # Errors
/// LibTorch's.
pub(crate) fn balance(logits: &Tensor) -> Result<Tensor, TchError> {
    let mean = logits.f_softmax(-1, Kind::Float)?.f_mean_dim([0_i64].as_slice(), true, Kind::Float)?;
    mean.f_clamp_min(1e-12)?.f_log()?.f_mean(Kind::Float)?.f_neg()
}

/// The expected share of the full model's FLOPs that a batch costs under the router's probabilities, with a gradient.
/// `logits` is `[B, routes]`.
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
    let costs = Tensor::f_from_slice(&costs)?.f_reshape([batch.rows(), -1])?; // [B, routes]
    let costs = costs.f_to_device(logits.device())?;
    logits.f_softmax(-1, Kind::Float)?.f_mul(&costs)?.f_sum(Kind::Float)?.f_div_scalar(full)
}

/// The squared relative distance of a share from the budget. Spending less than the budget costs as much as spending
/// more.
///
/// # Errors
/// LibTorch's.
pub(crate) fn budget_distance(share: &Tensor, budget: f64) -> Result<Tensor, TchError> {
    share.f_div_scalar(budget)?.f_sub_scalar(1.0)?.f_square()
}

/// Mean cross-entropy of soft targets: `[B, sizes]` each.
fn soft_cross_entropy(log_probabilities: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    let rows = log_probabilities.f_mul(targets)?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?; // [B]
    rows.f_mean(Kind::Float)?.f_neg()
}

#[cfg(test)]
mod tests {
    use canet_domain::{Item, RouterShape};
    use canet_model::{ModelConfig, Positions, RouterConfig, WidthRule};

    use super::*;
    use crate::batch::Sample;
    use crate::torch_seed::seed_torch;

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
            history_stride: 1,
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

    /// Two rows: items 1 and 2 before 3, and items 4 and 5 before 4.
    fn batch(max_len: usize) -> Batch {
        let items: Vec<Item> = [1, 2, 3, 4, 5, 4].map(|id| Item::new(id).unwrap()).to_vec();
        let samples =
            [&items[..3], &items[3..]].map(|sequence| Sample { inputs: &sequence[..2], targets: &sequence[1..] });
        Batch::new(&samples, max_len, tch::Device::Cpu).unwrap()
    }

    #[test]
    fn a_drawn_route_is_exactly_one_hot_and_has_a_gradient() {
        let _generator = seed_torch(5);
        let logits = Tensor::zeros([400, 3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let choice = sample_routes(&logits, 1.0).unwrap();
        let ones = choice.eq(1.0).sum(Kind::Int64).int64_value(&[]);
        let zeros = choice.eq(0.0).sum(Kind::Int64).int64_value(&[]);
        assert_eq!((ones, zeros), (400, 800));
        // Equal logits draw each route 133 times of 400 on average, with a standard deviation of 9.4.
        let counts =
            Vec::<f32>::try_from(choice.detach().sum_dim_intlist([0_i64].as_slice(), false, Kind::Float)).unwrap();
        assert!(counts.iter().all(|count| (count - 133.3).abs() < 47.0), "{counts:?}");
        choice.select(1, 0).sum(Kind::Float).backward();
        assert!(logits.grad().abs().sum(Kind::Float).double_value(&[]) > 1.0);
    }

    #[test]
    fn soft_size_targets_equal_the_authors_soft_labels() {
        // gen_softlabel(3, multipier=2) squares the weights 1/8, 1/4 and 1/2 and divides them by their sum.
        let labels = soft_size_targets(&Tensor::from_slice(&[0.0_f32, 1.0]), 3, 2.0).unwrap();
        let labels = Vec::<Vec<f32>>::try_from(labels).unwrap();
        for (place, expected) in [1.0 / 21.0, 4.0 / 21.0, 16.0 / 21.0].into_iter().enumerate() {
            close(f64::from(labels[0][place]), expected);
            close(f64::from(labels[1][2 - place]), expected);
        }
    }

    #[test]
    fn the_guide_uses_probabilities_of_sizes() {
        let (_, tables) = tables(&config());
        // The routes are h2-l1, h2-l2, h2-l3, h4-l1, h4-l2 and h4-l3. The user is hard.
        let logits = [0.3_f64, -0.2, 0.9, 0.0, 1.1, -0.7];
        let tensor = row(&logits.map(|logit| logit as f32));
        let hard = Tensor::from_slice(&[0.0_f32]);
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let p = logits.map(|logit| logit.exp() / sum);
        let width = [p[0] + p[1] + p[2], p[3] + p[4] + p[5]];
        let depth = [p[0] + p[3], p[1] + p[4], p[2] + p[5]];
        let expected = -(0.2 * width[0].ln() + 0.8 * width[1].ln())
            - (depth[0].ln() + 2.0 * depth[1].ln() + 4.0 * depth[2].ln()) / 7.0;
        close(guide(&tensor, &hard, &tables).unwrap().double_value(&[]), expected);
    }

    #[test]
    fn certain_users_on_different_routes_are_balanced() {
        let certain = Tensor::from_slice2(&[[20.0_f32, 0.0], [0.0, 20.0]]);
        close(balance(&certain).unwrap().double_value(&[]), 2.0_f64.ln());
        let alike = Tensor::from_slice2(&[[20.0_f32, 0.0], [20.0, 0.0]]);
        close(balance(&alike).unwrap().double_value(&[]), 10.0);
    }

    #[test]
    fn excluded_own_items_do_not_rank_and_a_target_among_them_is_a_miss() {
        let batch = batch(4);
        // Column 0 is padding. The first row's target 3 is second best once its own items 1 and 2 are masked. The
        // second row's target 4 is in its history, and it is the best if seen items are included.
        let scores = Tensor::from_slice2(&[[9.0_f32, 8.0, 7.0, 5.0, 6.0, 4.0], [0.0, 1.0, 2.0, 3.0, 9.0, 5.0]]);
        for (seen, k, expected) in [
            (SeenItems::Excluded, 1, [0.0_f32, 0.0]),
            (SeenItems::Excluded, 2, [1.0, 0.0]),
            (SeenItems::Excluded, 6, [1.0, 0.0]),
            (SeenItems::Included, 1, [0.0, 1.0]),
            (SeenItems::Included, 3, [0.0, 1.0]),
            (SeenItems::Included, 4, [1.0, 1.0]),
        ] {
            let found = Vec::<f32>::try_from(hits(&scores, &batch, k, seen).unwrap()).unwrap();
            assert_eq!(found, expected, "{seen:?}, k = {k}");
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
        close(budget_distance(&row(&[0.36]), 0.3).unwrap().double_value(&[0, 0]), 0.04);
    }
}
