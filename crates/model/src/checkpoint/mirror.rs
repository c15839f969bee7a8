//! Copies of a store's versions in a model's directory.
//!
//! A version is downloaded aside, checked against the digests of its manifest and renamed, so the directory holds whole
//! versions alone. A copy whose manifest equals the store's is used again. A reader locks the copy that it reads, and only
//! copies that nobody reads are removed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::files::{MANIFEST, TITLES};
use super::read::{self, ExpectedFile, MANIFEST_LIMIT};
use super::staging::Staging;
use super::{CheckpointError, Manifest, Origin, OriginError, files, items, versions};

/// How many copies of a model's versions stay: those of the live version, of a candidate, and of one that replaces them.
const KEPT: usize = 3;

/// A copy of a version. Nobody removes it before this drops.
pub(super) struct Held {
    _lock: File,
    /// Whether the copy is older than the call that returned it.
    pub(super) is_old: bool,
}

/// The manifest of a version as it stands in the store; `None` if the version does not exist.
pub(super) fn manifest_bytes(origin: &dyn Origin, version: u64) -> Result<Option<Vec<u8>>, CheckpointError> {
    let mut bytes = Vec::new();
    match origin.read(&key(version, MANIFEST), MANIFEST_LIMIT, &mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(OriginError::Missing) => Ok(None),
        Err(error) => Err(failed(origin, &key(version, MANIFEST), MANIFEST_LIMIT, error)),
    }
}

/// Brings the version with this manifest into the model's directory `root`, unless it is there. Then it removes copies that nobody has
/// used for long.
pub(super) fn fetch(root: &Path, origin: &dyn Origin, version: u64, manifest: &[u8]) -> Result<Held, CheckpointError> {
    if let Some(held) = hold(&versions::path_of(root, version), manifest) {
        return Ok(held);
    }
    let held = download(root, origin, version, manifest).map_err(CheckpointError::of_copy)?;
    remove_unused(root);
    Ok(held)
}

/// Removes the copy of a version, after all that read it.
pub(super) fn discard(root: &Path, version: u64) -> Result<(), CheckpointError> {
    let path = versions::path_of(root, version);
    let opened = File::open(&path).map_err(CheckpointError::io(&path, "open")).map_err(CheckpointError::of_copy)?;
    // Some file systems have no locks. There a reader of this moment may fail.
    let _ = opened.lock();
    Staging::new(root).and_then(|staging| staging.take(&path)).map_err(CheckpointError::of_copy)
}

/// Locks the copy at `path` for reading, if it has this manifest.
fn hold(path: &Path, manifest: &[u8]) -> Option<Held> {
    let directory = File::open(path).ok()?;
    // Without locks nobody removes the copy either.
    let _ = directory.lock_shared();
    let (found, locked) = (fs::metadata(path).ok()?, directory.metadata().ok()?);
    // It may have been removed before the lock was free.
    let is_there = (found.dev(), found.ino()) == (locked.dev(), locked.ino());
    let is_same = || files::read_bounded(&path.join(MANIFEST), MANIFEST_LIMIT).is_ok_and(|bytes| bytes == manifest);
    (is_there && is_same()).then(|| {
        // The time tells which copies are in use. A failure makes this one look old.
        let _ = directory.set_modified(SystemTime::now());
        Held { _lock: directory, is_old: true }
    })
}

/// Downloads a version aside and renames it into the directory.
fn download(root: &Path, origin: &dyn Origin, version: u64, bytes: &[u8]) -> Result<Held, CheckpointError> {
    let manifest: Manifest = read::parse_manifest(&address(origin, &key(version, MANIFEST)), bytes)?;
    let expected = read::expected_files(&address(origin, &key(version, MANIFEST)), &manifest)?;
    let mut staging = Staging::new(root)?;
    for ExpectedFile { name, sha256, limit } in expected {
        let key = key(version, name);
        let path = staging.file(name);
        let mut copy = Copy::create(&path)?;
        origin.read(&key, limit, &mut copy).map_err(|error| failed_copy(origin, &key, limit, error, &path))?;
        let found = copy.finish(&path)?;
        files::compare(&address(origin, &key), found, sha256)?;
    }
    copy_titles(origin, version, &manifest, &staging)?;
    let path = staging.file(MANIFEST);
    let mut copy = Copy::create(&path)?;
    copy.write_all(bytes).map_err(CheckpointError::io(&path, "write"))?;
    copy.finish(&path)?;
    let target = versions::path_of(root, version);
    let lock = loop {
        // Another process may have copied the version meanwhile.
        if let Some(held) = hold(&target, bytes) {
            return Ok(held);
        }
        if target.exists() {
            discard(root, version)?;
        }
        if let Some(lock) = staging.publish_as(version)? {
            break lock;
        }
    };
    // From now on others may read the copy as well.
    let _ = lock.lock_shared();
    Ok(Held { _lock: lock, is_old: false })
}

/// Titles have no digest and may be missing. They keep no version from being copied.
fn copy_titles(
    origin: &dyn Origin,
    version: u64,
    manifest: &Manifest,
    staging: &Staging<'_>,
) -> Result<(), CheckpointError> {
    let (key, path, limit) = (key(version, TITLES), staging.file(TITLES), items::titles_limit(manifest.config.items));
    let mut copy = Copy::create(&path)?;
    match origin.read(&key, limit, &mut copy) {
        Ok(()) => copy.finish(&path).map(drop),
        Err(OriginError::Missing | OriginError::TooLarge { .. }) => {
            fs::remove_file(&path).map_err(CheckpointError::io(&path, "remove"))
        }
        Err(error) => Err(failed_copy(origin, &key, limit, error, &path)),
    }
}

/// Removes all but the copies that were used last. One that is being read stays.
fn remove_unused(root: &Path) {
    let Ok(versions) = versions::numbered(root) else { return };
    let used = |version: &u64| fs::metadata(versions::path_of(root, *version)).and_then(|about| about.modified()).ok();
    let mut versions: Vec<(Option<SystemTime>, u64)> =
        versions.into_iter().map(|version| (used(&version), version)).collect();
    versions.sort_unstable();
    for (_, version) in versions.into_iter().rev().skip(KEPT) {
        let path = versions::path_of(root, version);
        let Ok(copy) = File::open(&path) else { continue };
        if copy.try_lock().is_ok() {
            // A failure wastes disk space only. The next download tries again.
            let _ = Staging::new(root).and_then(|staging| staging.take(&path));
        }
    }
}

fn key(version: u64, name: &str) -> String {
    format!("{version}/{name}")
}

/// How errors name an object.
fn address(origin: &dyn Origin, key: &str) -> PathBuf {
    PathBuf::from(format!("{}/{key}", origin.address()))
}

/// The error of an object that cannot be read.
pub(super) fn failed(origin: &dyn Origin, key: &str, limit: u64, error: OriginError) -> CheckpointError {
    let path = address(origin, key);
    match error {
        OriginError::Missing => CheckpointError::MissingFile { path },
        OriginError::TooLarge { size } => CheckpointError::TooLarge { path, size, limit },
        OriginError::Write(source) => CheckpointError::Io { path, action: "copy", source },
        OriginError::Unavailable(reason) => CheckpointError::Origin { address: path.display().to_string(), reason },
    }
}

/// Like [`failed`] for an object that is copied to `path`.
fn failed_copy(origin: &dyn Origin, key: &str, limit: u64, error: OriginError, path: &Path) -> CheckpointError {
    match error {
        OriginError::Write(source) => CheckpointError::io(path, "write")(source),
        error => failed(origin, key, limit, error),
    }
}

/// A file that is being written, and the digest of what is written so far.
struct Copy {
    file: File,
    hasher: Sha256,
}

impl Copy {
    fn create(path: &Path) -> Result<Copy, CheckpointError> {
        let file = File::create_new(path).map_err(CheckpointError::io(path, "create"))?;
        Ok(Copy { file, hasher: Sha256::new() })
    }

    /// Syncs the file and returns its digest.
    fn finish(self, path: &Path) -> Result<String, CheckpointError> {
        self.file.sync_all().map_err(CheckpointError::io(path, "sync"))?;
        Ok(files::hex(&self.hasher.finalize()))
    }
}

impl Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
