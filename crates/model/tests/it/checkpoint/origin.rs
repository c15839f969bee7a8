//! Models in a store: which versions there are, and what is copied when.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use canet_model::checkpoint::{FILE_NAMES, Fault, ModelDirectory, Origin, OriginError, OriginObject};
use canet_testing::write_checkpoint;

/// A store in memory that records what is read.
#[derive(Debug, Default)]
struct Memory {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    reads: Mutex<Vec<String>>,
    is_down: Mutex<bool>,
}

impl Memory {
    /// Puts the files of a new checkpoint under a number.
    fn put(&self, version: u64, seed: u64) {
        let root = tempfile::tempdir().unwrap();
        write_checkpoint(root.path(), seed);
        for name in FILE_NAMES {
            if let Ok(bytes) = fs::read(root.path().join("1").join(name)) {
                self.objects.lock().unwrap().insert(format!("{version}/{name}"), bytes);
            }
        }
    }

    fn remove(&self, key: &str) {
        self.objects.lock().unwrap().remove(key);
    }

    /// The keys that were read since the last call.
    fn reads(&self) -> Vec<String> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }

    fn check(&self) -> Result<(), OriginError> {
        match *self.is_down.lock().unwrap() {
            true => Err(OriginError::Unavailable("nobody answers".to_owned())),
            false => Ok(()),
        }
    }
}

impl Origin for Memory {
    fn address(&self) -> &'static str {
        "mem://shop"
    }

    fn list(&self) -> Result<Vec<OriginObject>, OriginError> {
        self.check()?;
        let object = |(key, bytes): (&String, &Vec<u8>)| OriginObject {
            key: key.clone(),
            bytes: bytes.len() as u64,
            tag: String::new(),
        };
        Ok(self.objects.lock().unwrap().iter().map(object).collect())
    }

    fn read(&self, key: &str, limit: u64, to: &mut dyn Write) -> Result<(), OriginError> {
        self.check()?;
        self.reads.lock().unwrap().push(key.to_owned());
        let objects = self.objects.lock().unwrap();
        let bytes = objects.get(key).ok_or(OriginError::Missing)?;
        match bytes.len() as u64 {
            size if size > limit => Err(OriginError::TooLarge { size }),
            _ => Ok(to.write_all(bytes)?),
        }
    }
}

fn model(store: &Arc<Memory>, cache: &Path) -> ModelDirectory {
    ModelDirectory::of_origin(&cache.join("shop"), Arc::clone(store) as Arc<dyn Origin>).unwrap()
}

/// The copies in a cache.
fn copies(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(cache.join("shop")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_version_exists_once_its_manifest_does() {
    let (store, cache) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let model = model(&store, cache.path());
    let error = model.latest().unwrap_err().to_string();
    assert!(error.starts_with("mem://shop: holds no version"), "{error}");
    for version in [1, 2, 10] {
        store.put(version, version);
    }
    store.remove("2/canet.json");
    store.objects.lock().unwrap().insert("v3/canet.json".to_owned(), Vec::new());
    let listing = model.list().unwrap();
    assert_eq!((listing.versions, listing.ignored), (vec![1, 10], vec!["v3".to_owned()]));
    assert_eq!(listing.objects[&10].len(), FILE_NAMES.len());
    let error = model.load(Some(2)).unwrap_err().to_string();
    assert_eq!(error, "mem://shop: there is no version 2; the model has versions 1 and 10");
    assert_eq!(model.load(None).unwrap().version, 10);
}

#[test]
fn a_version_is_copied_once_and_again_if_either_side_changes() {
    let (store, cache) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    store.put(1, 1);
    let model = model(&store, cache.path());
    assert_eq!(model.load(None).unwrap().name, "shop");
    assert!(store.reads().len() > 3);
    let first = model.load(None).unwrap();
    assert_eq!(store.reads(), ["1/canet.json"]);
    assert_eq!(model.manifest(1).unwrap(), first.manifest);
    assert!(model.is_complete(1));

    // The copy is damaged.
    fs::write(cache.path().join("shop/1/items.tsv"), "damaged").unwrap();
    assert_eq!(model.load(None).unwrap().digest, first.digest);
    // The store has another version under the number.
    store.put(1, 2);
    assert_ne!(model.load(None).unwrap().digest, first.digest);
    assert_eq!(copies(cache.path()), ["1"]);
    // Another process finds the copy.
    store.reads();
    self::model(&store, cache.path()).load(Some(1)).unwrap();
    assert_eq!(store.reads(), ["1/canet.json"]);
}

#[test]
fn only_the_copies_that_were_used_last_stay() {
    let (store, cache) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let model = model(&store, cache.path());
    for version in 1..=4 {
        store.put(version, version);
        model.load(Some(version)).unwrap();
        // Versions are used in this order, whatever the clock's steps are.
        let used = std::time::UNIX_EPOCH + std::time::Duration::from_secs(version);
        fs::File::open(cache.path().join(format!("shop/{version}"))).unwrap().set_modified(used).unwrap();
    }
    assert_eq!(copies(cache.path()), ["2", "3", "4"]);
    model.load(Some(2)).unwrap();
    store.put(5, 5);
    model.load(Some(5)).unwrap();
    assert_eq!(copies(cache.path()), ["2", "4", "5"]);
}

#[test]
fn a_bad_version_leaves_no_copy_and_its_object_is_named() {
    let (store, cache) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    store.put(1, 1);
    let model = model(&store, cache.path());
    let whole = store.objects.lock().unwrap().clone();
    let damages: [(&str, Option<&[u8]>, &str); 4] = [
        ("1/weights.safetensors", Some(b"other"), "mem://shop/1/weights.safetensors: sha256 is"),
        ("1/items.tsv", None, "mem://shop/1/items.tsv: the file is missing"),
        ("1/items.tsv", Some(&[0; 9 << 20]), "mem://shop/1/items.tsv: 9437184 bytes, at most"),
        ("1/canet.json", Some(b"{}"), "mem://shop/1/canet.json: "),
    ];
    for (key, bytes, words) in damages {
        let mut objects = whole.clone();
        match bytes {
            Some(bytes) => drop(objects.insert(key.to_owned(), bytes.to_vec())),
            None => drop(objects.remove(key)),
        }
        *store.objects.lock().unwrap() = objects;
        let error = model.load(Some(1)).unwrap_err();
        assert!(error.to_string().starts_with(words), "{error}");
        let fault = if bytes.is_none() { Fault::Incomplete } else { Fault::Rejected };
        assert_eq!(error.fault(), fault, "{error}");
        assert!(!model.is_complete(1));
        assert_eq!(copies(cache.path()), [""; 0]);
    }
    // Titles are not worth a version.
    *store.objects.lock().unwrap() = whole;
    store.objects.lock().unwrap().insert("1/titles.tsv".to_owned(), vec![b'x'; 64 << 20]);
    assert!(model.load(Some(1)).is_ok());
}

#[test]
fn a_store_that_fails_is_no_fault_of_the_version() {
    let (store, cache) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    store.put(1, 1);
    let model = model(&store, cache.path());
    model.load(Some(1)).unwrap();
    *store.is_down.lock().unwrap() = true;
    for error in [model.load(Some(1)).map(drop), model.load(None).map(drop), model.manifest(1).map(drop)] {
        let error = error.unwrap_err();
        assert_eq!(error.fault(), Fault::StoreUnavailable);
        assert!(error.to_string().ends_with(": nobody answers"), "{error}");
    }
    assert!(!model.is_complete(1));
    assert_eq!(model.copies().unwrap().load(None).unwrap().version, 1);
}

#[test]
fn a_disk_that_takes_no_copy_is_no_fault_of_the_version() {
    let (store, cache) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    store.put(1, 1);
    let model = model(&store, cache.path());
    // A file where the copies belong refuses them, also to the superuser.
    let copies = cache.path().join("shop");
    fs::remove_dir_all(&copies).unwrap();
    fs::write(&copies, "").unwrap();
    let error = model.load(Some(1)).unwrap_err();
    assert_eq!(error.fault(), Fault::StoreUnavailable, "{error}");
    assert!(error.to_string().contains("cannot create this copy of a version: "), "{error}");
    fs::remove_file(&copies).unwrap();
    fs::create_dir(&copies).unwrap();
    assert_eq!(model.load(Some(1)).unwrap().version, 1);
}

#[test]
fn a_wrong_prefix_is_answered_with_the_right_one() {
    let (store, cache) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    store.put(3, 1);
    let moved = |to: &str| {
        let objects = store.objects.lock().unwrap();
        let object = |(key, bytes): (&String, &Vec<u8>)| (key.replacen("3/", to, 1), bytes.clone());
        Arc::new(Memory { objects: Mutex::new(objects.iter().map(object).collect()), ..Memory::default() })
    };
    for (to, words) in [
        ("eu/3/", "mem://shop: holds models, not versions; name one of them, as mem://shop/eu"),
        ("", "mem://shop: this is one version of a model; give the model's directory"),
    ] {
        let error = model(&moved(to), cache.path()).latest().unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
}
