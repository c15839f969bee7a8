//! Every written part comes back. Concurrent writers and killed writers do no harm.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use canet_domain::Catalogue;
use canet_model::Positions;
use canet_model::checkpoint::{BudgetPoint, Calibration, CheckpointDraft, ModelDirectory, Tolerance, TrainingRecord};
use serde_json::json;

use crate::native;
use canet_testing::{catalogue, draft, small_config, write_checkpoint};

#[test]
fn what_is_written_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("tiny");
    let mut draft = draft(small_config(), 7);
    draft.metrics.validation = Some(BTreeMap::from([("ndcg@10".to_owned(), 0.123_456_789_012_345_67)]));
    draft.calibration = Some(Calibration {
        points: vec![BudgetPoint { budget: 0.3, bias: vec![-0.1; 24], route: None, spent: 0.299 }],
    });
    let options =
        BTreeMap::from([("seed".to_owned(), json!(u64::MAX)), ("sandwich".to_owned(), json!({"negatives": 8}))]);
    draft.training = Some(TrainingRecord {
        program: "0.1.0".to_owned(),
        options,
        everything: false,
        from_everything: false,
        cut_short_after: None,
    });
    let written = draft.clone().write(&root).unwrap();
    let read = ModelDirectory::open(&root).unwrap().load(None).unwrap();
    assert_eq!((read.name.as_str(), read.version), ("tiny", 1));
    assert_eq!(read.digest, written.digest);
    assert_eq!(read.config, draft.config);
    assert_eq!(read.weights, draft.weights);
    assert_eq!(read.probes, draft.probes);
    assert_eq!(read.manifest.data, draft.data);
    assert_eq!(read.manifest.metrics, draft.metrics);
    assert_eq!(read.manifest.calibration, draft.calibration);
    assert_eq!(read.manifest.training, draft.training);
    assert_eq!(read.catalogue.ids(), draft.catalogue.ids());
    assert_eq!(read.catalogue.popularity(), draft.catalogue.popularity());
    for id in draft.catalogue.ids() {
        let item = draft.catalogue.item(id).unwrap();
        assert_eq!(read.catalogue.title(item), draft.catalogue.title(item));
    }
    let forward = native(&read.config, &read.weights);
    read.probes.replay(&forward, &read.space, Tolerance::FP32).unwrap();
}

#[test]
fn a_catalogue_smaller_than_the_recorded_top_comes_back_too() {
    let root = tempfile::tempdir().unwrap();
    let config = canet_model::ModelConfig { items: 3, max_len: 1, ..small_config() };
    let read = draft(config, 1).write(root.path()).unwrap();
    read.probes.replay(&native(&read.config, &read.weights), &read.space, Tolerance::FP32).unwrap();
}

#[test]
fn a_second_write_is_the_next_version_and_a_copy_is_a_version() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(write_checkpoint(root.path(), 1).version, 1);
    assert_eq!(write_checkpoint(root.path(), 2).version, 2);
    let directory = ModelDirectory::open(root.path()).unwrap();
    copy(&root.path().join("1"), &root.path().join("10"));
    assert_eq!(directory.versions().unwrap(), [1, 2, 10]);
    assert_eq!(directory.latest().unwrap(), 10);
    assert_eq!(directory.load(None).unwrap().digest, directory.load(Some(1)).unwrap().digest);
    assert_ne!(directory.load(None).unwrap().digest, directory.load(Some(2)).unwrap().digest);
    assert_eq!(write_checkpoint(root.path(), 3).version, 11);
}

#[test]
fn writers_at_the_same_time_get_different_versions_and_readers_see_whole_ones() {
    let root = tempfile::tempdir().unwrap();
    let draft = draft(small_config(), 4);
    draft.clone().write(root.path()).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let directory = ModelDirectory::open(root.path()).unwrap();
            while !done.load(Ordering::Relaxed) {
                directory.load(None).unwrap();
            }
        });
        let write = || draft.clone().write(root.path()).unwrap().version;
        let writers: Vec<_> = (0..6).map(|_| scope.spawn(move || [write(), write()])).collect();
        let mut versions: Vec<u64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        versions.sort_unstable();
        assert_eq!(versions, (2..=13).collect::<Vec<_>>());
    });
}

/// A killed writer leaves a hidden directory, which is never a version. The next writer removes it if no process locks it
/// and this machine wrote it, or it is old.
#[test]
fn what_killed_writers_left_is_ignored_and_swept_when_old() {
    let root = tempfile::tempdir().unwrap();
    write_checkpoint(root.path(), 1);
    let leave = |name: &str, age: u64| {
        let path = root.path().join(name);
        copy(&root.path().join("1"), &path);
        fs::remove_file(path.join("canet.json")).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        let directory = File::open(&path).unwrap();
        directory.set_times(FileTimes::new().set_modified(time)).unwrap();
        (path, directory)
    };
    let (fresh, _) = leave(".writing-1-0", 60);
    let (old, _) = leave(".writing-2-0", 7200);
    let (old_but_alive, lock) = leave(".writing-3-0", 7200);
    lock.lock().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let own = |number: u32| format!(".writing-{}-{number}-0", boot.split('-').next().unwrap());
    let (abandoned, _) = leave(&own(4), 0);
    let (alive, own_lock) = leave(&own(5), 0);
    own_lock.lock().unwrap();
    // Its writer may not have locked it yet.
    let new = root.path().join(own(6));
    fs::create_dir(&new).unwrap();
    assert_eq!(ModelDirectory::open(root.path()).unwrap().versions().unwrap(), [1]);
    assert_eq!(write_checkpoint(root.path(), 2).version, 2);
    assert_eq!((fresh.exists(), old.exists(), old_but_alive.exists()), (true, false, true));
    assert_eq!((abandoned.exists(), alive.exists(), new.exists()), (false, true, true));
}

#[test]
fn parts_that_do_not_fit_are_not_written() {
    type Spoil = fn(&mut CheckpointDraft);
    let table: [(Spoil, &str); 9] = [
        (
            |draft| draft.config.hidden = (1..=100).map(|width| 4 * width).collect(),
            "`hidden` has 100 widths whose squares sum to 34 times the widest one's: at most 16 times",
        ),
        (
            |draft| {
                draft.config.positions = Positions::Relative;
                draft.config.max_len = 8192;
            },
            "`positions` is relative, and layers x heads x max_len^2 is 536870912: it must be at most 268435456",
        ),
        (|draft| draft.config.heads = 5, "`hidden` has 4, which 5 heads do not divide"),
        (|draft| draft.config.items = 41, "items.tsv: 40 item ids, `config.items` says 41"),
        (|draft| draft.catalogue = catalogue(39), "items.tsv: 39 item ids, `config.items` says 40"),
        (
            |draft| draft.metrics.test = Some(BTreeMap::from([("mrr".to_owned(), f64::NAN)])),
            "`metrics.test.mrr` is not a finite number",
        ),
        (|draft| draft.calibration = Some(Calibration { points: Vec::new() }), "`calibration.points` is empty"),
        (
            |draft| {
                let mut tensor = draft.weights.get("router.head.bias").unwrap().clone();
                tensor.data[3] = f32::INFINITY;
                draft.weights.insert("router.head.bias", tensor);
            },
            "weight `router.head.bias` holds inf at place 3",
        ),
        (
            |draft| {
                let long = |index: usize| format!("{index}{}", "x".repeat(1100)).into();
                draft.catalogue = Catalogue::new((0..40).map(long).collect(), vec![0; 40]).unwrap();
            },
            "items.tsv: 44110 bytes, at most 41000 are possible",
        ),
    ];
    for (spoil, message) in table {
        let root = tempfile::tempdir().unwrap();
        let mut draft = draft(small_config(), 5);
        spoil(&mut draft);
        let error = draft.write(root.path()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "{message}: something was left");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
