//! Checkpoints that must not serve, made from good ones.

use std::fs;
use std::path::Path;

use canet_model::checkpoint::CheckpointDraft;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::{draft, small_config};

const WEIGHTS: &str = "weights.safetensors";

/// Cuts the weights of a version in half.
pub(crate) fn truncate(version: &Path) {
    let path = version.join(WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// Makes the first value of a tensor NaN; digests agree, as where the writer wrote it so.
pub(crate) fn spoil_value(version: &Path, tensor: &str) {
    let path = version.join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    // A length, a JSON header with offsets, then the data.
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let offset = usize::try_from(tensors[tensor]["data_offsets"][0].as_u64().unwrap()).unwrap();
    let start = 8 + header + offset;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    edit_manifest(version, |manifest| {
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        manifest["files"][WEIGHTS]["sha256"] = json!(digest);
    });
}

/// Says that the model is deeper than its weights are.
pub(crate) fn deepen(version: &Path) {
    edit_manifest(version, |manifest| manifest["config"]["layers"] = json!([1, 2, 3, 5]));
}

/// Every file is intact, but the probes are another model's.
pub(crate) fn answers_like_another(good: CheckpointDraft) -> CheckpointDraft {
    CheckpointDraft { probes: draft(small_config(), 99).probes, ..good }
}

fn edit_manifest(version: &Path, edit: impl FnOnce(&mut Value)) {
    let path = version.join("canet.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}
