use std::cmp::Reverse;
use std::time::Instant;

use canet_domain::Item;
use canet_torch::tch_device;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, TchError, Tensor};

use super::utility_fit::{MeasuredCases, UtilityFit};
use crate::batch::{Batch, Sample};
use crate::context::StageContext;
use crate::display::time_left;
use crate::distillation_plan::{self, BATCH};
use crate::dropout::DropoutShares;
use crate::error::TrainError;
use crate::forecast::Work;
use crate::log::Event;
use crate::optimizer::{AdamW, AdamWOptions, Rates, Schedule};
use crate::parameters::{ITEM_EMBEDDING, Parameters};
use crate::records::{BaseBias, RouterGains};
use crate::stage::{Stage, StageEnd};
use crate::state::derive_seed;
use crate::supernet::Supernet;

/// One step's inputs and targets of the router.
struct DistillationBatch<'a> {
    /// B histories of at least one item, in descending length.
    histories: Vec<&'a [Item]>,
    /// The logits that the router should give to them: `[B, routes]`
    logits: Tensor,
}

/// What the router learns.
struct RouterTargets<'a> {
    cases: &'a MeasuredCases<'a>,
    fit: &'a UtilityFit,
    /// 1 for a route that may be chosen, else 0. The router's logits of other routes are not trained: `[routes]`
    allowed: Tensor,
    /// The router's logits are predictions times this factor.
    factor: f64,
}

/// The bias of a route that must not be chosen. It is finite, and below every other bias at any price.
const NEVER: f32 = -1e6;

const LEARNING_RATE: f64 = 2e-3;
const WARMUP: u64 = 50;
const OPTIMIZER: AdamWOptions = AdamWOptions { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.01, clip_norm: 1.0 };

/// Standard deviation of the router's item embedding before training.
const EMBEDDING_STD: f64 = 0.1;

/// Cases on which the router is compared with its targets.
const COMPARED: usize = 512;

/// The least share of the predictions that a router must reproduce. One that knows less would choose other routes than those whose
/// gains were measured.
const LEAST_LEARNT: f64 = 0.5;

/// Trains the checkpoint's router to reproduce the predictions, and sets the base biases of the routes and the router's gains. A
/// router that cannot follow the predictions gains nothing under any budget.
///
/// If the stage is stopped, it leaves the router partly trained.
///
/// # Errors
/// [`TrainError`], if the device fails.
pub(super) fn distill(
    context: &mut StageContext<'_>,
    cases: &MeasuredCases<'_>,
    fit: &UtilityFit,
) -> Result<StageEnd, TrainError> {
    let every: Vec<usize> = (0..cases.cases.len()).collect();
    let means = cases.table.means(&every);
    let routes = 0..cases.table.routes;
    let allowed: Vec<bool> = match fit.rule.every_route {
        true => routes.map(|_| true).collect(),
        false => {
            let hull = cases.table.hull(&every, &means);
            routes.map(|route| hull.vertices().iter().any(|kept| kept.index() == route)).collect()
        }
    };
    let mask: Vec<f32> = allowed.iter().map(|allowed| f32::from(u8::from(*allowed))).collect();
    let mask = Tensor::f_from_slice(&mask)?.f_to_device(cases.inputs.device())?; // [routes]
    let predicted = fit.predict(&cases.inputs)?; // [M, routes]
    let spread = logit_distance(&predicted, &predicted.f_zeros_like()?, &mask)?.f_double_value(&[])?.sqrt();
    let k = fit.rule.k;
    let routes_by_user = k > 0.0 && spread > 1e-9;
    // Logits get standard deviation 1, so that a softmax over them is meaningful.
    let unit = if routes_by_user { k * spread } else { deviation(&means) };
    let (end, follows) = match routes_by_user {
        true => train_router(context, &RouterTargets { cases, fit, allowed: mask, factor: k / unit })?,
        false => (StageEnd::Done, false),
    };
    if end == StageEnd::Stopped {
        return Ok(end);
    }
    if !follows {
        clear_head(&context.state.parameters)?;
    }
    let base = means.iter().zip(allowed).map(|(mean, allowed)| if allowed { (mean / unit) as f32 } else { NEVER });
    let base = base.collect();
    let budgets = if follows { fit.budgets.clone() } else { Vec::new() };
    context.state.progress.base_bias = Some(BaseBias { base, gains: Some(RouterGains { means, budgets }) });
    Ok(end)
}

impl<'a> RouterTargets<'a> {
    /// A batch whose targets are the predictions for given histories.
    fn predictions<'b>(&self, histories: Vec<&'b [Item]>) -> Result<DistillationBatch<'b>, TchError> {
        let features = self.cases.features.of(&histories)?; // [B, F]
        let logits = self.fit.predict(&features)?.f_mul_scalar(self.factor)?; // [B, routes]
        Ok(DistillationBatch { histories, logits })
    }
}

/// Trains the router on random training histories. Returns why it ended, and whether the router follows the predictions.
fn train_router(context: &mut StageContext<'_>, targets: &RouterTargets<'_>) -> Result<(StageEnd, bool), TrainError> {
    let sequences = context.job.dataset.training_sequences();
    let sequences: Vec<&[Item]> = sequences.into_iter().filter(|sequence| !sequence.is_empty()).collect();
    let planned = distillation_plan::steps(sequences.len());
    let seed = context.state.progress.stage_seed();

    init_embedding(&context.state.parameters)?;
    let mut optimizer = AdamW::new(OPTIMIZER, &context.state.parameters)?;
    let schedule = Schedule { peak: LEARNING_RATE, warmup: WARMUP.min(planned / 4), total: planned };
    let cases = context.holdout.cases.len();
    context.display.begin(Stage::Router, planned, 0);
    let (mut end, mut steps) = (StageEnd::Done, 0);
    while steps < planned {
        // If measuring took all of the stage's time, the router still learns, at the cost of later stages.
        match context.exhausted() {
            Some(StageEnd::Stopped) => return Ok((StageEnd::Stopped, false)),
            Some(interrupted) => {
                end = interrupted;
                break;
            }
            None => {}
        }
        let began = Instant::now();
        let seed = derive_seed(seed, [1, steps]);
        let DistillationBatch { histories, logits } = targets.predictions(random_histories(&sequences, seed))?;
        let found = router_logits(context, &histories)?; // [B, routes]
        let device = found.device();
        let loss = logit_distance(&found, &logits.f_to_device(device)?, &targets.allowed.f_to_device(device)?)?;
        loss.f_backward()?;
        optimizer.step(&context.state.parameters, Rates::even(schedule.rate(steps)))?;
        let distance = loss.f_double_value(&[])?;
        steps += 1;
        context.forecast.distilled(began.elapsed());
        context.display.step(|| {
            let rankings = (cases * context.space.len()) as f64;
            let done = Work { rankings, distillations: steps as f64, ..Work::default() };
            format!("mean squared error {distance:.3} of the learnt logits{}", time_left(context.time_left(done)))
        });
    }
    let learnt = reproduced_share(context, targets)?;
    context.log.write(&Event::Taught { steps, of: planned, learnt })?;
    let follows = learnt >= LEAST_LEARNT;
    let so = if follows { "" } else { ", which is too little, so one slice serves everybody" };
    context
        .display
        .line(&format!("router: the network has learnt {:.0} % of what was explained{so}", 100.0 * learnt.max(0.0)));
    Ok((end, follows))
}

/// Random prefixes of random sequences, in descending length.
fn random_histories<'a>(sequences: &[&'a [Item]], seed: u64) -> Vec<&'a [Item]> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut histories: Vec<&[Item]> = (0..BATCH)
        .map(|_| {
            let sequence = sequences[rng.gen_range(0..sequences.len())];
            &sequence[..rng.gen_range(1..=sequence.len())]
        })
        .collect();
    histories.sort_by_key(|history| Reverse(history.len()));
    histories
}

/// The numbers below `count` in random order.
pub(super) fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}

/// The share of the targets' variance over some cases that the router reproduces.
fn reproduced_share(context: &StageContext<'_>, targets: &RouterTargets<'_>) -> Result<f64, TrainError> {
    let cases = targets.cases.cases;
    tch::no_grad(|| {
        let (mut error, mut variance) = (0.0, 0.0);
        for batch in cases[..cases.len().min(COMPARED)].chunks(BATCH) {
            let mut histories: Vec<&[Item]> = batch.iter().map(|case| case.history).collect();
            histories.sort_by_key(|history| Reverse(history.len()));
            let DistillationBatch { histories, logits } = targets.predictions(histories)?;
            let found = router_logits(context, &histories)?.f_to_device(logits.device())?; // [B, routes]
            let distance = |from: &Tensor, to: &Tensor| -> Result<f64, TchError> {
                Ok(logit_distance(from, to, &targets.allowed)?.f_double_value(&[])? * histories.len() as f64)
            };
            error += distance(&found, &logits)?;
            variance += distance(&logits, &logits.f_zeros_like()?)?;
        }
        Ok(1.0 - error / variance.max(1e-12))
    })
}

/// The router's logits for histories: `[B, routes]`
fn router_logits(context: &StageContext<'_>, histories: &[&[Item]]) -> Result<Tensor, TchError> {
    let job = context.job;
    let window = job.config.window();
    let samples: Vec<Sample<'_>> = histories
        .iter()
        .map(|history| window.of(history, 0))
        // The router's logits do not depend on targets.
        .map(|read| Sample { inputs: read, targets: read })
        .collect();
    let batch = Batch::new(&samples, window.max_len, tch_device(job.device))?;
    let parameters = &context.state.parameters;
    Supernet { config: &job.config, parameters, dropout: DropoutShares::NONE }.router_logits(&batch)
}

/// Mean squared distance between logits over the allowed routes, a scalar. The logits are `[B, routes]`, `allowed` is
/// `[routes]`. A distance that all routes of a row share does not count, because it does not change the row's argmax.
fn logit_distance(from: &Tensor, to: &Tensor, allowed: &Tensor) -> Result<Tensor, TchError> {
    let routes = [1_i64].as_slice();
    let count = allowed.f_sum(Kind::Float)?;
    let off = from.f_sub(to)?.f_mul(allowed)?; // [B, routes]
    let mean = off.f_sum_dim_intlist(routes, true, Kind::Float)?.f_div(&count)?; // [B, 1]
    let off = off.f_sub(&mean)?.f_mul(allowed)?; // [B, routes]
    off.f_square()?.f_sum_dim_intlist(routes, false, Kind::Float)?.f_div(&count)?.f_mean(Kind::Float)
}

/// Initialises the router's item embedding with the principal components of the supernet's.
fn init_embedding(parameters: &Parameters) -> Result<(), TchError> {
    tch::no_grad(|| {
        let table = parameters.get(ITEM_EMBEDDING)?; // [N + 1, E]
        let own = parameters.get("router.item_embedding")?; // [N + 1, dim]
        let (rows, dim) = own.size2()?;
        let items = table.f_narrow(0, 1, rows - 1)?; // [N, E]
        let centred = items.f_sub(&items.f_mean_dim([0_i64].as_slice(), true, Kind::Float)?)?; // [N, E]
        let (_, _, directions) = centred.f_transpose(0, 1)?.f_matmul(&centred)?.f_svd(true, true)?; // [E, E]
        let kept = dim.min(directions.size2()?.1);
        let projected = centred.f_matmul(&directions.f_narrow(1, 0, kept)?)?; // [N, kept]
        let spread = projected.f_square()?.f_mean(Kind::Float)?.f_sqrt()?.f_clamp_min(1e-12)?;
        let start = projected.f_div(&spread)?.f_mul_scalar(EMBEDDING_STD)?; // [N, kept]
        own.f_narrow(0, 1, rows - 1)?.f_narrow(1, 0, kept)?.f_copy_(&start)
    })
}

/// Makes every logit of the router zero. The base biases then choose the same route for every user.
fn clear_head(parameters: &Parameters) -> Result<(), TchError> {
    tch::no_grad(|| {
        for name in ["router.head.weight", "router.head.bias"] {
            let _ = parameters.get(name)?.shallow_clone().f_zero_()?;
        }
        Ok(())
    })
}

fn deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().max(1) as f64).sqrt().max(1e-12)
}
