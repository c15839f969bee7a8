use std::io;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;

use super::tensors::{Slot, TensorFile, size_limit};
use super::{
    Checkpoint, CheckpointError, ITEMS, MANIFEST, Manifest, PROBES, TITLES, WEIGHTS, files, items, probe_file,
};
use crate::{HostTensor, ModelConfig, Weights};
use canet_domain::Catalogue;

/// Far above any manifest: a calibration of 20 points for 1,024 routes takes 300 KB.
pub(super) const MANIFEST_LIMIT: u64 = 16 << 20;

/// Reads the version in `directory`, checking each file before anything is made of it.
pub(super) fn read(name: &str, version: u64, directory: &Path) -> Result<Checkpoint, CheckpointError> {
    let path = directory.join(MANIFEST);
    let bytes = files::read_bounded(&path, MANIFEST_LIMIT)?;
    let manifest = parse_manifest(&path, &bytes)?;
    let config = manifest.config.clone();
    let space = config.check().map_err(|source| CheckpointError::Config { path: path.clone(), source })?;
    if let Some(calibration) = &manifest.calibration {
        calibration.check(space.len()).map_err(|source| CheckpointError::Calibration { path: path.clone(), source })?;
    }
    let (weights, popularity) = read_weights(&directory.join(WEIGHTS), &manifest.files.weights.sha256, &config)?;
    let catalogue = read_catalogue(directory, &manifest.files.items.sha256, &config, popularity)?;
    let probes = probe_file::read(&directory.join(PROBES), &manifest.files.probes.sha256, &config, &space)?;
    let (name, digest) = (name.to_owned(), files::sha256_hex(&bytes));
    Ok(Checkpoint { name, version, digest, manifest, config, space, weights, catalogue, probes })
}

/// The format is read alone first: another format has other fields, and its number says more than their names.
fn parse_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, CheckpointError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let invalid = |source| CheckpointError::Manifest { path: path.to_owned(), source };
    let Format { format } = serde_json::from_slice(bytes).map_err(invalid)?;
    if format != Manifest::FORMAT {
        return Err(CheckpointError::Format { path: path.to_owned(), found: format });
    }
    serde_json::from_slice(bytes).map_err(invalid)
}

fn read_weights(path: &Path, sha256: &str, config: &ModelConfig) -> Result<(Weights, Vec<u64>), CheckpointError> {
    let slots = weight_slots(config);
    let (file, size) = files::open_verified(path, sha256, size_limit(&slots))?;
    let mut file = TensorFile::open(path, file, size)?;
    file.check(&slots)?;
    let mut weights = Weights::default();
    for slot in slots.into_iter().filter(|slot| slot.dtype == Dtype::F32) {
        let data = file.floats(&slot.name)?;
        weights.insert(slot.name, HostTensor { shape: slot.shape, data });
    }
    weights.check(config).map_err(|source| CheckpointError::Weights { path: path.to_owned(), source })?;
    let counts = file.integers(POPULARITY)?;
    let bad = |(place, value): (usize, &i64)| *value < 0 || (place == 0 && *value != 0);
    if let Some(place) = counts.iter().enumerate().position(bad) {
        return Err(CheckpointError::Popularity { path: path.to_owned(), place, value: counts[place] });
    }
    Ok((weights, counts.iter().skip(1).map(|count| count.unsigned_abs()).collect()))
}

/// The name of the interaction counts among the weights.
pub(super) const POPULARITY: &str = "popularity";

/// What `weights.safetensors` of a configuration holds.
fn weight_slots(config: &ModelConfig) -> Vec<Slot> {
    let weights = config.parameters().into_iter().map(|parameter| Slot {
        name: parameter.name,
        dtype: Dtype::F32,
        shape: parameter.shape,
    });
    let popularity = Slot { name: POPULARITY.to_owned(), dtype: Dtype::I64, shape: vec![config.items + 1] };
    weights.chain([popularity]).collect()
}

fn read_catalogue(
    directory: &Path,
    sha256: &str,
    config: &ModelConfig,
    popularity: Vec<u64>,
) -> Result<Catalogue, CheckpointError> {
    let path = directory.join(ITEMS);
    let bytes = files::read_verified(&path, sha256, items::ids_limit(config.items))?;
    let ids = items::parse_ids(&path, bytes)?;
    if ids.len() != config.items {
        return Err(CheckpointError::ItemCount { path, found: ids.len(), expected: config.items });
    }
    let catalogue = Catalogue::new(ids, popularity).map_err(|source| CheckpointError::Catalogue { path, source })?;
    let path = directory.join(TITLES);
    match path.symlink_metadata() {
        Ok(_) => {
            let bytes = files::read_bounded(&path, items::titles_limit(config.items))?;
            Ok(catalogue.with_titles(items::parse_titles(&path, bytes)?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(catalogue),
        Err(error) => Err(CheckpointError::io(path, "read")(error)),
    }
}
