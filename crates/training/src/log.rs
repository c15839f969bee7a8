use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::TrainError;
use super::stage::Stage;
use super::state::EpochRecord;
use super::terms::Terms;
use canet_model::ModelConfig;
use canet_model::checkpoint::TrainingRecord;

/// One line of the run log.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// The run begins, or goes on after it was stopped.
    Start {
        /// Whether it goes on.
        resumed: bool,
        /// The stage, and the epoch in it, from which it goes.
        stage: Option<Stage>,
        /// From 0.
        epoch: u64,
        /// Steps of that epoch already done.
        step: u64,
        /// Where it runs.
        device: &'a str,
        /// Sizes and flags of the model.
        config: &'a ModelConfig,
        /// How it is trained, as the checkpoint will have it.
        #[serde(flatten)]
        training: &'a TrainingRecord,
        /// The time that it has in all, where that is limited.
        max_minutes: Option<f64>,
        /// Digest of the data file.
        data_sha256: &'a str,
    },
    /// A step that was picked to be logged.
    Step {
        /// The stage that it is of.
        stage: Stage,
        /// From 1.
        epoch: u64,
        /// Steps done in the epoch.
        step: u64,
        /// Learning rate.
        learning_rate: f64,
        /// Norm of the gradient before clipping.
        gradient_norm: f64,
        /// The loss.
        loss: &'a Terms,
    },
    /// An epoch ended.
    Epoch {
        /// What it came to.
        #[serde(flatten)]
        record: &'a EpochRecord,
        /// Items learnt from in a second of the epoch's steps: without validation, and without what a stopped process
        /// did of it.
        tokens_per_second: f64,
        /// Time spent in all.
        elapsed_seconds: f64,
    },
    /// Held-out utilities were fitted.
    Router {
        /// Positions that were measured on every route.
        cases: usize,
        /// The kind of utility whose predictions gained most.
        utility: &'a str,
        /// Share of its variance that is predicted for unseen users.
        explained: f64,
        /// How far predictions are believed.
        k: f64,
        /// Whether routes outside the static hull may be chosen.
        every_route: bool,
        /// NDCG@10 above the static mix of the same cost, of users without a part in the choice of the rule: in each fifth
        /// of them, of the rule that is best on the others.
        gain: f64,
        /// Its paired standard error over users.
        gain_se: Option<f64>,
    },
    /// The checkpoint's router learnt what was fitted.
    Taught {
        /// Lessons done.
        steps: u64,
        /// Lessons planned: more than were done where time ran out.
        of: u64,
        /// Share of the teachers' variance that it reproduces.
        learnt: f64,
    },
    /// The run ended with a checkpoint.
    Finish {
        /// Why its last stage ended, `epochs` or `patience`; or `max_minutes` where time cut any stage short.
        reason: &'a str,
        /// Time spent in all.
        elapsed_seconds: f64,
    },
}

/// The run log: JSON lines, flushed one by one.
pub(crate) struct RunLog {
    file: File,
    path: PathBuf,
}

impl RunLog {
    /// Opens the log and cuts it to `keep` bytes: what was logged after the state was saved is done again.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn open(path: &Path, keep: u64) -> Result<RunLog, TrainError> {
        let open = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            if file.metadata()?.len() > keep {
                file.set_len(keep)?;
            }
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        Ok(RunLog { file: open().map_err(|source| TrainError::io(path, source))?, path: path.to_owned() })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn write(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        let mut append = || -> std::io::Result<()> {
            let mut line = serde_json::to_vec(event)?;
            line.push(b'\n');
            self.file.write_all(&line)
        };
        append().map_err(|source| TrainError::io(&self.path, source))
    }

    /// Its length so far.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn bytes(&self) -> Result<u64, TrainError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|source| TrainError::io(&self.path, source))
    }
}
