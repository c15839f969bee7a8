//! Checkpoints: what is written comes back, and nothing damaged is ever loaded.

use canet::model::checkpoint::{ModelDirectory, Tolerance};

use super::support::{draft, on_cpu, small_config, write_checkpoint};

#[test]
fn what_is_written_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("tiny");
    let draft = draft(small_config(), 7);
    let written = draft.clone().write(&root).unwrap();
    let read = ModelDirectory::open(&root).unwrap().load(None).unwrap();
    assert_eq!((read.name.as_str(), read.version), ("tiny", 1));
    assert_eq!(read.digest, written.digest);
    assert_eq!(read.config, draft.config);
    assert_eq!(read.weights, draft.weights);
    assert_eq!(read.probes, draft.probes);
    assert_eq!(read.manifest.data, draft.data);
    assert_eq!(read.catalogue.ids(), draft.catalogue.ids());
    assert_eq!(read.catalogue.popularity(), draft.catalogue.popularity());
    for id in draft.catalogue.ids() {
        let item = draft.catalogue.item(id).unwrap();
        assert_eq!(read.catalogue.title(item), draft.catalogue.title(item));
    }
    let forward = on_cpu(&read.config, &read.weights);
    read.probes.replay(&forward, &read.space, Tolerance::FP32).unwrap();
}

#[test]
fn a_second_write_is_the_next_version() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(write_checkpoint(root.path(), 1).version, 1);
    assert_eq!(write_checkpoint(root.path(), 2).version, 2);
    let directory = ModelDirectory::open(root.path()).unwrap();
    assert_eq!(directory.versions().unwrap(), [1, 2]);
    assert_eq!(directory.latest().unwrap(), 2);
    assert_ne!(directory.load(Some(1)).unwrap().digest, directory.load(None).unwrap().digest);
}
