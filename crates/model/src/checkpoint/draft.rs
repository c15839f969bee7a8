use std::fs;
use std::path::Path;
use std::time::SystemTime;

use canet_domain::{Catalogue, RouteSpace};

use super::files::{ITEMS, MANIFEST, PROBES, TITLES, WEIGHTS};
use super::read::{MANIFEST_LIMIT, POPULARITY};
use super::staging::Staging;
use super::{
    Calibration, Checkpoint, CheckpointError, DataRecord, FileRecord, FileRecords, FlopsRecord, Manifest,
    MetricsRecord, ModelDirectory, Probes, TrainingRecord, files, items, rfc3339,
};
use crate::{ModelConfig, TensorToWrite, Weights, write_tensors};

/// The content of a version that is not written yet.
#[derive(Clone, Debug)]
pub struct CheckpointDraft {
    /// Sizes and flags.
    pub config: ModelConfig,
    /// The weights of `config`.
    pub weights: Weights,
    /// As many items as `config` has.
    pub catalogue: Catalogue,
    /// Answers recorded with these weights.
    pub probes: Probes,
    /// The data behind the weights.
    pub data: DataRecord,
    /// Measured quality.
    pub metrics: MetricsRecord,
    /// Calibrated budgets, if any.
    pub calibration: Option<Calibration>,
    /// The training, if it is known.
    pub training: Option<TrainingRecord>,
    /// Whether a request that does not say leaves out the items of its own history.
    pub exclude_seen: bool,
}

impl CheckpointDraft {
    /// Writes the next version of the model at `root` (`models/NAME`, created if missing), and reads it back with every
    /// check.
    ///
    /// # Errors
    /// [`CheckpointError`] if the parts do not fit together or the file system refuses.
    pub fn write(self, root: &Path) -> Result<Checkpoint, CheckpointError> {
        let version = self.publish(root)?;
        ModelDirectory::open(root)?.load(Some(version))
    }

    /// Writes the next version of the model at `root`, without reading it back, and returns its number.
    ///
    /// The files are written to a hidden directory, synced and renamed. Another process therefore sees the whole version
    /// or none. Concurrent writers get different numbers.
    ///
    /// # Errors
    /// [`CheckpointError`] if the parts do not fit together or the file system refuses.
    pub fn publish(self, root: &Path) -> Result<u64, CheckpointError> {
        let space = self.check(root)?;
        let directory = ModelDirectory::create(root)?;
        let staging = Staging::new(directory.path())?;
        let files = self.write_files(&staging)?;
        let manifest = Manifest {
            format: Manifest::FORMAT,
            created: rfc3339(SystemTime::now()),
            flops: FlopsRecord::of(&self.config, &space),
            config: self.config,
            data: self.data,
            metrics: self.metrics,
            calibration: self.calibration,
            training: self.training,
            exclude_seen: self.exclude_seen,
            files,
        };
        let path = staging.file(MANIFEST);
        let mut text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| CheckpointError::io(&path, "write")(error.into()))?;
        text.push('\n');
        write_text(&path, &text, MANIFEST_LIMIT)?;
        staging.publish()
    }

    fn check(&self, root: &Path) -> Result<RouteSpace, CheckpointError> {
        let path = root.join(MANIFEST);
        let space = self.config.check().map_err(|source| CheckpointError::Config { path: path.clone(), source })?;
        if let Some(metric) = self.metrics.not_finite() {
            return Err(CheckpointError::Metric { path, metric });
        }
        if let Some(calibration) = &self.calibration {
            calibration.check(&space).map_err(|source| CheckpointError::Calibration { path, source })?;
        }
        let (found, expected) = (self.catalogue.len(), self.config.items);
        if found != expected {
            return Err(CheckpointError::ItemCount { path: root.join(ITEMS), found, expected });
        }
        self.weights
            .check(&self.config)
            .map_err(|source| CheckpointError::Weights { path: root.join(WEIGHTS), source })?;
        self.probes
            .check(&self.config, &space)
            .map_err(|source| CheckpointError::Probes { path: root.join(PROBES), source })?;
        Ok(space)
    }

    fn write_files(&self, staging: &Staging<'_>) -> Result<FileRecords, CheckpointError> {
        let path = staging.file(WEIGHTS);
        let padding = 0;
        let counts: Vec<i64> = [padding]
            .into_iter()
            .chain(self.catalogue.popularity().iter().map(|count| i64::try_from(*count).unwrap_or(i64::MAX)))
            .collect();
        let mut tensors = vec![(POPULARITY, TensorToWrite::integers(vec![counts.len()], &counts))];
        for (name, tensor) in self.weights.iter() {
            tensors.push((name, TensorToWrite::floats(tensor.shape.clone(), &tensor.data)));
        }
        write_tensors(&path, tensors, None).map_err(CheckpointError::tensors(&path))?;
        let weights = FileRecord { sha256: files::sync_and_digest(&path)? };
        let items =
            write_text(&staging.file(ITEMS), &items::format_ids(&self.catalogue), items::ids_limit(self.config.items))?;
        let path = staging.file(PROBES);
        self.probes.write(&path, &self.config).map_err(CheckpointError::tensors(&path))?;
        let probes = FileRecord { sha256: files::sync_and_digest(&path)? };
        if let Some(titles) = items::format_titles(&self.catalogue) {
            write_text(&staging.file(TITLES), &titles, items::titles_limit(self.config.items))?;
        }
        Ok(FileRecords { weights, items, probes })
    }
}

/// Writes a text that a reader will accept: one within the limit.
fn write_text(path: &Path, text: &str, limit: u64) -> Result<FileRecord, CheckpointError> {
    let size = text.len() as u64;
    if size > limit {
        return Err(CheckpointError::TooLarge { path: path.to_owned(), size, limit });
    }
    fs::write(path, text).map_err(CheckpointError::io(path, "write"))?;
    Ok(FileRecord { sha256: files::sync_and_digest(path)? })
}
