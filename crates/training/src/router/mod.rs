//! The stage `router`, in three steps:
//!
//! 1. Rank every held-out case on every route.
//! 2. Fit predictors of the utilities, and choose the rule that turns their predictions into routes.
//! 3. Train the checkpoint's router to reproduce the predictions.

mod crossfit;
mod distillation;
mod features;
mod policy;
mod predictor;
mod rules;
mod utility_fit;

use std::time::Instant;

use canet_data::Case;

use self::distillation::{distill, shuffled};
use self::features::feature_count;
use self::utility_fit::{MeasuredCases, UtilityFit};
use crate::context::StageContext;
use crate::error::TrainError;
use crate::forecast::Work;
use crate::log::Event;
use crate::parameters::Parameters;
use crate::route_ranks::RankedModel;
use crate::stage::{Stage, StageEnd};
use crate::validation::ranking_batch;

/// Cases that are measured between two checks for an interruption.
const CHUNK: usize = 512;

/// Float32 values of a case that the fit holds at a time, at most, if the narrowest embedding has `width` features: its
/// features, those of the same case in a fold or outside it, and a predictor's hidden layer before and after its activation.
pub(crate) fn values_of_case(width: usize) -> usize {
    2 * feature_count(width) + 2 * predictor::HIDDEN
}

/// Fits the router of a trained supernet.
///
/// # Errors
/// [`TrainError`], if the device fails or the state cannot be saved.
pub(crate) fn fit_router(context: &mut StageContext<'_>) -> Result<StageEnd, TrainError> {
    // The order is random: if time runs out, the measured cases are a fair sample.
    let order = shuffled(context.holdout.cases.len(), context.state.progress.stage_seed());
    let cases: Vec<Case<'_>> = order.into_iter().map(|place| context.holdout.cases[place]).collect();
    let measured = measure_cases(context, &cases)?;
    if measured == StageEnd::Stopped {
        return Ok(measured);
    }
    tch::manual_seed(context.state.progress.stage_seed() as i64);
    let cases = MeasuredCases::new(context, &cases[..context.state.ranks.cases()])?;
    context.display.begin(Stage::Router, utility_fit::UNITS, 0);
    let Some(fit) = cases.fit(context)? else { return Ok(StageEnd::Stopped) };
    context.display.line(&format!(
        "router: it explains {:.1} % of which slice suits whom, on users it has not seen ({} positions). Routed by it, they \
         gain {:+.4} NDCG@10{} over static mixtures of the same cost, before the router's own compute",
        100.0 * fit.explained.max(0.0),
        cases.cases.len(),
        fit.gain.mean,
        fit.gain.se.map(|se| format!(" (standard error {se:.4})")).unwrap_or_default(),
    ));
    let untrained = context.state.parameters.to_weights()?;
    let distilled = distill(context, &cases, &fit)?;
    if distilled == StageEnd::Stopped {
        // A resumed training distills from the start, so it needs the untrained router.
        let job = context.job;
        context.state.parameters = Parameters::from_weights(&job.config, &untrained, job.parameters())?;
        context.state.progress.base_bias = None;
        return Ok(distilled);
    }
    // A stop during distillation fits the router again, so only now does the log have its fit once.
    context.log.write(&event(&fit, cases.cases.len()))?;
    // If time cut the measuring short, the stage was cut short.
    Ok(if distilled == StageEnd::Done { measured } else { distilled })
}

/// The line of the run log for a fit on this many cases.
fn event(fit: &UtilityFit, cases: usize) -> Event<'static> {
    Event::Router {
        cases,
        utility: fit.rule.utility.name(),
        explained: fit.explained,
        k: fit.rule.k,
        every_route: fit.rule.every_route,
        gain: fit.gain.mean,
        gain_se: fit.gain.se,
    }
}

/// Ranks the cases that have no ranks yet: all of them, or as many as there is time for, but at least one chunk.
fn measure_cases(context: &mut StageContext<'_>, cases: &[Case<'_>]) -> Result<StageEnd, TrainError> {
    let job = context.job;
    let forward = job.backend.load(&job.config, &context.state.parameters.to_weights()?)?;
    let model = RankedModel {
        forward: &*forward,
        space: context.space,
        window: job.config.window(),
        batch: ranking_batch(job.device),
        seen: job.options.seen(),
    };
    let done = context.state.ranks.cases();
    context.display.begin(Stage::Router, cases.len() as u64, done as u64);
    let mut end = StageEnd::Done;
    for chunk in cases[done..].chunks(CHUNK) {
        match context.interrupted(Stage::Router) {
            Some(StageEnd::Stopped) => return Ok(StageEnd::Stopped),
            Some(interrupted) if context.state.ranks.cases() > 0 => {
                end = interrupted;
                break;
            }
            _ => {}
        }
        let began = Instant::now();
        context.state.ranks.measure(&model, chunk)?;
        context.forecast.ranked(chunk.len() * context.space.len(), began.elapsed());
        let done = Work { rankings: (context.state.ranks.cases() * context.space.len()) as f64, ..Work::default() };
        context.display.advance(chunk.len() as u64, context.time_left(done));
        context.save_if_due()?;
    }
    context.save()?;
    Ok(end)
}
