use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use super::{ReloadError, Reloader};
use canet_model::checkpoint::{CheckpointError, ModelDirectory};

/// How often the directory is listed. A listing costs microseconds. Unlike notifications it also works on network file
/// systems.
const POLL: Duration = Duration::from_secs(1);

/// Identifies a state of the highest version without reading its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    version: u64,
    /// Every file, by name.
    files: Vec<FileStamp>,
}

/// Identifies a state of a file.
///
/// A copy can keep size and modification time of the file that it replaces, but not the time at which the file system
/// last changed the file's entry. The inode is left out: some network file systems report another one at each listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileStamp {
    name: OsString,
    bytes: u64,
    /// Seconds and nanoseconds of the last modification.
    modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of contents, name, owner or mode.
    changed: (i64, i64),
}

/// Decides which state of a model's directory is new.
///
/// A version that was tried, with or without success, is tried again only if its files change. A version below one that
/// was tried is never tried, so that a deliberate return to an older version lasts.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    tried: Option<Stamp>,
}

impl Stamp {
    /// The present state of the highest version; `None` if the directory has no version.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the directory cannot be read.
    pub fn read(directory: &ModelDirectory) -> Result<Option<Stamp>, CheckpointError> {
        let Some(version) = directory.versions()?.pop() else { return Ok(None) };
        let path = directory.path().join(version.to_string());
        let files = Stamp::files(&path).map_err(|source| CheckpointError::Io { path, action: "list", source })?;
        Ok(Some(Stamp { version, files }))
    }

    fn files(path: &std::path::Path) -> io::Result<Vec<FileStamp>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let about = entry.metadata()?;
            files.push(FileStamp {
                name: entry.file_name(),
                bytes: about.len(),
                modified: (about.mtime(), about.mtime_nsec()),
                changed: (about.ctime(), about.ctime_nsec()),
            });
        }
        files.sort_unstable();
        Ok(files)
    }
}

impl Watch {
    /// A state is new only if it differs from `served`.
    pub fn new(served: Option<Stamp>) -> Watch {
        Watch { tried: served }
    }

    /// The version to load if `found` is new.
    pub fn news(&self, found: &Stamp) -> Option<u64> {
        let news = self.tried.as_ref().is_none_or(|tried| {
            found.version > tried.version || (found.version == tried.version && found.files != tried.files)
        });
        news.then_some(found.version)
    }

    /// Marks a state as loaded or refused.
    pub fn tried(&mut self, stamp: Stamp) {
        self.tried = Some(stamp);
    }

    /// Loads every new state of the reloader's directory. Ends only with the runtime.
    pub async fn run(mut self, reloader: Arc<Reloader>) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            poll.tick().await;
            let directory = reloader.directory().clone();
            let stamp = match tokio::task::spawn_blocking(move || Stamp::read(&directory)).await {
                Ok(Ok(Some(stamp))) => stamp,
                Ok(Ok(None)) => continue,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the watched directory could not be read");
                    continue;
                }
                // The runtime is stopping.
                Err(_) => return,
            };
            let Some(version) = self.news(&stamp) else { continue };
            // Another reload may miss this version, so the next poll asks again.
            if !matches!(reloader.reload(Some(version)).await, Err(ReloadError::InProgress)) {
                self.tried(stamp);
            }
        }
    }
}
