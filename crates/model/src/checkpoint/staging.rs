use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{CheckpointError, ModelDirectory, files};

/// Prefix of unfinished versions. The name is not a number, so no reader takes it for a version.
const PREFIX: &str = ".writing-";

/// Age at which an unlocked staging directory is removed. A younger one may belong to a writer that has not locked it yet.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// A version that is being written: a hidden directory that its writer locks. One rename publishes it. If it is dropped
/// before that, it is removed.
pub(super) struct Staging<'a> {
    model: &'a ModelDirectory,
    path: PathBuf,
    published: bool,
    _lock: Option<File>,
}

impl<'a> Staging<'a> {
    /// Creates an empty directory beside the versions.
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
                // Process ids repeat in another container or after a restart.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(CheckpointError::io(path, "create")(error)),
            }
        }
    }

    /// The path of one of the version's files.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Renames the directory to the next free number. Its files must be synced already.
    ///
    /// If another writer publishes that number first, the rename fails because that directory is not empty. Then this
    /// tries the next number.
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
            // A later write removes the directory if this fails.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

/// Removes staging directories that killed writers left: old ones that nobody locks. It removes nothing on a file system
/// without locks.
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
            // A failure wastes disk space only.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Locks a directory exclusively. The lock ends with the process at the latest.
fn lock(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    directory.try_lock().ok()?;
    Some(directory)
}
