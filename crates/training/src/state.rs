use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::job::TrainJob;
use super::measured::Measured;
use super::optimizer::AdamW;
use super::options::TrainOptions;
use super::parameters::Parameters;
use super::router::{Routing, Utilities};
use super::stage::Stage;
use super::terms::Terms;
use super::validation::Scored;
use canet_model::{ModelConfig, Weights};
use canet_torch::tch_device;

/// Where an unfinished run stands; with the tensors beside it, all that resuming needs.
///
/// Random draws need no state: they are seeded by step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// What is trained.
    pub config: ModelConfig,
    /// How it is trained.
    pub options: TrainOptions,
    /// Digest of the data file.
    pub data_sha256: String,
    /// The preset's stage under way, from 0.
    pub stage: usize,
    /// Seconds of the run at which it began.
    pub stage_began: f64,
    /// The epoch under way in it, from 0.
    pub epoch: u64,
    /// Steps done in that.
    pub step: u64,
    /// Sums over those steps.
    pub sums: Terms,
    /// Optimizer steps of the stage.
    pub optimizer_steps: u64,
    /// Time spent so far.
    pub elapsed_seconds: f64,
    /// The finished epochs.
    pub curve: Vec<EpochRecord>,
    /// What the router's stage came to.
    pub routing: Option<Routing>,
    /// What the weights came to before they began to learn what measures them.
    #[serde(default)]
    pub measured: Option<Measured>,
    /// Length of the run log at this point; what was logged later was not saved and is done again.
    pub log_bytes: u64,
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    /// The stage that it is of.
    pub stage: Stage,
    /// From 1.
    pub epoch: u64,
    /// Mean loss over its steps.
    pub train: Terms,
    /// On the validation users; of a stage that learns what they did, nothing.
    #[serde(flatten)]
    pub scored: Option<Scored>,
}

impl Progress {
    /// In what this run differs from a job, which may then not go on with it.
    pub(crate) fn differs_in(&self, job: &TrainJob<'_>) -> Option<&'static str> {
        if self.config != job.config {
            Some("model sizes")
        } else if !job.options.continues(&self.options, self.begun()) {
            Some("training options")
        } else if self.data_sha256 != job.dataset.sha256 {
            Some("data")
        } else {
            None
        }
    }

    /// The stages of which something is done.
    fn begun(&self) -> &'static [Stage] {
        let stages = self.options.preset.stages();
        let fitted = self.routing.is_some() && stages.get(self.stage) == Some(&Stage::Router);
        let under_way = self.epoch > 0 || self.step > 0 || fitted;
        &stages[..stages.len().min(self.stage + usize::from(under_way))]
    }

    /// Seed of the stage under way.
    pub(crate) fn stage_seed(&self) -> u64 {
        place_seed(self.options.seed, [self.stage as u64, u64::MAX])
    }

    /// Seed of the step that comes next. A step that is skipped counts here and not in the optimizer.
    pub(crate) fn step_seed(&self) -> u64 {
        place_seed(self.stage_seed(), [self.epoch, self.step])
    }

    /// The best finished epoch of a stage, where they are scored, and its score: the highest validation NDCG@10, the
    /// earlier of two equals.
    pub(crate) fn best(&self, stage: Stage) -> Option<(u64, f64)> {
        let records = self.curve.iter().filter(|record| record.stage == stage);
        let scored = records.filter_map(|record| Some((record.epoch, record.scored?.ndcg)));
        scored.reduce(|best, epoch| if epoch.1 > best.1 { epoch } else { best })
    }
}

/// Everything that a run changes.
pub(crate) struct RunState {
    /// Where it stands.
    pub progress: Progress,
    /// Current weights.
    pub parameters: Parameters,
    /// Current moments.
    pub optimizer: AdamW,
    /// Weights of the stage's best epoch so far.
    pub best: Weights,
    /// What the slices were worth to held-out users, as far as it is known.
    pub utilities: Utilities,
}

impl RunState {
    /// The start of a job: fresh weights, nothing done.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub(crate) fn fresh(job: &TrainJob<'_>) -> Result<RunState, TrainError> {
        tch::manual_seed(place_seed(job.options.seed, [u64::MAX, 0]) as i64);
        let parameters =
            Parameters::fresh(&job.config, job.options.preset.recipe(), job.options.tied, tch_device(job.device))?;
        let optimizer = AdamW::new(job.options.optimizer, &parameters)?;
        let progress = Progress {
            config: job.config.clone(),
            options: job.options.clone(),
            data_sha256: job.dataset.sha256.clone(),
            stage: 0,
            stage_began: 0.0,
            epoch: 0,
            step: 0,
            sums: Terms::default(),
            optimizer_steps: 0,
            elapsed_seconds: 0.0,
            curve: Vec::new(),
            routing: None,
            measured: None,
            log_bytes: 0,
        };
        Ok(RunState { progress, parameters, optimizer, best: Weights::default(), utilities: Utilities::default() })
    }
}

/// A seed for one place of a run, by SplitMix64's mixing function.
pub(crate) fn place_seed(seed: u64, place: [u64; 2]) -> u64 {
    place.iter().fold(seed, |state, part| {
        let mut bits = (state ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}
