//! Flags of the configuration that older checkpoints lack: `positions`, `embedding_norm` and `norm_eps`.

use std::fs;
use std::path::Path;

use canet_model::checkpoint::{CheckpointError, ModelDirectory, Tolerance};
use canet_model::{ModelConfig, Positions};
use serde_json::{Value, json};

use crate::native;
use canet_testing::{draft, small_config, write_checkpoint};

const FLAGS: [&str; 3] = ["positions", "embedding_norm", "norm_eps"];

fn manifest(root: &Path) -> Value {
    serde_json::from_slice(&fs::read(root.join("1/canet.json")).unwrap()).unwrap()
}

/// The error of reading a checkpoint after changing a field of its configuration.
fn refusal(field: &str, value: &Value) -> CheckpointError {
    let root = tempfile::tempdir().unwrap();
    write_checkpoint(root.path(), 31);
    let mut manifest = manifest(root.path());
    manifest["config"][field] = value.clone();
    fs::write(root.path().join("1/canet.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    ModelDirectory::open(root.path()).unwrap().load(None).unwrap_err()
}

fn flagged(positions: Positions, embedding_norm: bool, norm_eps: f64) -> ModelConfig {
    ModelConfig { positions, embedding_norm, norm_eps, ..small_config() }
}

#[test]
fn a_flag_at_its_default_is_left_out_and_read_as_its_default() {
    let root = tempfile::tempdir().unwrap();
    write_checkpoint(root.path(), 31);
    let manifest = manifest(root.path());
    assert_eq!(manifest["format"], json!(1));
    for flag in FLAGS {
        assert_eq!(manifest["config"].get(flag), None, "{flag}");
    }
    let config = ModelDirectory::open(root.path()).unwrap().load(None).unwrap().config;
    assert_eq!((config.positions, config.embedding_norm, config.norm_eps), (Positions::Newest, false, 1e-5));
}

#[test]
fn other_values_come_back_with_their_weights() {
    for (config, expected) in [
        (flagged(Positions::Relative, true, 1e-12), [json!("relative"), json!(true), json!(1e-12)]),
        (flagged(Positions::Oldest, false, 1e-5), [json!("oldest"), Value::Null, Value::Null]),
        (flagged(Positions::Newest, true, 0.5), [Value::Null, json!(true), json!(0.5)]),
    ] {
        let root = tempfile::tempdir().unwrap();
        let draft = draft(config, 32);
        draft.clone().write(root.path()).unwrap();
        let manifest = manifest(root.path());
        assert_eq!(FLAGS.map(|flag| manifest["config"][flag].clone()), expected);
        let read = ModelDirectory::open(root.path()).unwrap().load(None).unwrap();
        assert_eq!(read.config, draft.config);
        assert_eq!(read.weights, draft.weights);
        read.probes.replay(&native(&read.config, &read.weights), &read.space, Tolerance::FP32).unwrap();
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (field, value, words) in [
        ("norm_eps", json!(0), "`norm_eps` is 0: it must be from 1e-30 to 1"),
        ("norm_eps", json!(-1e-5), "`norm_eps` is -0.00001"),
        ("norm_eps", json!(2), "`norm_eps` is 2"),
        (
            "positions",
            json!("sideways"),
            "config.positions: unknown variant `sideways`, expected one of `newest`, `oldest`, `relative`",
        ),
        ("embedding_norm", json!(1), "config.embedding_norm: invalid type: integer `1`, expected a boolean"),
    ] {
        let error = refusal(field, &value).to_string();
        assert!(error.contains("canet.json") && error.contains(words), "{field} {value}: {error}");
    }
}

/// A flag determines the set of weights, so it cannot be edited alone.
#[test]
fn weights_of_other_flags_are_refused() {
    for (field, value, words) in [
        ("positions", json!("relative"), "`backbone.position_embedding` is not part of this file"),
        ("embedding_norm", json!(true), "backbone.embedding_norm.weight"),
    ] {
        let error = refusal(field, &value).to_string();
        assert!(error.contains("weights.safetensors") && error.contains(words), "{field} {value}: {error}");
    }
}
