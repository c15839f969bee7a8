//! The router's stage: what each slice is worth to held-out users, who can be told apart by it, and a router that
//! does so.

mod crossfit;
mod features;
mod lesson;
mod policy;
mod teacher;
mod utility;

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use self::crossfit::{Deviations, FOLDS, Tried, Unseen, best, gain_of_choice, predict_unseen, try_rules};
use self::features::Features;
use self::lesson::{Lesson, apart, drawn_histories, learn, router_logits};
use self::policy::Panel;
use self::teacher::Teacher;
pub(super) use self::utility::Utilities;
use self::utility::{CHUNK, Kind as Utility, order};
use super::error::TrainError;
use super::log::Event;
use super::options::RouterFit;
use super::run::{Pause, Run};
use super::stage::Stage;
use super::state::place_seed;
use super::validation::batch;
use canet_data::Case;
use canet_domain::Item;
use canet_evaluation::Estimate;

/// What the router's stage came to, beside the router's weights: what budgets are calibrated on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Routing {
    /// Worth of each route to everybody, in the unit of the logits; far below all others where a route is not to be
    /// chosen.
    pub base: Vec<f32>,
}

/// The base of a route that is not to be chosen: below every other route at any price, and finite.
const NEVER: f32 = -1e6;

/// Teachers whose mean teaches the router.
const MEMBERS: usize = 5;

/// Histories of a lesson.
const BATCH: usize = 256;

/// Times that the router reads each user, and bounds on the lessons that this makes.
const PASSES: usize = 100;
const LEAST_STEPS: usize = 100;
const MOST_STEPS: usize = 3000;

/// Fits the router of a trained supernet.
///
/// # Errors
/// [`TrainError`] where the device fails or the state cannot be saved.
pub(super) fn fit_router(run: &mut Run<'_>) -> Result<Pause, TrainError> {
    let order = order(run.holdout.cases.len(), run.state.progress.stage_seed());
    let cases: Vec<Case<'_>> = order.into_iter().map(|place| run.holdout.cases[place]).collect();
    let measured = measure(run, &cases)?;
    if matches!(measured, Pause::Stopped) {
        return Ok(measured);
    }
    tch::manual_seed(run.state.progress.stage_seed() as i64);
    let cases = &cases[..run.state.utilities.cases()];
    let known = Known::of(run, cases)?;
    let fitted = known.fit(run)?;
    let Fitted { unseen, chosen, gain, .. } = &fitted;
    run.log.write(&Event::Router {
        cases: cases.len(),
        utility: chosen.utility.name(),
        explained: unseen.explained,
        k: chosen.k,
        every_route: chosen.every_route,
        gain: gain.mean,
        gain_se: gain.se,
    })?;
    run.display.say(&format!(
        "router: {} held-out positions, {} predicted to {:.2} %, {:+.4} (+-{:.4}) NDCG@10 above static mixes of equal cost on unseen users",
        cases.len(),
        chosen.utility.name(),
        100.0 * unseen.explained,
        gain.mean,
        gain.se.unwrap_or_default(),
    ));
    let untaught = run.state.parameters.to_weights()?;
    let pause = known.teach(run, &fitted)?;
    if matches!(pause, Pause::Stopped) {
        // Lessons begin anew when the run goes on, so they must find what they found now.
        run.state.parameters = run.job.parameters(&untaught)?;
        run.state.progress.routing = None;
    }
    // Cut short in its first part, the stage is cut short whatever its second one did.
    Ok(if matches!(pause, Pause::Done) { measured } else { pause })
}

/// Measures the cases that are not measured yet, as many as the stage has time for, one chunk at least; says why it ended.
fn measure(run: &mut Run<'_>, cases: &[Case<'_>]) -> Result<Pause, TrainError> {
    let job = run.job;
    let weights = run.state.parameters.to_weights()?;
    let forward = job.target.load(&job.config, &weights)?;
    let done = run.state.utilities.cases();
    let reads = (job.config.max_len, batch(job.device));
    run.display.begin(Stage::Router, cases.len() as u64, done as u64);
    let mut ended = Pause::Done;
    for chunk in cases[done..].chunks(CHUNK) {
        match run.interrupted(Stage::Router) {
            Some(Pause::Stopped) => return Ok(Pause::Stopped),
            Some(pause) if run.state.utilities.cases() > 0 => {
                ended = pause;
                break;
            }
            _ => {}
        }
        run.state.utilities.measure(&*forward, run.space, reads, chunk)?;
        run.display.advance(chunk.len() as u64);
        run.save_now_and_then()?;
    }
    run.save()?;
    Ok(ended)
}

/// Everything that is known of the measured cases.
struct Known<'a> {
    cases: &'a [Case<'a>],
    folds: Vec<usize>,
    panel: Panel,
    features: Features,
    /// In host memory: [M, F]
    read: Tensor,
}

/// A fit of the utilities that proved itself on unseen cases.
struct Fitted {
    unseen: Unseen,
    chosen: Tried,
    /// What choosing so gains on users who had no part in the choice.
    gain: Estimate,
    /// The utilities as a teacher learns them.
    deviations: Deviations,
    teachers: Vec<Teacher>,
}

impl<'a> Known<'a> {
    fn of(run: &Run<'_>, cases: &'a [Case<'a>]) -> Result<Known<'a>, TrainError> {
        let config = &run.job.config;
        let narrowest = config.embedding.first().copied().unwrap_or_default();
        let histories: Vec<&[Item]> = cases.iter().map(|case| case.history).collect();
        let counts = run.job.dataset.popularity();
        let mut features = Features::new(&run.state.parameters, narrowest, &counts, config.max_len)?;
        features.standardise(&histories)?;
        let read = features.of(&histories)?;
        let lengths = cases.iter().map(|case| case.history.len().min(config.max_len)).collect();
        let worth = run.state.utilities.values(Utility::Ndcg);
        let panel = Panel::new(run.space, &config.shape(), config.max_len, lengths, worth);
        let folds = cases.iter().map(|case| (place_seed(0, [case.user as u64, 0]) % FOLDS as u64) as usize).collect();
        Ok(Known { cases, folds, panel, features, read })
    }

    /// The utility whose predictions gain most, and teachers that learnt it from every case.
    fn fit(&self, run: &Run<'_>) -> Result<Fitted, TrainError> {
        let device = self.read.device();
        let (mut fits, mut tried) = (Vec::new(), Vec::new());
        for utility in Utility::ALL {
            let values = run.state.utilities.values(utility);
            let shape = [self.cases.len() as i64, self.panel.routes as i64];
            let worths = Tensor::f_from_slice(&values)?.f_reshape(shape)?.f_to_device(device)?;
            let unseen = predict_unseen(&self.read, &worths, &self.folds)?;
            tried.extend(try_rules(&self.panel, &self.folds, utility, &unseen.predictions));
            fits.push((utility, unseen, worths));
        }
        let users: Vec<usize> = self.cases.iter().map(|case| case.user).collect();
        let gain = gain_of_choice(&tried, &self.folds, &users);
        let chosen = best(&tried, |_| true).ok_or(TrainError::NothingToValidate)?.clone();
        let fit = fits.into_iter().find(|(utility, ..)| *utility == chosen.utility);
        let (_, unseen, worths) = fit.ok_or(TrainError::NothingToValidate)?;
        let every = Tensor::f_arange(self.cases.len() as i64, (Kind::Int64, device))?;
        let deviations = Deviations::of(&worths, &every)?;
        let mut teachers = Vec::with_capacity(MEMBERS);
        for _ in 0..MEMBERS {
            let mut teacher = Teacher::new(self.read.size2()?.1, self.panel.routes, device)?;
            for _ in 0..unseen.passes {
                teacher.pass(&self.read, &deviations.values)?;
            }
            teachers.push(teacher);
        }
        Ok(Fitted { unseen, chosen, gain, deviations, teachers })
    }

    /// Teaches the checkpoint's router what was fitted, and notes what budgets are calibrated on.
    fn teach(&self, run: &mut Run<'_>, fitted: &Fitted) -> Result<Pause, TrainError> {
        let options = run.job.options.router;
        let every: Vec<usize> = (0..self.cases.len()).collect();
        let means = self.panel.means(&every);
        let calibrated = options.fit != RouterFit::Uncalibrated;
        let chosen: Vec<usize> = match calibrated && !fitted.chosen.every_route {
            true => self.panel.hull(&every, &means).routes().iter().map(|route| route.index()).collect(),
            false => (0..self.panel.routes).collect(),
        };
        let allowed: Vec<f32> =
            (0..self.panel.routes).map(|route| f32::from(u8::from(chosen.contains(&route)))).collect();
        let allowed = Tensor::f_from_slice(&allowed)?.f_to_device(self.read.device())?;
        // Logits have deviation 1, so that the softmax over them means something.
        let predicted = fitted.predict(&self.read, calibrated)?;
        let nothing = predicted.f_zeros_like()?;
        let spread = apart(&predicted, &nothing, &allowed)?.f_double_value(&[])?.sqrt();
        let k = if calibrated { fitted.chosen.k } else { 1.0 };
        let believed = k > 0.0 && spread > 1e-9;
        let unit = if believed { k * spread } else { deviation(&means) };
        let base = |route: usize| match (calibrated, chosen.contains(&route)) {
            (true, true) => (means[route] / unit) as f32,
            (true, false) => NEVER,
            (false, _) => 0.0,
        };
        run.state.progress.routing = Some(Routing { base: (0..self.panel.routes).map(base).collect() });
        match believed {
            true => self.learn(run, fitted, &allowed, k / unit),
            false => {
                forget(run)?;
                Ok(Pause::Done)
            }
        }
    }

    /// Lessons of what the teachers predict, times `factor`, for histories of the training parts; or of the cases' own
    /// utilities.
    fn learn(&self, run: &mut Run<'_>, fitted: &Fitted, allowed: &Tensor, factor: f64) -> Result<Pause, TrainError> {
        let direct = run.job.options.router.fit == RouterFit::Direct;
        let calibrated = run.job.options.router.fit != RouterFit::Uncalibrated;
        let parts = run.job.dataset.training_sequences();
        let parts: Vec<&[Item]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let seed = run.state.progress.stage_seed();
        let device = self.read.device();
        let steps = (parts.len() * PASSES / BATCH).clamp(LEAST_STEPS, MOST_STEPS) as u64;
        let (pause, done) = learn(run, allowed, steps, |step| {
            let seed = place_seed(seed, [1, step]);
            if direct {
                let mut drawn = order(self.cases.len(), seed);
                drawn.truncate(BATCH);
                drawn.sort_by_key(|case| std::cmp::Reverse(self.cases[*case].history.len()));
                let rows: Vec<i64> = drawn.iter().map(|case| *case as i64).collect();
                let rows = Tensor::f_from_slice(&rows)?.f_to_device(device)?;
                let logits = fitted.deviations.values.f_index_select(0, &rows)?.f_mul_scalar(factor)?;
                return Ok(Lesson { histories: drawn.iter().map(|case| self.cases[*case].history).collect(), logits });
            }
            let histories = drawn_histories(&parts, BATCH, seed);
            let predicted = fitted.predict(&self.features.of(&histories)?, calibrated)?;
            Ok(Lesson { logits: predicted.f_mul_scalar(factor)?, histories })
        })?;
        if matches!(pause, Pause::Stopped) {
            return Ok(pause);
        }
        let learnt = self.learnt(run, fitted, allowed, calibrated, factor)?;
        run.log.write(&Event::Taught { steps: done, of: steps, learnt })?;
        run.display.say(&format!("router: it learnt {:.0} % of what its teachers tell apart", 100.0 * learnt));
        Ok(pause)
    }

    /// Share of the teachers' variance over the first cases that the router reproduces.
    fn learnt(
        &self,
        run: &Run<'_>,
        fitted: &Fitted,
        allowed: &Tensor,
        calibrated: bool,
        factor: f64,
    ) -> Result<f64, TrainError> {
        tch::no_grad(|| {
            let (mut off, mut all) = (0.0, 0.0);
            for cases in self.cases[..self.cases.len().min(CHUNK)].chunks(BATCH) {
                let mut histories: Vec<&[Item]> = cases.iter().map(|case| case.history).collect();
                histories.sort_by_key(|history| std::cmp::Reverse(history.len()));
                let taught = fitted.predict(&self.features.of(&histories)?, calibrated)?.f_mul_scalar(factor)?;
                let found = router_logits(run, &histories)?.f_to_device(taught.device())?;
                off += apart(&found, &taught, allowed)?.f_double_value(&[])? * cases.len() as f64;
                all += apart(&taught, &taught.f_zeros_like()?, allowed)?.f_double_value(&[])? * cases.len() as f64;
            }
            Ok(1.0 - off / all.max(1e-12))
        })
    }
}

impl Fitted {
    /// The teachers' mean prediction, with the routes' means where those are not added later: [M, F] -> [M, routes]
    fn predict(&self, features: &Tensor, calibrated: bool) -> Result<Tensor, TchError> {
        let predictions =
            self.teachers.iter().map(|teacher| teacher.predict(features)).collect::<Result<Vec<_>, _>>()?;
        let mean = Tensor::f_stack(&predictions, 0)?.f_mean_dim([0_i64].as_slice(), false, Kind::Float)?;
        match calibrated {
            true => Ok(mean),
            false => mean.f_add(&self.deviations.means.f_div_scalar(self.deviations.scale)?.f_to_kind(Kind::Float)?),
        }
    }
}

/// Makes the router blind: every logit is zero, and the routes' means alone decide.
fn forget(run: &Run<'_>) -> Result<(), TchError> {
    tch::no_grad(|| {
        for name in ["router.head.weight", "router.head.bias"] {
            let _ = run.state.parameters.get(name)?.shallow_clone().f_zero_()?;
        }
        Ok(())
    })
}

fn deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().max(1) as f64).sqrt().max(1e-12)
}
