use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use canet_model::ModelConfig;
use canet_model::checkpoint::TrainingRecord;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::records::EpochRecord;
use crate::stage::Stage;
use crate::step_loss::LossValues;

/// One line of the run log.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// A process started or resumed the training.
    Start {
        resumed: bool,
        /// The first stage of this process, `None` if all are done.
        stage: Option<Stage>,
        /// The first epoch of this process, from 0.
        epoch: u64,
        /// Steps of that epoch that are already done.
        step: u64,
        device: &'a str,
        config: &'a ModelConfig,
        /// The options, as the checkpoint records them.
        #[serde(flatten)]
        training: &'a TrainingRecord,
        /// Time for all stages, if it is limited.
        max_minutes: Option<f64>,
        /// SHA-256 of the data file.
        data_sha256: &'a str,
        /// Of what was understood of the data.
        parsed_sha256: &'a str,
    },
    /// A step. Only some steps are logged.
    Step {
        stage: Stage,
        /// Number of the epoch, from 1.
        epoch: u64,
        /// Number of the step in its epoch, from 1.
        step: u64,
        learning_rate: f64,
        /// Norm of the gradient before clipping.
        gradient_norm: f64,
        loss: &'a LossValues,
    },
    /// An epoch ended.
    Epoch {
        #[serde(flatten)]
        record: &'a EpochRecord,
        /// Items that the epoch's steps trained on per second. Validation and steps of an earlier process do not count.
        tokens_per_second: f64,
        /// Seconds of training so far.
        elapsed_seconds: f64,
    },
    /// The stage `router` learned to predict the utilities of held-out cases.
    Router {
        /// Number of cases.
        cases: usize,
        /// The measure of utility whose predictions gained most.
        utility: &'a str,
        /// Share of its variance that is predicted for users outside the fit.
        explained: f64,
        /// Factor of the predictions in the choice of routes.
        k: f64,
        /// Whether routes outside the static hull may be chosen.
        every_route: bool,
        /// Gain in NDCG@10 over the static mixture of the same cost. Each fold of users is routed by the rule that is
        /// best on the other folds.
        gain: f64,
        /// Paired standard error of the gain over users.
        gain_se: Option<f64>,
    },
    /// The checkpoint's router learned these predictions.
    Taught {
        /// Steps done.
        steps: u64,
        /// Steps planned. Fewer are done if time runs out.
        of: u64,
        /// Share of the predictions' variance that the router reproduces.
        learnt: f64,
    },
    /// The time limit ended a stage.
    CutShort {
        stage: Stage,
        /// Its finished epochs; 0 in the stage `router`, which has none.
        epochs: u64,
        /// The epochs that it would have had, at most.
        of: u64,
        /// Steps of an unfinished epoch.
        steps: u64,
    },
    /// The training wrote a checkpoint.
    Finish {
        reason: FinishReason,
        /// Seconds of training.
        elapsed_seconds: f64,
    },
}

/// Why a training finished: how its last stage ended, unless time cut a stage short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinishReason {
    /// All epochs of the last stage are done.
    Epochs,
    /// The validation score of the last stage improved no more.
    Patience,
    /// The time limit cut a stage short, however the later stages ended.
    MaxMinutes,
}

/// The run log: JSON lines, written one by one.
pub(crate) struct RunLog {
    file: File,
    path: PathBuf,
}

impl RunLog {
    /// Opens the log and truncates it to `keep` bytes. What was logged after the last save will be logged again.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn open(path: &Path, keep: u64) -> Result<RunLog, TrainError> {
        let open = || -> io::Result<File> {
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
        let mut append = || -> io::Result<()> {
            let mut line = serde_json::to_vec(event)?;
            line.push(b'\n');
            self.file.write_all(&line)
        };
        append().map_err(|source| TrainError::io(&self.path, source))
    }

    /// Length of the log in bytes.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(crate) fn bytes(&self) -> Result<u64, TrainError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|source| TrainError::io(&self.path, source))
    }
}
