use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::TrainError;
use super::objective::Terms;
use super::state::EpochRecord;

/// One line of the run log.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    /// The run begins, or goes on after it was stopped.
    Start {
        /// Whether it goes on.
        resumed: bool,
        /// Epoch and step within it from which it goes.
        epoch: u64,
        /// Steps of that epoch already done.
        step: u64,
        /// Windows an epoch.
        windows: usize,
        /// Where it runs.
        device: &'a str,
    },
    /// A step that was picked to be logged.
    Step {
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
        /// Time spent in all.
        elapsed_seconds: f64,
    },
    /// The run ended with a checkpoint.
    Finish {
        /// Why: `epochs`, `patience` or `max_minutes`.
        reason: &'a str,
        /// The epoch whose weights the checkpoint holds, from 1; 0 where none ended.
        best_epoch: u64,
        /// Time spent in all.
        elapsed_seconds: f64,
    },
}

/// The run log: JSON lines, flushed one by one.
pub(super) struct RunLog {
    file: File,
    path: PathBuf,
}

impl RunLog {
    /// Opens the log and cuts it to `keep` bytes: what was logged after the state was saved is done again.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(super) fn open(path: &Path, keep: u64) -> Result<RunLog, TrainError> {
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
    pub(super) fn write(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
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
    pub(super) fn bytes(&self) -> Result<u64, TrainError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|source| TrainError::io(&self.path, source))
    }
}
