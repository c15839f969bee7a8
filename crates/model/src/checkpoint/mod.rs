//! Checkpoints: `models/<name>/<version>/`.
//!
//! | file | content |
//! |---|---|
//! | `canet.json` | the [`Manifest`]: format, configuration, data, metrics, cost, calibration, digests of the other files |
//! | `weights.safetensors` | float32 tensors named as in [`ModelConfig::parameters`], and int64 `popularity` [N+1] |
//! | `items.tsv` | the external id of item i on line i |
//! | `probes.safetensors` | the [`Probes`], which [`Model::open`] replays |
//! | `titles.tsv` | optional and without a digest: `id<TAB>title` lines; bad lines are skipped ([`TitlesFault`]) |
//!
//! The directory's name alone tells the version, so a version can be copied to another number. A writer renames the
//! complete directory into place, so a reader sees a whole version or none. A version that other programs copy file by
//! file may be seen half: reading it then fails with [`Fault::Incomplete`]. Every file is JSON, text or safetensors, so
//! reading a checkpoint never runs code.
//!
//! A model may also lie in an object store, its [`Origin`]. A [`ModelDirectory`] then holds copies of the versions that are read.
//!
//! [`Model::open`]: crate::Model::open
//! [`ModelConfig::parameters`]: crate::ModelConfig::parameters

mod calibration;
mod description;
mod directory;
mod draft;
mod error;
mod files;
mod items;
mod manifest;
mod mirror;
mod origin;
mod probes;
mod read;
mod staging;
mod versions;

pub use calibration::{BudgetPoint, Calibration, CalibrationError};
pub use description::Description;
pub use directory::{Listing, ModelDirectory};
pub use draft::CheckpointDraft;
pub use error::{CheckpointError, Fault, VERSION_NAMES};
pub use files::FILE_NAMES;
pub use items::TitlesFault;
pub use manifest::{
    DataRecord, FileRecord, FileRecords, FlopsRecord, Manifest, MetricsRecord, TrainingRecord, rfc3339,
};
pub use origin::{Origin, OriginError, OriginObject};
pub use probes::{Probes, ProbesError, ReplayError, Tolerance};
pub use read::{Checkpoint, MANIFEST_LIMIT};

pub(crate) use files::sha256_of;
