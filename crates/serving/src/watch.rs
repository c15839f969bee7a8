use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ReloadError, Reloader};
use canet_model::checkpoint::{CheckpointError, Listing, ModelDirectory};

/// How often the directory is listed. A listing costs microseconds. Unlike notifications it also works on network file
/// systems.
const POLL: Duration = Duration::from_secs(1);

/// How long the files of a version must stand still before it is loaded. Somebody may be copying them.
const STILL: Duration = Duration::from_secs(2);

/// Identifies a state of the highest version without reading its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    version: u64,
    /// Every file, by name.
    files: Vec<FileStamp>,
    /// Device and inode of each of them.
    inodes: Vec<(u64, u64)>,
}

/// Identifies a state of a file. A link stands for the file that it leads to.
///
/// A copy can keep size and modification time of the file that it replaces, but not the time at which the file system
/// last changed the file's entry.
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
/// was tried is never tried, so that a deliberate return to an older version lasts. A new state must stand still for two
/// seconds, because most copies are made file by file.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    tried: Option<Stamp>,
    /// A new state, and when it was first seen.
    pending: Option<(Stamp, Instant)>,
}

impl Stamp {
    /// The present state of the highest version; `None` if the directory has no version.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the directory cannot be read.
    pub fn read(directory: &ModelDirectory) -> Result<Option<Stamp>, CheckpointError> {
        Stamp::of(directory, &directory.list()?)
    }

    fn of(directory: &ModelDirectory, listing: &Listing) -> Result<Option<Stamp>, CheckpointError> {
        let Some(version) = listing.versions.last().copied() else { return Ok(None) };
        let path = directory.path().join(version.to_string());
        let files = Stamp::files(&path).map_err(|source| CheckpointError::Io { path, action: "list", source })?;
        let (files, inodes) = files.into_iter().unzip();
        Ok(Some(Stamp { version, files, inodes }))
    }

    fn files(path: &Path) -> io::Result<Vec<(FileStamp, (u64, u64))>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let about = match followed(&entry) {
                // The file went between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                about => about?,
            };
            let stamp = FileStamp {
                name: entry.file_name(),
                bytes: about.len(),
                modified: (about.mtime(), about.mtime_nsec()),
                changed: (about.ctime(), about.ctime_nsec()),
            };
            files.push((stamp, (about.dev(), about.ino())));
        }
        files.sort_unstable();
        Ok(files)
    }
}

/// The metadata of an entry's file, or of the link itself if that leads nowhere.
fn followed(entry: &DirEntry) -> io::Result<Metadata> {
    fs::metadata(entry.path()).or_else(|_| entry.metadata())
}

impl Watch {
    /// A state is new only if it differs from `served`.
    pub fn new(served: Option<Stamp>) -> Watch {
        Watch { tried: served, pending: None }
    }

    /// The version to load, if `found` is new and has stood still for two seconds at `now`.
    pub fn news(&mut self, found: &Stamp, now: Instant) -> Option<u64> {
        let Some(change) = self.change(found) else {
            self.pending = None;
            return None;
        };
        match &self.pending {
            Some((pending, since)) if change.stands_still(pending, found) => {
                (now.saturating_duration_since(*since) >= STILL).then_some(found.version)
            }
            _ => {
                self.pending = Some((found.clone(), now));
                None
            }
        }
    }

    /// How a state differs from the one that was tried. `None` if it is not to be tried.
    fn change(&self, found: &Stamp) -> Option<Change> {
        let Some(tried) = &self.tried else { return Some(Change::Files) };
        if found.version > tried.version {
            return Some(Change::Files);
        }
        match found.version == tried.version {
            true if found.files != tried.files => Some(Change::Files),
            true if found.inodes != tried.inodes => Some(Change::Inodes),
            _ => None,
        }
    }

    /// Marks a state as loaded or refused.
    pub fn tried(&mut self, stamp: Stamp) {
        self.tried = Some(stamp);
        self.pending = None;
    }

    /// Loads every new state of the reloader's directory. Ends only with the runtime.
    pub async fn run(mut self, reloader: Arc<Reloader>) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            poll.tick().await;
            let watched = Arc::clone(&reloader);
            let look = move || {
                let directory = watched.directory();
                let listing = directory.list()?;
                watched.log_ignored(&listing);
                Stamp::of(directory, &listing)
            };
            let stamp = match tokio::task::spawn_blocking(look).await {
                Ok(Ok(Some(stamp))) => stamp,
                Ok(Ok(None)) => continue,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the watched directory could not be read");
                    continue;
                }
                // The runtime is stopping.
                Err(_) => return,
            };
            let Some(version) = self.news(&stamp, Instant::now()) else { continue };
            // Another reload may miss this version, so the next poll asks again.
            if !matches!(reloader.reload(Some(version)).await, Err(ReloadError::InProgress)) {
                self.tried(stamp);
            }
        }
    }
}

/// How a new state differs from the one that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// By its version, or by its files' names, sizes or times.
    Files,
    /// By its inodes alone, because files were replaced by others of equal size and times.
    Inodes,
}

impl Change {
    /// Whether a new state is still the same.
    ///
    /// Some network file systems report another inode at each listing. There a state that differs by its inodes alone never
    /// stands still, so it is never loaded for nothing.
    fn stands_still(self, pending: &Stamp, found: &Stamp) -> bool {
        (pending.version, &pending.files) == (found.version, &found.files)
            && (self == Change::Files || pending.inodes == found.inodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version of one file, by its number, size and inode.
    fn stamp(version: u64, bytes: u64, inode: u64) -> Stamp {
        let file = FileStamp { name: "canet.json".into(), bytes, modified: (1, 0), changed: (1, 0) };
        Stamp { version, files: vec![file], inodes: vec![(1, inode)] }
    }

    /// The polls of a second each at which a watch that served the first state loads a version.
    fn loads(states: &[Stamp]) -> Vec<usize> {
        let (start, mut watch) = (Instant::now(), Watch::new(states.first().cloned()));
        let mut loads = Vec::new();
        for (poll, state) in states.iter().enumerate() {
            if let Some(version) = watch.news(state, start + POLL * poll as u32) {
                assert_eq!(version, state.version);
                watch.tried(state.clone());
                loads.push(poll);
            }
        }
        loads
    }

    #[test]
    fn a_version_is_loaded_once_when_its_files_stand_still() {
        let served = stamp(1, 9, 1);
        // The file grows while it is copied.
        let copied = [3, 5, 8, 9, 9, 9, 9, 9].map(|bytes| stamp(2, bytes, 2));
        assert_eq!(loads(&[&[served.clone()][..], &copied].concat()), [6]);
        assert_eq!(loads(&[served, stamp(2, 9, 2)]), [] as [usize; 0]);
    }

    #[test]
    fn a_file_that_was_replaced_by_one_of_equal_size_and_times_is_loaded() {
        let (served, other) = (stamp(1, 9, 1), stamp(1, 9, 2));
        assert_eq!(loads(&[served, other.clone(), other.clone(), other.clone(), other]), [3]);
    }

    #[test]
    fn inodes_that_change_at_each_listing_load_nothing_and_delay_nothing() {
        let served = (0..9).map(|inode| stamp(1, 9, inode));
        assert_eq!(loads(&served.clone().collect::<Vec<_>>()), [] as [usize; 0]);
        let next = (9..19).map(|inode| stamp(2, 9, inode));
        assert_eq!(loads(&served.chain(next).collect::<Vec<_>>()), [11]);
    }
}
