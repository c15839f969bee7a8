use std::time::Duration;

use canet_data::{Dataset, Split};

use crate::distillation_plan;
use crate::holdout::Holdout;
use crate::job::TrainJob;
use crate::samples::Samples;
use crate::stage::Stage;
use crate::state::Progress;
use crate::validation::{SCORED_SLICES, scored_users};

/// The work of a stage, or what is left of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    /// Steps that train the weights.
    pub steps: f64,
    /// Rankings of the catalogue, one for each user and slice.
    pub rankings: f64,
    /// Steps that train the router on predictions.
    pub distillations: f64,
}

/// Predicts how long the rest of a training takes, from the work that is left and from how long this process took for
/// such work.
///
/// A stage may end early, because validation improves no more or its time is over. So the prediction is an upper bound,
/// apart from work that is too short to count, such as the fit of the predictors.
pub(crate) struct Forecast {
    /// The work of each stage of the preset, in order, and of an epoch of it.
    stages: Vec<StageWork>,
    /// The measurement of the finished model.
    finish: Work,
    steps: Rate,
    rankings: Rate,
    distillations: Rate,
}

/// The work of one stage.
#[derive(Clone, Copy, Debug, Default)]
struct StageWork {
    epochs: u64,
    /// Steps of an epoch.
    steps: u64,
    /// Of an epoch.
    rankings: f64,
    /// Of the stage as a whole, beside its epochs.
    whole: Work,
}

/// Units of work done, and the time for them.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    seconds: f64,
    units: f64,
}

impl Rate {
    fn add(&mut self, units: f64, took: Duration) {
        self.seconds += took.as_secs_f64();
        self.units += units;
    }

    /// Seconds a unit, if any was done.
    fn seconds(self) -> Option<f64> {
        (self.units > 0.0).then(|| self.seconds / self.units)
    }
}

/// A step of distillation takes about this share of a training step, until one was timed.
const DISTILLATION_SHARE: f64 = 0.5;

/// Rankings of each user and split in the measurement of a finished model, about: the routed model, the full and the smallest
/// slice, and random routes.
const MEASURED_SLICES: usize = 6;

/// The longest predicted time: a century.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Forecast {
    /// The forecast of a job, before any work.
    pub(crate) fn new(job: &TrainJob<'_>, routes: usize, holdout: &Holdout<'_>) -> Forecast {
        let validated = job.dataset.cases(Split::Validation).len();
        let work = |stage: &Stage| match stage {
            Stage::Router => StageWork { whole: router_work(job, routes, holdout), ..StageWork::default() },
            stage => StageWork {
                epochs: job.options.stage_epochs(*stage),
                steps: samples(job, *stage, holdout).steps(),
                rankings: match stage {
                    Stage::Newest => 0.0,
                    Stage::Supernet => (SCORED_SLICES.min(routes) * scored_users(validated)) as f64,
                    _ => validated as f64,
                },
                whole: Work::default(),
            },
        };
        Forecast {
            stages: job.options.preset.stages().iter().map(work).collect(),
            finish: Work { rankings: (2 * MEASURED_SLICES.min(routes) * validated) as f64, ..Work::default() },
            steps: Rate::default(),
            rankings: Rate::default(),
            distillations: Rate::default(),
        }
    }

    /// A training step took this long.
    pub(crate) fn stepped(&mut self, took: Duration) {
        self.steps.add(1.0, took);
    }

    /// Rankings took this long.
    pub(crate) fn ranked(&mut self, rankings: usize, took: Duration) {
        self.rankings.add(rankings as f64, took);
    }

    /// A step of distillation took this long.
    pub(crate) fn distilled(&mut self, took: Duration) {
        self.distillations.add(1.0, took);
    }

    /// The time for the rest of the training, or `None` before there is anything to judge by. `done` is the work of the
    /// current stage that its epochs do not count.
    pub(crate) fn left(&self, progress: &Progress, done: Work) -> Option<Duration> {
        // A model is measured once, before the stage `newest` if there is one.
        let mut left = if progress.measured.is_some() { Work::default() } else { self.finish };
        for (place, stage) in self.stages.iter().enumerate().skip(progress.stage) {
            let (mut epochs, mut steps, mut of_stage) = (stage.epochs, 0, Work::default());
            if place == progress.stage {
                epochs = epochs.saturating_sub(progress.epoch);
                steps = progress.step;
                of_stage = done;
            }
            left.steps += (epochs as f64 * stage.steps as f64 - steps as f64).max(0.0);
            left.rankings += epochs as f64 * stage.rankings + (stage.whole.rankings - of_stage.rankings).max(0.0);
            left.distillations += (stage.whole.distillations - of_stage.distillations).max(0.0);
        }
        self.time(left)
    }

    fn time(&self, work: Work) -> Option<Duration> {
        let step = self.steps.seconds();
        let distillation = self.distillations.seconds().or(step.map(|step| DISTILLATION_SHARE * step));
        let parts = [(work.steps, step), (work.rankings, self.rankings.seconds()), (work.distillations, distillation)];
        let mut seconds = 0.0;
        for (units, each) in parts {
            if units > 0.0 {
                seconds += units * each?;
            }
        }
        Some(Duration::try_from_secs_f64(seconds).map_or(LONGEST, |left| left.min(LONGEST)))
    }
}

/// The samples of a stage that trains the weights.
pub(crate) fn samples<'a>(job: &TrainJob<'a>, stage: Stage, holdout: &Holdout<'a>) -> Samples<'a> {
    let dataset: &'a Dataset = job.dataset;
    let sequences = match stage {
        Stage::Supernet => holdout.training.clone(),
        Stage::Newest => dataset.whole_sequences(),
        _ => dataset.training_sequences(),
    };
    Samples::new(sequences, job.options.samples, job.config.window(), job.options.batch_size)
}

fn router_work(job: &TrainJob<'_>, routes: usize, holdout: &Holdout<'_>) -> Work {
    if routes == 1 {
        return Work::default();
    }
    let sequences = job.dataset.training_sequences().iter().filter(|sequence| !sequence.is_empty()).count();
    Work {
        rankings: (holdout.cases.len() * routes) as f64,
        distillations: distillation_plan::steps(sequences) as f64,
        ..Work::default()
    }
}

#[cfg(test)]
mod tests {
    use canet_model::checkpoint::{Calibration, MetricsRecord};

    use super::*;
    use crate::records::Measurement;

    const SECOND: Duration = Duration::from_secs(1);

    /// 3 epochs of 10 steps and 20 rankings; a router of 100 rankings and 50 distillations; 2 epochs of 12 steps and 5
    /// rankings; 30 rankings at the end.
    fn forecast() -> Forecast {
        let epochs = |epochs, steps, rankings| StageWork { epochs, steps, rankings, whole: Work::default() };
        let router = Work { rankings: 100.0, distillations: 50.0, ..Work::default() };
        Forecast {
            stages: vec![epochs(3, 10, 20.0), StageWork { whole: router, ..StageWork::default() }, epochs(2, 12, 5.0)],
            finish: Work { rankings: 30.0, ..Work::default() },
            steps: Rate::default(),
            rankings: Rate::default(),
            distillations: Rate::default(),
        }
    }

    fn left(forecast: &Forecast, place: (usize, u64, u64), done: Work) -> Option<f64> {
        let progress = Progress { stage: place.0, epoch: place.1, step: place.2, ..Progress::for_tests() };
        forecast.left(&progress, done).map(|left| left.as_secs_f64())
    }

    #[test]
    fn the_rest_of_all_stages_counts() {
        let mut forecast = forecast();
        assert_eq!(left(&forecast, (0, 1, 0), Work::default()), None);
        forecast.stepped(2 * SECOND);
        assert_eq!(left(&forecast, (0, 1, 0), Work::default()), None);
        forecast.ranked(20, 10 * SECOND);
        // 20 + 24 steps of 2 s, 40 + 100 + 10 + 30 rankings of .5 s, 50 distillations of 1 s.
        assert_eq!(left(&forecast, (0, 1, 0), Work::default()), Some(88.0 + 90.0 + 50.0));
        // Four steps later.
        assert_eq!(left(&forecast, (0, 1, 4), Work::default()), Some(80.0 + 90.0 + 50.0));
        let done = Work { rankings: 100.0, distillations: 10.0, ..Work::default() };
        assert_eq!(left(&forecast, (1, 0, 0), done), Some(48.0 + 20.0 + 40.0));
        forecast.distilled(3 * SECOND);
        assert_eq!(left(&forecast, (1, 0, 0), done), Some(48.0 + 20.0 + 120.0));
        assert_eq!(left(&forecast, (2, 2, 0), Work::default()), Some(15.0));
        assert_eq!(left(&forecast, (3, 0, 0), Work::default()), Some(15.0));
    }

    #[test]
    fn a_measured_model_is_not_measured_again() {
        let mut forecast = forecast();
        forecast.stepped(2 * SECOND);
        let measured = Measurement {
            calibration: Calibration { points: Vec::new() },
            metrics: MetricsRecord::default(),
            verdict: None,
        };
        let progress = Progress { stage: 3, measured: Some(measured), ..Progress::for_tests() };
        assert_eq!(forecast.left(&progress, Work::default()), Some(Duration::ZERO));
    }

    #[test]
    fn endless_epochs_do_not_overflow() {
        let mut forecast = forecast();
        forecast.stages[0].epochs = u64::MAX;
        forecast.stepped(SECOND);
        forecast.ranked(1, SECOND);
        assert_eq!(left(&forecast, (0, 0, 0), Work::default()), Some(LONGEST.as_secs_f64()));
    }
}
