use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{CheckpointError, ModelDirectory, files};

/// Versions being written have hidden names that are no numbers, so that nothing reads them.
const PREFIX: &str = ".writing-";

/// What is younger may belong to a writer that has made its directory and not locked it yet.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// A version that is being written: a hidden directory, locked as long as its writer lives, that gets its number by
/// one rename. Dropped before that, it is removed.
pub(super) struct Staging<'a> {
    model: &'a ModelDirectory,
    path: PathBuf,
    published: bool,
    _lock: Option<File>,
}

impl<'a> Staging<'a> {
    /// A fresh empty directory beside the versions.
    pub(super) fn new(model: &'a ModelDirectory) -> Result<Staging<'a>, CheckpointError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        remove_stale(model.path());
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = model.path().join(format!("{PREFIX}{}-{count}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let lock = lock(&path);
                    return Ok(Staging { model, path, published: false, _lock: lock });
                }
                // Process ids repeat: in another container, or after a restart.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(CheckpointError::io(path, "create")(error)),
            }
        }
    }

    /// Where a file of the version is to be written.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Gives the version the next free number. Its files must be durable already.
    ///
    /// A rename onto a version that another writer has just published fails, because that one is not empty; then
    /// the next number is tried.
    pub(super) fn publish(mut self) -> Result<u64, CheckpointError> {
        files::sync_directory(&self.path)?;
        loop {
            let version = self.model.next_version()?;
            let target = self.model.version_path(version);
            match fs::rename(&self.path, &target) {
                Ok(()) => {
                    self.published = true;
                    files::sync_directory(self.model.path())?;
                    return Ok(version);
                }
                Err(error) if taken(&error) => {}
                Err(error) => return Err(CheckpointError::io(target, "create")(error)),
            }
        }
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if !self.published {
            // The write has failed already; what stays is swept by a later one.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

/// Removes what killed writers left: old, and locked by nobody. Where a file system has no locks, nothing is removed.
fn remove_stale(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if age.is_some_and(|age| age > STALE_AFTER) && lock(&path).is_some() {
            // Only disk space is lost where this fails.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// An exclusive lock on a directory, which ends with the process that holds it.
fn lock(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    directory.try_lock().ok()?;
    Some(directory)
}
