//! A training from the data to its version, as a process runs it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use canet_data::{Dataset, ReadOptions};
use canet_model::{Device, ModelConfig, Precision};
use canet_testing::small_config;
use canet_torch::TorchBackend;
use canet_training::{TrainError, TrainJob, TrainOptions, TrainOutcome, train};

/// Users who walk around a ring of 12 items, and never pass it twice.
fn ring(directory: &Path) -> Dataset {
    let path = directory.join("ring.txt");
    let walk = |user: usize| (0..8).map(|step| format!(" i{}", (user * 5 + step) % 12)).collect::<String>();
    fs::write(&path, (0..12).map(|user| format!("u{user}{}\n", walk(user))).collect::<String>()).unwrap();
    Dataset::read(&path, &ReadOptions::default()).unwrap()
}

/// One epoch of the preset `paper`.
fn options(seed: u64) -> TrainOptions {
    let options = serde_json::json!({
        "preset": "paper", "epochs": 1, "samples": {"loss_positions": null, "per_user": null}, "batch_size": 4,
        "learning_rate": 0.01, "warmup_steps": 1, "dropout": 0.0, "tied": false, "patience": 1, "seed": seed,
        "optimizer": {"betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": 0.0, "clip_norm": 1.0}, "flops_budget": 0.3,
        "joint": {"temperature": 1.0, "weights": {"guide": 0.01, "balance": 0.01, "flops": 1.0}},
        "sandwich": {"negatives": null, "distillation": 0.5}, "router": {"holdout": 0},
        "settle": {"epochs": 1, "learning_rate": 0.01},
    });
    serde_json::from_value(options).unwrap()
}

/// The version that a training has written, or why there is none.
fn version(dataset: &Dataset, out: &Path, seed: u64) -> Result<u64, TrainError> {
    let sizes = ModelConfig { hidden: vec![4, 8], layers: vec![1, 2], embedding: vec![4, 8], ..small_config() };
    let backend = TorchBackend { device: Device::CPU, precision: Precision::Fp32, threads: 1 };
    let outcome = train(&TrainJob {
        dataset,
        config: ModelConfig { items: dataset.ids.len(), ..sizes },
        options: options(seed),
        source: None,
        device: Device::CPU,
        backend: Arc::new(backend),
        out,
        max_time: None,
        stop_after: None,
        restart: false,
        stop: &AtomicBool::new(false),
    })?;
    match outcome {
        TrainOutcome::Finished(finished) => Ok(finished.checkpoint.version),
        TrainOutcome::Stopped | TrainOutcome::Paused => panic!("nobody stopped it"),
    }
}

/// A directory that has the name of the log stands for a process that is killed, or a disk that fails, once the version
/// is written.
#[test]
fn a_training_that_was_stopped_behind_its_version_does_not_write_it_again() {
    let scratch = tempfile::tempdir().unwrap();
    let dataset = ring(scratch.path());
    let out = scratch.path().join("model");
    let log = |version: u64| -> PathBuf { out.join(format!("{version}.train.jsonl")) };
    let stopped_behind = |number: u64| {
        fs::create_dir_all(log(number).join("in the way")).unwrap();
        assert!(matches!(version(&dataset, &out, 1), Err(TrainError::Io { .. })));
        assert!(out.join(number.to_string()).is_dir());
        fs::remove_dir_all(log(number)).unwrap();
    };

    stopped_behind(1);
    assert_eq!(version(&dataset, &out, 1).unwrap(), 1);
    assert!(log(1).is_file() && !out.join(".training").exists());
    // There is nothing left to end, so the same job is a new training.
    assert_eq!(version(&dataset, &out, 1).unwrap(), 2);

    // A version that is damaged or gone is written again, from the state after the last epoch.
    stopped_behind(3);
    fs::write(out.join("3/weights.safetensors"), "").unwrap();
    assert_eq!(version(&dataset, &out, 1).unwrap(), 4);
    stopped_behind(5);
    fs::remove_dir_all(out.join("5")).unwrap();
    assert_eq!(version(&dataset, &out, 1).unwrap(), 5);

    stopped_behind(6);
    // Another job begins anew, and the previous version has its log all the same.
    assert_eq!(version(&dataset, &out, 2).unwrap(), 7);
    let epochs = |version: u64| fs::read_to_string(log(version)).unwrap().matches("\"event\":\"epoch\"").count();
    assert_eq!([1, 2, 4, 5, 6, 7].map(epochs), [1; 6]);
    assert!(!out.join(".training").exists());
}
