//! Checkpoints: `models/<name>/<version>/`, written aside and renamed, read with every check.
//!
//! | file | holds |
//! |---|---|
//! | `canet.json` | the [`Manifest`]: format, configuration, data, metrics, cost, calibration, digests of the others |
//! | `weights.safetensors` | float32 tensors named as [`ModelConfig::parameters`], and int64 `popularity` [N+1] |
//! | `items.tsv` | line i is the external id of item i |
//! | `probes.safetensors` | the [`Probes`], replayed where the checkpoint is loaded |
//! | `titles.tsv` | optional and outside the digests: `id<TAB>title` lines |
//!
//! The version is the directory's name alone, so a version can be copied to another number. safetensors and JSON
//! only: nothing here can run code.

mod calibration;
mod directory;
mod draft;
mod error;
mod files;
mod items;
mod manifest;
mod probe_file;
mod probes;
mod read;
mod replay;
mod staging;
mod tensors;
mod timestamp;

pub use calibration::{BudgetPoint, Calibration, CalibrationError};
pub use directory::ModelDirectory;
pub use draft::CheckpointDraft;
pub use error::CheckpointError;
pub use manifest::{DataRecord, FileRecord, FileRecords, FlopsRecord, Manifest, MetricsRecord, TrainingRecord};
pub use probes::{Probes, ProbesError};
pub use replay::{ProbeError, Tolerance};
pub use tensors::TensorsError;
pub use timestamp::rfc3339;

pub(crate) use files::sha256_of;

use super::{ModelConfig, Weights};
use canet_domain::{Catalogue, RouteSpace};

const MANIFEST: &str = "canet.json";
const WEIGHTS: &str = "weights.safetensors";
const ITEMS: &str = "items.tsv";
const PROBES: &str = "probes.safetensors";
const TITLES: &str = "titles.tsv";

/// A version that was read and passed every check but its probes, which need a device:
/// [`Probes::replay`] belongs right after the weights are loaded there.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The model's name: its directory's.
    pub name: String,
    /// The version: its directory's name.
    pub version: u64,
    /// SHA-256 of `canet.json`, which holds those of every other file but the titles.
    pub digest: String,
    /// What `canet.json` says.
    pub manifest: Manifest,
    /// The configuration, as in the manifest.
    pub config: ModelConfig,
    /// The routes of `config`.
    pub space: RouteSpace,
    /// Every weight of `config`, finite.
    pub weights: Weights,
    /// Ids, titles and popularity of the N items.
    pub catalogue: Catalogue,
    /// Recorded answers.
    pub probes: Probes,
}
