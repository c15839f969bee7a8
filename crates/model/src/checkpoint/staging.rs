use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{CheckpointError, files, versions};

/// Prefix of unfinished versions. The name is not a number, so no reader takes it for a version. The first part of the boot's
/// id, the process id and a count follow.
const PREFIX: &str = ".writing-";

/// Age at which an unlocked staging directory is removed although this machine did not write it.
///
/// Locks show that the writer is gone, and they end with its process. But some shared file systems lock for each machine
/// alone, and there the lock of a writer elsewhere is not seen. Such a writer changes its directory more often than this.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// A version that is being written: a hidden directory that its writer locks. One rename publishes it. If it is dropped
/// before that, it is removed.
pub(super) struct Staging<'a> {
    root: &'a Path,
    path: PathBuf,
    published: bool,
    lock: Option<File>,
}

impl<'a> Staging<'a> {
    /// Creates an empty directory beside the versions, in the model's directory `root`.
    pub(super) fn new(root: &'a Path) -> Result<Staging<'a>, CheckpointError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        remove_stale(root);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let boot = boot().unwrap_or_else(|| "unknown".to_owned());
            let path = root.join(format!("{PREFIX}{boot}-{}-{count}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let lock = lock(&path);
                    return Ok(Staging { root, path, published: false, lock });
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

    /// Renames the directory to a number, and returns its lock. `None` if there is a version of that number. Its files must be
    /// synced already.
    pub(super) fn publish_as(&mut self, version: u64) -> Result<Option<File>, CheckpointError> {
        if !self.rename_to(version)? {
            return Ok(None);
        }
        // Without locks, the opened directory stands for one.
        let target = versions::path_of(self.root, version);
        let lock = self.lock.take().map_or_else(|| File::open(&target), Ok);
        lock.map(Some).map_err(CheckpointError::io(&target, "open"))
    }

    /// Renames the directory to a number, which publishes it. Returns whether the number was free.
    fn rename_to(&mut self, version: u64) -> Result<bool, CheckpointError> {
        files::sync_directory(&self.path)?;
        let target = versions::path_of(self.root, version);
        match fs::rename(&self.path, &target) {
            Ok(()) => {
                self.published = true;
                files::sync_directory(self.root)?;
                Ok(true)
            }
            Err(error) if taken(&error) => Ok(false),
            Err(error) => Err(CheckpointError::io(target, "create")(error)),
        }
    }

    /// Removes a directory. It is moved into this one first, so that nobody sees half of it.
    pub(super) fn take(self, path: &Path) -> Result<(), CheckpointError> {
        match fs::rename(path, self.path.join("removed")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CheckpointError::io(path, "remove")(error)),
            _ => Ok(()),
        }
    }

    /// Renames the directory to the next free number. Its files must be synced already.
    ///
    /// If another writer publishes that number first, the rename fails because that directory is not empty. Then this
    /// tries the next number.
    pub(super) fn publish(mut self) -> Result<u64, CheckpointError> {
        loop {
            let version = versions::next(self.root)?;
            if self.rename_to(version)? {
                return Ok(version);
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

/// Removes staging directories that killed writers left: those that nobody locks. It removes nothing on a file system
/// without locks.
///
/// A directory of this boot goes at once, because this machine sees the locks of all its processes, those in other
/// containers included. An empty one may belong to a writer that has not locked it yet. It takes no space, so it stays
/// until it is old, as a directory of another machine does.
fn remove_stale(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    let own = boot().map(|boot| format!("{PREFIX}{boot}-"));
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if !name.starts_with(PREFIX) {
            continue;
        }
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok());
        let old = age.is_some_and(|age| age > STALE_AFTER);
        let Some(_lock) = try_lock(&path) else { continue };
        // The lock comes first: a writer writes its first file only when it has the lock.
        let abandoned = own.as_ref().is_some_and(|own| name.starts_with(own)) && !is_empty(&path);
        if old || abandoned {
            // A failure wastes disk space only.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The beginning of a number that is another one after each start of this machine. `None` if the system does not tell it.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let start = id.split('-').next()?;
    (start.len() >= 8).then(|| start.to_owned())
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

/// Locks a directory exclusively, if no process holds its lock. The lock ends with the process at the latest.
fn try_lock(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    directory.try_lock().ok()?;
    Some(directory)
}

/// Locks a new directory exclusively, if the file system can. It waits for a writer that looks whether the directory is
/// stale.
fn lock(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    directory.lock().ok()?;
    Some(directory)
}
