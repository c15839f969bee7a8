//! `canet train --from`: a training that starts from another model.

use std::path::Path;
use std::process::Command;

use canet_model::checkpoint::{Checkpoint, ModelDirectory};
use serde_json::json;
use tempfile::TempDir;

use super::train_command::{finish, ring, train};

/// Keeps the weights of the backbone as they are.
const STILL: [&str; 4] = ["--epochs", "0", "--settle-epochs", "0"];

fn load(model: &Path) -> Checkpoint {
    ModelDirectory::open(model).unwrap().load(None).unwrap()
}

/// Trains from a model with the sizes of that model, apart from those given.
fn train_from(model: &Path, data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = train(data, out, &[&["--from", model.to_str().unwrap()], more].concat());
    for size in ["MAX_LEN", "HEADS", "HIDDEN", "LAYERS", "EMBEDDING"] {
        command.env_remove(format!("CANET_{size}"));
    }
    command
}

/// The weights of the network that answers, without the router's.
fn backbone(checkpoint: &Checkpoint) -> Vec<(String, Vec<f32>)> {
    let weights = checkpoint.weights.iter().filter(|(name, _)| name.starts_with("backbone."));
    weights.map(|(name, tensor)| (name.to_owned(), tensor.data.clone())).collect()
}

fn row<'a>(checkpoint: &'a Checkpoint, table: &str, id: &str) -> &'a [f32] {
    let tensor = checkpoint.weights.get(table).unwrap();
    let column = checkpoint.catalogue.item(id).unwrap().column();
    &tensor.data[column * tensor.shape[1]..][..tensor.shape[1]]
}

#[test]
fn a_training_of_no_epochs_keeps_weights_and_accuracy_and_records_the_source() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let [first, same, deeper] = ["first", "same", "deeper"].map(|name| scratch.path().join(name));
    finish(train(&data, &first, &[]));
    let source = load(&first);
    finish(train_from(&first, &data, &same, &STILL));
    let again = load(&same);
    assert_eq!(again.config, source.config);
    assert_eq!(backbone(&again), backbone(&source));
    let accuracy = |checkpoint: &Checkpoint| checkpoint.manifest.metrics.validation.as_ref().unwrap()["full.ndcg@10"];
    assert_eq!(accuracy(&again), accuracy(&source));
    let from = json!({"name": "first", "version": 1, "digest": source.digest});
    assert_eq!(again.manifest.training.unwrap().options["from"], from);

    // A wider and deeper model keeps what its slices share with the source.
    finish(train_from(
        &first,
        &data,
        &deeper,
        &[&STILL[..], &["--hidden", "4,8,16", "--layers", "1,2,3", "--embedding", "4,8,16"]].concat(),
    ));
    let grown = load(&deeper);
    let name = "backbone.blocks.1.ffn.inner.weight";
    let [grown, small] = [&grown, &source].map(|checkpoint| checkpoint.weights.get(name).unwrap());
    assert_eq!((small.shape.as_slice(), grown.shape.as_slice()), (&[32, 8][..], &[64, 16][..]));
    for unit in 0..32 {
        assert_eq!(small.data[unit * 8..][..8], grown.data[unit * 16..][..8], "{unit}");
    }
}

#[test]
fn items_are_matched_by_their_ids_and_new_ones_start_at_the_mean() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let [first, second] = ["first", "second"].map(|name| scratch.path().join(name));
    finish(train(&data, &first, &["--epochs", "2"]));
    // Item 3 goes, and `new` takes its place. The order of the items changes.
    let text = std::fs::read_to_string(&data).unwrap().replace(" i3\n", " new\n");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.rotate_left(20 * 7);
    let changed = scratch.path().join("changed.txt");
    std::fs::write(&changed, format!("{}\n", lines.join("\n"))).unwrap();
    finish(train_from(&first, &changed, &second, &STILL));

    let (before, after) = (load(&first), load(&second));
    assert!(after.catalogue.item("i3").is_none());
    for table in ["backbone.item_embedding", "backbone.output.weight"] {
        for id in (0..30).filter(|id| *id != 3).map(|id| format!("i{id}")) {
            assert_eq!(row(&before, table, &id), row(&after, table, &id), "{table} {id}");
        }
        for (column, value) in row(&after, table, "new").iter().enumerate() {
            let mean = (0..30).map(|id| f64::from(row(&before, table, &format!("i{id}"))[column])).sum::<f64>() / 30.0;
            assert!((f64::from(*value) - mean).abs() < 1e-6, "{table} {column}: {value} {mean}");
        }
    }
}

/// The preset `paper` trains the scalars of the residual connections, the other preset takes them as 1.
#[test]
fn a_source_with_trained_residual_scalars_computes_the_same_in_training() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let [paper, still] = ["paper", "still"].map(|name| scratch.path().join(name));
    finish(train(&data, &paper, &["--preset", "paper", "--epochs", "10"]));
    finish(train_from(&paper, &data, &still, &STILL));
    let (before, after) = (load(&paper), load(&still));
    for block in 0..2 {
        for (scalar, layer) in [("attention_residual", "attention.output"), ("ffn_residual", "ffn.outer")] {
            let weight = |model: &Checkpoint, part: &str| {
                model.weights.get(&format!("backbone.blocks.{block}.{part}")).unwrap().data.clone()
            };
            let factor = weight(&before, scalar)[0];
            assert!(factor.abs() > 1e-3 && (factor - 1.0).abs() > 1e-3, "the training has moved {scalar}: {factor}");
            assert_eq!(weight(&after, scalar), [1.0]);
            for part in ["weight", "bias"].map(|part| format!("{layer}.{part}")) {
                let expected: Vec<f32> = weight(&before, &part).iter().map(|value| value * factor).collect();
                assert_eq!(weight(&after, &part), expected, "{part}");
            }
        }
    }
    let accuracy = |model: &Checkpoint| model.manifest.metrics.validation.as_ref().unwrap()["full.ndcg@10"];
    assert!((accuracy(&after) - accuracy(&before)).abs() < 1e-6);
}

#[test]
fn flags_that_contradict_the_source_are_named() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let [first, second] = ["first", "second"].map(|name| scratch.path().join(name));
    finish(train(&data, &first, &["--epochs", "1", "--tie-embeddings", "false"]));
    for flags in [
        ["--positions", "newest"],
        ["--embedding-norm", "false"],
        ["--norm-eps", "0.001"],
        ["--heads", "4"],
        ["--ffn-inner", "full"],
        ["--tie-embeddings", "true"],
    ] {
        let output = train_from(&first, &data, &second, &flags).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {message}");
        assert!(message.contains(flags[0]) && message.contains("--from"), "{flags:?}: {message}");
    }
    let output = train(&data, &second, &["--epochs", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    // The same training continues only from the same model.
    finish(train_from(&first, &data, &second, &["--epochs", "1", "--stop-after", "supernet"]));
    finish(train(&data, &first, &["--epochs", "1"]));
    let output = train_from(&first, &data, &second, &["--epochs", "1", "--from-version", "2"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("the version of --from 1 (now 2)"), "{message}");
}

/// A job that trains a model on from its own highest version, and is stopped before another version comes.
#[test]
fn an_unfinished_training_keeps_the_version_with_which_it_began() {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let mine = scratch.path().join("mine");
    finish(train(&data, &mine, &["--epochs", "1"]));
    finish(train_from(&mine, &data, &mine, &["--epochs", "1", "--stop-after", "supernet"]));
    finish(train(&data, &scratch.path().join("other"), &["--epochs", "2"]));
    std::fs::rename(scratch.path().join("other/1"), mine.join("2")).unwrap();
    let told = finish(train_from(&mine, &data, &mine, &["--epochs", "1"])).stderr;
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("version 1, with which the training in --out began"), "{told}");
    assert_eq!(load(&mine).version, 3);
    let source = |model: &Path| load(model).manifest.training.unwrap().options["from"]["version"].clone();
    assert_eq!(source(&mine), 1);
    // A new training starts from the highest version.
    finish(train_from(&mine, &data, &mine, &["--epochs", "1"]));
    assert_eq!(source(&mine), 3);
}
