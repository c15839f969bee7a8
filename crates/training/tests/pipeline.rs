//! A training from the data to its version, as a process runs it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use canet_data::{Dataset, ReadOptions};
use canet_model::checkpoint::{Checkpoint, CheckpointError, ModelDirectory};
use canet_model::{Backend, Device, Forward, LoadError, ModelConfig, Positions, Precision, Weights};
use canet_testing::small_config;
use canet_torch::TorchBackend;
use canet_training::{
    MemoryEstimate, NewestOptions, Preset, SourceRecord, Stage, TrainError, TrainJob, TrainOptions, TrainOutcome,
    discards_earlier, recorded_source, train,
};
use serde_json::Value;

/// Users who walk around a ring of 12 items, and never pass it twice.
fn ring(directory: &Path) -> Dataset {
    let path = directory.join("ring.txt");
    let walk = |user: usize| (0..8).map(|step| format!(" i{}", (user * 5 + step) % 12)).collect::<String>();
    fs::write(&path, (0..12).map(|user| format!("u{user}{}\n", walk(user))).collect::<String>()).unwrap();
    Dataset::read(&path, &ReadOptions::default()).unwrap()
}

/// One epoch of each stage of the preset `paper`, or with that preset of `utility`.
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

/// LibTorch on the CPU, and how often it has loaded weights.
#[derive(Clone, Debug)]
struct CountingBackend {
    torch: TorchBackend,
    loads: Arc<AtomicUsize>,
}

impl CountingBackend {
    fn new() -> CountingBackend {
        let torch = TorchBackend { device: Device::CPU, precision: Precision::Fp32, threads: 1 };
        CountingBackend { torch, loads: Arc::default() }
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }
}

impl Backend for CountingBackend {
    fn load(&self, config: &ModelConfig, weights: &Weights) -> Result<Arc<dyn Forward>, LoadError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.torch.load(config, weights)
    }

    fn device(&self) -> Device {
        self.torch.device()
    }

    fn precision(&self) -> Precision {
        self.torch.precision()
    }

    fn threads(&self) -> usize {
        self.torch.threads()
    }
}

static NEVER: AtomicBool = AtomicBool::new(false);

/// A training of four small routes.
fn job<'a>(dataset: &'a Dataset, out: &'a Path, options: TrainOptions) -> TrainJob<'a> {
    let sizes = ModelConfig { hidden: vec![4, 8], layers: vec![1, 2], embedding: vec![4, 8], ..small_config() };
    TrainJob {
        dataset,
        config: ModelConfig { items: dataset.ids.len(), ..sizes },
        options,
        source: None,
        device: Device::CPU,
        backend: Arc::new(CountingBackend::new()),
        out,
        max_time: None,
        stop_after: None,
        restart: false,
        stop: &NEVER,
    }
}

/// The version that a job has written, or why there is none.
fn written(job: &TrainJob<'_>) -> Result<u64, TrainError> {
    match train(job)? {
        TrainOutcome::Finished(finished) => Ok(finished.checkpoint.version),
        TrainOutcome::Stopped | TrainOutcome::Paused => panic!("nobody stopped it"),
    }
}

/// The version that a training from random weights has written, or why there is none.
fn version(dataset: &Dataset, out: &Path, seed: u64) -> Result<u64, TrainError> {
    written(&job(dataset, out, options(seed)))
}

/// The version that a training from a model has written, or why there is none.
fn version_from(dataset: &Dataset, out: &Path, source: &Checkpoint) -> Result<u64, TrainError> {
    let options = TrainOptions { from: Some(SourceRecord::of(source)), ..options(1) };
    written(&TrainJob { source: Some(source), ..job(dataset, out, options) })
}

/// The events of this name in the log of a version.
fn events(out: &Path, version: u64, name: &str) -> Vec<Value> {
    let log = fs::read_to_string(out.join(format!("{version}.train.jsonl"))).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == name).collect()
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

#[test]
fn a_training_from_its_own_model_keeps_the_version_with_which_it_began() {
    let scratch = tempfile::tempdir().unwrap();
    let dataset = ring(scratch.path());
    let out = scratch.path().join("model");
    assert_eq!(recorded_source(&out).unwrap(), None);
    assert_eq!(version(&dataset, &out, 1).unwrap(), 1);
    assert_eq!(recorded_source(&out).unwrap(), None);
    let load = |version: u64| ModelDirectory::open(&out).unwrap().load(Some(version)).unwrap();
    let first = load(1);
    // The process is killed once version 2 is written.
    let log = out.join("2.train.jsonl");
    fs::create_dir_all(log.join("in the way")).unwrap();
    version_from(&dataset, &out, &first).unwrap_err();
    fs::remove_dir_all(&log).unwrap();
    assert_eq!(recorded_source(&out).unwrap(), Some(SourceRecord::of(&first)));

    let same = TrainOptions { from: Some(SourceRecord::of(&first)), ..options(1) };
    let other = TrainOptions { from: Some(SourceRecord::of(&load(2))), ..options(1) };
    let discards = |options: TrainOptions| discards_earlier(&job(&dataset, &out, options)).unwrap();
    assert_eq!([same, other].map(discards), [false, true]);
    fs::write(out.join("2/weights.safetensors"), "").unwrap();
    // The damaged version is written again, from the state after the last epoch.
    assert_eq!(version_from(&dataset, &out, &first).unwrap(), 3);
    assert_eq!(load(3).manifest.training.unwrap().options["from"]["version"], 1);
    assert_eq!(recorded_source(&out).unwrap(), None);
}

#[test]
fn a_directory_that_cannot_be_a_models_is_refused_before_the_training() {
    let scratch = tempfile::tempdir().unwrap();
    let dataset = ring(scratch.path());
    let out = scratch.path().join("model");
    version(&dataset, &out, 1).unwrap();
    let refused = |out: &Path| match version(&dataset, out, 1) {
        Err(TrainError::Out(error)) => error,
        other => panic!("{out:?}: {other:?}"),
    };
    assert!(matches!(refused(&out.join("1")), CheckpointError::IsVersion { version: Some(1), .. }));
    assert!(!out.join("1/.training").exists());
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(refused(&file), CheckpointError::NotADirectory { .. }));
    assert!(matches!(refused(&file.join("model")), CheckpointError::NotADirectory { .. }));
    let unreadable = scratch.path().join(OsStr::from_bytes(b"m\xffdel"));
    assert!(matches!(refused(&unreadable), CheckpointError::NoName { .. }));
    assert!(!unreadable.exists());
    fs::create_dir(&unreadable).unwrap();
    assert!(matches!(refused(&unreadable), CheckpointError::NoName { .. }));
}

/// Changes the progress in a state. A safetensors file begins with the length of its JSON header in 8 bytes.
fn change_progress(state: &Path, change: impl FnOnce(&mut Value)) {
    let bytes = fs::read(state).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, values) = bytes[8..].split_at(length);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let mut progress: Value = serde_json::from_str(header["__metadata__"]["progress"].as_str().unwrap()).unwrap();
    change(&mut progress);
    header["__metadata__"]["progress"] = progress.to_string().into();
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    fs::write(state, [&(header.len() as u64).to_le_bytes(), header.as_slice(), values].concat()).unwrap();
}

#[test]
fn a_state_with_sizes_that_no_model_has_is_refused_before_they_are_used() {
    let scratch = tempfile::tempdir().unwrap();
    let dataset = ring(scratch.path());
    for (place, (field, value, words)) in [
        ("items", serde_json::json!(u64::MAX), "the number of items in --data 18446744073709551615 (now 12)"),
        ("layers", serde_json::json!([1_000_000_000_000_u64]), "--layers 1000000000000 (now 1,2)"),
    ]
    .into_iter()
    .enumerate()
    {
        let out = scratch.path().join(place.to_string());
        let paused = TrainJob { stop_after: Some(Stage::Joint), ..job(&dataset, &out, options(1)) };
        assert!(matches!(train(&paused), Ok(TrainOutcome::Paused)));
        change_progress(&out.join(".training/state.safetensors"), |progress| progress["config"][field] = value);
        let error = version(&dataset, &out, 1).unwrap_err();
        assert!(matches!(error, TrainError::OtherTraining { .. }) && error.to_string().contains(words), "{error}");
    }
}

/// One epoch of the stages before `newest`, then `newest` with this time for the whole training. Returns how often weights
/// were loaded from then on.
fn newest(dataset: &Dataset, out: &Path, max_time: Option<Duration>, change: impl FnOnce(&mut Value)) -> usize {
    let options = TrainOptions { preset: Preset::Utility, newest: NewestOptions { epochs: 2 }, ..options(1) };
    let paused = TrainJob { stop_after: Some(Stage::Settle), ..job(dataset, out, options.clone()) };
    assert!(matches!(train(&paused), Ok(TrainOutcome::Paused)));
    change_progress(&out.join(".training/state.safetensors"), change);
    let backend = CountingBackend::new();
    written(&TrainJob { max_time, backend: Arc::new(backend.clone()), ..job(dataset, out, options) }).unwrap();
    backend.loads()
}

#[test]
fn a_stage_newest_without_time_is_recorded_and_the_model_measured_once() {
    let scratch = tempfile::tempdir().unwrap();
    let dataset = ring(scratch.path());
    let [late, whole, old] = ["late", "whole", "old"].map(|name| scratch.path().join(name));
    let everything =
        |out: &Path| ModelDirectory::open(out).unwrap().load(None).unwrap().manifest.training.unwrap().everything;
    assert_eq!(newest(&dataset, &late, Some(Duration::from_nanos(1)), |_| ()), 1);
    assert!(!everything(&late));
    let cut = events(&late, 1, "cut_short");
    let expected = serde_json::json!([{"event": "cut_short", "stage": "newest", "epochs": 0, "of": 2, "steps": 0}]);
    assert_eq!(Value::from(cut), expected);
    assert_eq!(events(&late, 1, "finish")[0]["reason"], "max_minutes");

    // A state of an older version has neither the reason nor what the weights have learnt.
    let forget = |progress: &mut Value| {
        for field in ["reason", "everything"] {
            progress.as_object_mut().unwrap().remove(field).unwrap();
        }
    };
    for (out, loads) in [(&whole, newest(&dataset, &whole, None, |_| ())), (&old, newest(&dataset, &old, None, forget))]
    {
        assert_eq!(loads, 1);
        assert!(everything(out) && events(out, 1, "cut_short").is_empty());
        assert_eq!(events(out, 1, "epoch").iter().filter(|epoch| epoch["stage"] == "newest").count(), 2);
        assert_eq!(events(out, 1, "finish")[0]["reason"], "epochs");
    }
}

#[test]
fn the_largest_sizes_have_an_estimate_too() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("long.txt");
    let line = |user: usize| {
        let items: Vec<String> = (0..9000).map(|step| format!("i{}", (user * 5 + step) % 12)).collect();
        format!("u{user} {}\n", items.join(" "))
    };
    fs::write(&path, (0..4).map(line).collect::<String>()).unwrap();
    let dataset = Dataset::read(&path, &ReadOptions::default()).unwrap();
    let options = TrainOptions { preset: Preset::Utility, batch_size: 65536, ..options(1) };
    let mut job = job(&dataset, scratch.path(), options);
    job.config = ModelConfig {
        max_len: 8192,
        heads: 128,
        hidden: (1..=12).map(|part| 128 * part).collect(),
        layers: vec![256],
        embedding: Vec::new(),
        positions: Positions::Newest,
        ..job.config
    };
    assert_eq!(MemoryEstimate::of(&job).unwrap().host, u64::MAX);
}

/// The features of a held-out user are those of three pooled embeddings and five numbers. A fit holds them twice, and two hidden
/// layers of 64 values.
#[test]
fn the_features_of_held_out_users_are_estimated() {
    let scratch = tempfile::tempdir().unwrap();
    let host = |users: usize, layers: Vec<usize>, hidden: Vec<usize>| {
        let path = scratch.path().join(format!("{users}.txt"));
        let line = |user: usize| format!("u{user} i{} i{} i{}\n", user % 12, (user + 1) % 12, (user + 2) % 12);
        fs::write(&path, (0..users).map(line).collect::<String>()).unwrap();
        let dataset = Dataset::read(&path, &ReadOptions::default()).unwrap();
        let mut job = job(&dataset, scratch.path(), TrainOptions { preset: Preset::Utility, ..options(1) });
        job.config = ModelConfig { hidden, layers, embedding: vec![8], ..job.config };
        MemoryEstimate::of(&job).unwrap().host
    };
    let of_user = |layers: Vec<usize>, hidden: Vec<usize>| {
        (host(3000, layers.clone(), hidden.clone()) - host(2000, layers, hidden)) as f64 / 1000.0
    };
    let features = 4.0 * (2.0 * (3.0 * 8.0 + 5.0) + 2.0 * 64.0);
    let found = of_user(vec![1, 2], vec![4, 8]) - of_user(vec![2], vec![8]);
    // A model of one route has no router, and three routes less.
    assert!((found - features - 3.0 * 96.0).abs() < 1.0, "{found} {features}");
}
