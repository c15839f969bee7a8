//! `canet train --newest-epochs`: what a model learns after it was measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use canet_model::checkpoint::{Checkpoint, ModelDirectory};
use serde_json::Value;
use tempfile::TempDir;

use super::train_command::{finish, train};

/// Everybody ends with two items that no training part has.
fn ends(directory: &Path) -> PathBuf {
    let path = directory.join("ends.txt");
    let walk = |user: usize| (0..10).map(move |step| format!("i{}", (user * 7 + step) % 30));
    let line = |user| format!("u{user} {} x y\n", walk(user).collect::<Vec<_>>().join(" "));
    fs::write(&path, (0..60).map(line).collect::<String>()).unwrap();
    path
}

/// The weights settle until they get no better.
const SETTLED: [&str; 6] = ["--settle-lr", "0.02", "--settle-epochs", "200", "--patience", "1"];

fn load(model: &Path) -> Checkpoint {
    ModelDirectory::open(model).unwrap().load(None).unwrap()
}

fn learnt_everything(model: &Path) -> bool {
    load(model).manifest.training.as_ref().unwrap().everything
}

/// Why a training ended, by its log.
fn reason(model: &Path) -> Value {
    let log = fs::read_to_string(model.join("1.train.jsonl")).unwrap();
    serde_json::from_str::<Value>(log.lines().last().unwrap()).unwrap()["reason"].take()
}

fn ask(what: &str, model: &Path, data: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_canet"));
    command.arg(what).arg("--model").arg(model).arg("--data").arg(data).args(["--device", "cpu"]).args(more);
    command.output().unwrap()
}

#[test]
fn the_newest_interactions_are_learnt_after_the_model_was_measured_and_readers_are_told() {
    let scratch = TempDir::new().unwrap();
    let data = ends(scratch.path());
    let [measured, everything] = ["measured", "everything"].map(|name| scratch.path().join(name));
    let trained = String::from_utf8(finish(train(&data, &measured, &SETTLED)).stderr).unwrap();
    let patience = "was better on validation, so the stage ends with its weights (--patience 1)";
    assert!(
        trained.lines().any(|line| line.starts_with("settle: no epoch after ") && line.ends_with(patience)),
        "{trained}"
    );
    finish(train(&data, &everything, &[&SETTLED[..], &["--newest-epochs", "30"]].concat()));

    let (before, after) = (load(&measured), load(&everything));
    assert_eq!(after.manifest.metrics, before.manifest.metrics);
    assert_eq!(after.manifest.calibration, before.manifest.calibration);
    assert_eq!([&measured, &everything].map(|model| learnt_everything(model)), [false, true]);
    assert_eq!([&measured, &everything].map(|model| reason(model)), ["patience", "epochs"]);
    let x = before.catalogue.item("x").unwrap().column() - 1;
    assert_eq!([&before, &after].map(|model| model.catalogue.popularity()[x]), [0, 60]);

    let evaluate = |model: &Path| -> (f64, Value) {
        let output = ask("eval", model, &data, &["--route", "full", "--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (found["runs"][0]["ndcg@10"]["mean"].as_f64().unwrap(), found["warning"].clone())
    };
    let ((unseen, silent), (seen, warning)) = (evaluate(&measured), evaluate(&everything));
    assert!(unseen < 0.5 && seen > 0.95, "{unseen} {seen}");
    assert!(silent.is_null() && warning.as_str().unwrap().contains("--newest-epochs"), "{silent} {warning}");
    let verdict = ask("eval", &everything, &data, &["--threads", "1"]);
    let verdict = String::from_utf8(verdict.stdout).unwrap();
    assert!(verdict.contains("Markov chain") && !verdict.contains("Next:"), "{verdict}");
    let refused = ask("report", &everything, &data, &["--out", scratch.path().join("report").to_str().unwrap()]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(65) && message.contains("--newest-epochs"), "{message}");
    // Other interactions of the same items are for a reader to judge.
    let others = scratch.path().join("others.txt");
    fs::write(&others, fs::read_to_string(&data).unwrap() + "new i1 i2 i3 i4\n").unwrap();
    let output = ask("eval", &everything, &others, &["--route", "full"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains("another file (ends)"), "{message}");
    let refused = train(&data, &measured, &["--preset", "paper", "--newest-epochs", "1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
}

#[test]
fn a_training_that_starts_from_weights_that_know_its_targets_says_so() {
    let scratch = TempDir::new().unwrap();
    let data = ends(scratch.path());
    let [first, second, third] = ["first", "second", "third"].map(|name| scratch.path().join(name));
    finish(train(&data, &first, &["--newest-epochs", "1"]));
    let mut source = &first;
    for next in [&second, &third] {
        let from = ["--from", source.to_str().unwrap(), "--epochs", "0", "--settle-epochs", "0"];
        let told = String::from_utf8(finish(train(&data, next, &from)).stderr).unwrap();
        assert!(told.contains("has learnt every interaction of its data (--newest-epochs)"), "{told}");
        let training = load(next).manifest.training.unwrap();
        assert!(training.from_everything && !training.everything);
        source = next;
    }
    let evaluated = ask("eval", &third, &data, &["--threads", "1"]);
    let told = String::from_utf8(evaluated.stderr).unwrap();
    assert!(evaluated.status.success() && told.contains("its figures may be too good"), "{told}");
    let report = scratch.path().join("report");
    let flags = ["--out", report.to_str().unwrap(), "--threads", "1"];
    assert!(ask("report", &third, &data, &flags).status.success());
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    assert!(page.contains("started from weights that had learnt every interaction of their data"));
}

#[test]
fn a_model_that_had_no_time_for_the_newest_has_not_learnt_them() {
    let scratch = TempDir::new().unwrap();
    let data = ends(scratch.path());
    let [model, plain] = ["model", "plain"].map(|name| scratch.path().join(name));
    finish(train(&data, &model, &["--stop-after", "settle"]));
    finish(train(&data, &model, &["--newest-epochs", "3", "--max-minutes", "0.00001"]));
    finish(train(&data, &plain, &[]));
    assert!(!learnt_everything(&model));
    assert_eq!(reason(&model), "max_minutes");
    let weights = [&model, &plain].map(|model| load(model).weights);
    for (name, tensor) in weights[0].iter() {
        assert!(weights[1].get(name).unwrap() == tensor, "{name}");
    }
}
