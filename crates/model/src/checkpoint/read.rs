use std::io;
use std::path::Path;

use canet_domain::{Catalogue, RouteSpace};
use safetensors::Dtype;
use serde::Deserialize;

use super::files::{ITEMS, MANIFEST, PROBES, TITLES, WEIGHTS};
use super::items::Title;
use super::{CheckpointError, Description, FileRecord, Manifest, Probes, TitlesFault, files, items};
use crate::tensor_file::{TensorFile, TensorSpec, size_limit};
use crate::{HostTensor, ModelConfig, Weights, json};

/// A version that passed every check except its probes, which need a device. [`Model::open`](crate::Model::open) replays
/// them.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The model's name, which is that of its directory.
    pub name: String,
    /// The version, which is its directory's name.
    pub version: u64,
    /// SHA-256 of `canet.json`, which holds the digest of every other file but the titles.
    pub digest: String,
    /// The content of `canet.json`.
    pub manifest: Manifest,
    /// The configuration, as in the manifest.
    pub config: ModelConfig,
    /// The routes of `config`.
    pub space: RouteSpace,
    /// Every weight of `config`. All values are finite.
    pub weights: Weights,
    /// Ids, titles and popularity of the N items.
    pub catalogue: Catalogue,
    /// Why titles are missing from the catalogue, if some are.
    pub titles_fault: Option<TitlesFault>,
    /// Recorded answers.
    pub probes: Probes,
}

impl Checkpoint {
    /// The checkpoint without its weights, for programs.
    pub fn description(&self) -> Description<'_> {
        let Checkpoint { name, version, digest, manifest, space, .. } = self;
        Description { name, version: *version, digest, manifest, space }
    }
}

/// Limit on the size of a manifest in bytes. A calibration of 20 points for 1,024 routes takes 300 KB. Parsed, a hostile one takes a
/// hundred times its size.
pub const MANIFEST_LIMIT: u64 = 2 << 20;

/// Reads the version in `directory`. It checks each file before it parses the next.
pub(super) fn read(name: &str, version: u64, directory: &Path) -> Result<Checkpoint, CheckpointError> {
    let path = directory.join(MANIFEST);
    let bytes = files::read_bounded(&path, MANIFEST_LIMIT)?;
    let manifest = parse_manifest(&path, &bytes)?;
    let config = manifest.config.clone();
    let space = config.check().map_err(|source| CheckpointError::Config { path: path.clone(), source })?;
    if let Some(calibration) = &manifest.calibration {
        calibration.check(&space).map_err(|source| CheckpointError::Calibration { path: path.clone(), source })?;
    }
    let (weights, popularity) = read_weights(&directory.join(WEIGHTS), &manifest.files.weights.sha256, &config)?;
    let (catalogue, titles_fault) = read_catalogue(directory, &manifest.files.items.sha256, &config, popularity)?;
    let path = directory.join(PROBES);
    let mut file = open_tensors(&path, &manifest.files.probes.sha256, Probes::file_limit(&config))?;
    let probes = Probes::read(&mut file, &config, &space).map_err(|source| CheckpointError::Probes { path, source })?;
    let (name, digest) = (name.to_owned(), files::sha256_hex(&bytes));
    Ok(Checkpoint { name, version, digest, manifest, config, space, weights, catalogue, titles_fault, probes })
}

/// Reads the manifest of the version in `directory`, and no other file.
pub(super) fn manifest(directory: &Path) -> Result<Manifest, CheckpointError> {
    let path = directory.join(MANIFEST);
    parse_manifest(&path, &files::read_bounded(&path, MANIFEST_LIMIT)?)
}

/// Whether every file of the version in `directory` has the digest of its manifest.
pub(super) fn is_complete(directory: &Path) -> Result<bool, CheckpointError> {
    let manifest = manifest(directory)?;
    for ExpectedFile { name, sha256, limit } in expected_files(&directory.join(MANIFEST), &manifest)? {
        let path = directory.join(name);
        let is_complete = match name {
            ITEMS => files::has_digest(&path, sha256, limit)?,
            _ => files::is_whole(&path, sha256, limit)?,
        };
        if !is_complete {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a manifest says of another file.
pub(super) struct ExpectedFile<'a> {
    pub(super) name: &'static str,
    pub(super) sha256: &'a str,
    /// The most bytes that the configuration allows.
    pub(super) limit: u64,
}

/// Every file with a digest in the manifest at `path`. The weights come last, because they are the largest.
pub(super) fn expected_files<'a>(
    path: &Path,
    manifest: &'a Manifest,
) -> Result<[ExpectedFile<'a>; 3], CheckpointError> {
    let Manifest { config, files, .. } = manifest;
    config.check().map_err(|source| CheckpointError::Config { path: path.to_owned(), source })?;
    let file = |name, record: &'a FileRecord, limit| ExpectedFile { name, sha256: &record.sha256, limit };
    Ok([
        file(ITEMS, &files.items, items::ids_limit(config.items)),
        file(PROBES, &files.probes, Probes::file_limit(config)),
        file(WEIGHTS, &files.weights, size_limit(&weight_specs(config))),
    ])
}

/// Checks the format first: another format has other fields, and its number explains more than they do.
pub(super) fn parse_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, CheckpointError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let invalid = |source| CheckpointError::Manifest { path: path.to_owned(), source };
    let Format { format } = json::parse(bytes).map_err(invalid)?;
    if format != Manifest::FORMAT {
        return Err(CheckpointError::Format { path: path.to_owned(), found: format });
    }
    json::parse(bytes).map_err(invalid)
}

fn open_tensors(path: &Path, sha256: &str, limit: u64) -> Result<TensorFile, CheckpointError> {
    let file = files::open_verified(path, sha256, limit)?;
    TensorFile::open(file).map_err(CheckpointError::tensors(path))
}

fn read_weights(path: &Path, sha256: &str, config: &ModelConfig) -> Result<(Weights, Vec<u64>), CheckpointError> {
    let invalid = || CheckpointError::tensors(path);
    let specs = weight_specs(config);
    let mut file = open_tensors(path, sha256, size_limit(&specs))?;
    file.check(&specs).map_err(invalid())?;
    let mut weights = Weights::default();
    for spec in specs.into_iter().filter(|spec| spec.dtype == Dtype::F32) {
        let data = file.floats(&spec.name).map_err(invalid())?;
        weights.insert(spec.name, HostTensor { shape: spec.shape, data });
    }
    weights.check(config).map_err(|source| CheckpointError::Weights { path: path.to_owned(), source })?;
    let counts = file.integers(POPULARITY).map_err(invalid())?;
    let is_invalid = |(place, count): (usize, &i64)| *count < 0 || (place == 0 && *count != 0);
    if let Some(place) = counts.iter().enumerate().position(is_invalid) {
        return Err(CheckpointError::Popularity { path: path.to_owned(), place, value: counts[place] });
    }
    Ok((weights, counts.iter().skip(1).map(|count| count.unsigned_abs()).collect()))
}

/// The name of the interaction counts in the weights' file.
pub(super) const POPULARITY: &str = "popularity";

/// The tensors of a configuration's `weights.safetensors`.
fn weight_specs(config: &ModelConfig) -> Vec<TensorSpec> {
    let weights = config.parameters().into_iter().map(|parameter| TensorSpec {
        name: parameter.name,
        dtype: Dtype::F32,
        shape: parameter.shape,
    });
    let popularity = TensorSpec { name: POPULARITY.to_owned(), dtype: Dtype::I64, shape: vec![config.items + 1] };
    weights.chain([popularity]).collect()
}

fn read_catalogue(
    directory: &Path,
    sha256: &str,
    config: &ModelConfig,
    popularity: Vec<u64>,
) -> Result<(Catalogue, Option<TitlesFault>), CheckpointError> {
    let path = directory.join(ITEMS);
    let ends_early = |bytes: &[u8]| items::ends_early(bytes, config.items);
    let bytes = files::read_verified(&path, sha256, items::ids_limit(config.items), ends_early)?;
    let ids = items::parse_ids(&path, bytes, config.items)?;
    let catalogue = Catalogue::new(ids, popularity).map_err(|source| CheckpointError::Catalogue { path, source })?;
    let (titles, fault) = read_titles(&directory.join(TITLES), config.items);
    Ok((catalogue.with_titles(titles), fault))
}

/// Titles are for people and have no digest. So whatever is wrong with their file, the model opens.
fn read_titles(path: &Path, items: usize) -> (Vec<Title>, Option<TitlesFault>) {
    let bytes = match path.symlink_metadata() {
        Ok(_) => files::read_bounded(path, items::titles_limit(items)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), None),
        Err(error) => Err(CheckpointError::io(path, "read")(error)),
    };
    match bytes {
        Ok(bytes) => items::parse_titles(path, &bytes),
        Err(error) => (Vec::new(), Some(TitlesFault::File(error.to_string()))),
    }
}
