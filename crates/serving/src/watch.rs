use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Priority, ReloadError, Reloader};
use canet_model::checkpoint::{CheckpointError, Listing, ModelDirectory, OriginObject};

/// How long the files of a version must stand still before it is loaded although they do not have their digests. Somebody may
/// be copying them.
const STILL: Duration = Duration::from_secs(2);

/// After files without their digests were read, the next reading waits this many times as long as that one took: a copy may
/// reserve the space of a large file first and then change it for minutes.
const READING_PAUSE: u32 = 10;

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
    /// What a store says of an object's content, in place of times. Empty for a file.
    tag: String,
}

/// Decides which state of a model's directory is new.
///
/// A version that was tried, with or without success, is tried again only if its files change. A version below one that
/// was tried is never tried, so that a deliberate return to an older version lasts.
///
/// Most copies are made file by file. So a new state is tried once all its files have the digests of their manifest, which
/// nobody copies any more, or once it has stood still for two seconds.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    tried: Option<Stamp>,
    pending: Option<Pending>,
    /// No files are read before this time.
    read_from: Option<Instant>,
}

/// A new state.
#[derive(Clone, Debug)]
struct Pending {
    stamp: Stamp,
    since: Instant,
    /// Whether its files were read already and lack their digests.
    is_read: bool,
}

/// What a watch does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is new, or too early to try.
    Wait,
    /// Read the files of this version, and load it if they have their digests. Otherwise call [`Watch::incomplete`].
    Read(u64),
    /// Load this version.
    Load(u64),
}

impl Stamp {
    /// The present state of the highest version; `None` if the directory has no version.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if the directory cannot be read.
    pub fn read(directory: &ModelDirectory) -> Result<Option<Stamp>, CheckpointError> {
        Stamp::of(directory, &directory.list()?)
    }

    /// The present state of a single file, which stands for a version 0.
    ///
    /// # Errors
    /// [`io::Error`] if the file does not exist or cannot be looked at.
    pub(crate) fn of_file(path: &Path) -> io::Result<Stamp> {
        let (file, inode) = FileStamp::of(path.as_os_str().to_owned(), &fs::metadata(path)?);
        Ok(Stamp { version: 0, files: vec![file], inodes: vec![inode] })
    }

    fn of(directory: &ModelDirectory, listing: &Listing) -> Result<Option<Stamp>, CheckpointError> {
        let Some(version) = listing.versions.last().copied() else { return Ok(None) };
        if let Some(objects) = listing.objects.get(&version) {
            return Ok(Some(Stamp {
                version,
                files: objects.iter().map(FileStamp::of_object).collect(),
                inodes: Vec::new(),
            }));
        }
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
            files.push(FileStamp::of(entry.file_name(), &about));
        }
        files.sort_unstable();
        Ok(files)
    }
}

impl FileStamp {
    /// The stamp of a file, and its device and inode.
    fn of(name: OsString, about: &Metadata) -> (FileStamp, (u64, u64)) {
        let stamp = FileStamp {
            name,
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
            tag: String::new(),
        };
        (stamp, (about.dev(), about.ino()))
    }

    fn of_object(object: &OriginObject) -> FileStamp {
        let OriginObject { key, bytes, tag } = object.clone();
        FileStamp { name: key.into(), bytes, modified: (0, 0), changed: (0, 0), tag }
    }
}

/// The metadata of an entry's file, or of the link itself if that leads nowhere.
fn followed(entry: &DirEntry) -> io::Result<Metadata> {
    fs::metadata(entry.path()).or_else(|_| entry.metadata())
}

impl Watch {
    /// How often files are looked at, unless somebody says otherwise. A listing costs microseconds. Unlike notifications it
    /// also works on network file systems.
    pub const INTERVAL: Duration = Duration::from_millis(500);

    /// A state is new only if it differs from `served`.
    pub fn new(served: Option<Stamp>) -> Watch {
        Watch { tried: served, ..Watch::default() }
    }

    /// What to do about the state that was found at `now`.
    pub fn next(&mut self, found: &Stamp, now: Instant) -> Step {
        let Some(change) = self.change(found) else {
            self.pending = None;
            return Step::Wait;
        };
        let pending = match self.pending.take() {
            Some(pending) if change.stands_still(&pending.stamp, found) => pending,
            _ => Pending { stamp: found.clone(), since: now, is_read: false },
        };
        let pending = self.pending.insert(pending);
        if now.saturating_duration_since(pending.since) >= STILL {
            return Step::Load(found.version);
        }
        let may_read = self.read_from.is_none_or(|from| from <= now);
        // The files of a state that differs by its inodes alone may be those that serve.
        if change == Change::Files && may_read && !pending.is_read {
            return Step::Read(found.version);
        }
        Step::Wait
    }

    /// The files of the state that was found last lack their digests. Reading them took from `began` to `ended`.
    pub fn incomplete(&mut self, began: Instant, ended: Instant) {
        if let Some(pending) = &mut self.pending {
            pending.is_read = true;
        }
        self.read_from = Some(ended + ended.saturating_duration_since(began) * READING_PAUSE);
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

    /// Looks at the reloader's directory every `interval` and loads each new state. Ends only with the runtime.
    ///
    /// A store that fails delays a version and does not make it one that was tried.
    ///
    /// While there is a candidate, it loads nothing: a new live version would end the comparison. It then looks again once the
    /// candidate is promoted or withdrawn. A version that somebody's order loaded is not new to it.
    pub async fn run(mut self, reloader: Arc<Reloader>, interval: Duration) {
        let mut poll = tokio::time::interval(interval);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            poll.tick().await;
            let Some(mut stamp) = look(&reloader).await else { continue };
            let (candidate, ordered) = (reloader.candidate(), reloader.take_ordered());
            if candidate == Some(stamp.version) || ordered.contains(&stamp.version) {
                self.tried(stamp);
                continue;
            }
            if candidate.is_some() {
                continue;
            }
            let version = match self.next(&stamp, Instant::now()) {
                Step::Wait => continue,
                Step::Load(version) => version,
                Step::Read(version) => {
                    let began = Instant::now();
                    if !is_complete(&reloader, version).await {
                        self.incomplete(began, Instant::now());
                        continue;
                    }
                    // The last file may have grown since the look. What changes after this look is seen by the next poll.
                    stamp = match look(&reloader).await {
                        Some(found) if found.version == version => found,
                        _ => continue,
                    };
                    version
                }
            };
            match reloader.reload_watched(version).await {
                // Another reload may miss this version, so the next poll asks again.
                Err(ReloadError::InProgress) => {}
                Err(error) if error.is_unavailable() => {}
                _ => self.tried(stamp),
            }
        }
    }
}

/// The present state of the highest version. `None` if there is none, or if the directory cannot be read now.
async fn look(reloader: &Arc<Reloader>) -> Option<Stamp> {
    let reloader = Arc::clone(reloader);
    let look = move || {
        let (directory, started) = (reloader.directory(), Instant::now());
        let found = directory.list().and_then(|listing| {
            reloader.log_ignored(&listing);
            Stamp::of(directory, &listing)
        });
        reloader.looked(found.as_ref().err(), started.elapsed());
        found.ok().flatten()
    };
    // The task fails if the runtime is stopping.
    tokio::task::spawn_blocking(look).await.ok()?
}

/// Whether all files of a version have their digests. They are read on a thread of low priority.
async fn is_complete(reloader: &Arc<Reloader>, version: u64) -> bool {
    let (reloader, (done, complete)) = (Arc::clone(reloader), oneshot::channel());
    let read = move || {
        Priority::BesideLive.apply_to_thread();
        // A closed channel means that the server is stopping.
        let _ = done.send(reloader.directory().is_complete(version));
    };
    match thread::Builder::new().name("watch".to_owned()).spawn(read) {
        Ok(_) => complete.await.unwrap_or(false),
        Err(_) => false,
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
        let file =
            FileStamp { name: "canet.json".into(), bytes, modified: (1, 0), changed: (1, 0), tag: String::new() };
        Stamp { version, files: vec![file], inodes: vec![(1, inode)] }
    }

    /// The polls at which a watch that served the first state loads a version. `is_complete` tells whether the files of a
    /// state have their digests.
    fn loads(states: &[Stamp], is_complete: impl Fn(&Stamp) -> bool) -> Vec<usize> {
        let (start, mut watch) = (Instant::now(), Watch::new(states.first().cloned()));
        let mut loads = Vec::new();
        for (poll, state) in states.iter().enumerate() {
            let now = start + Watch::INTERVAL * poll as u32;
            let version = match watch.next(state, now) {
                Step::Wait => continue,
                Step::Load(version) => version,
                Step::Read(version) if is_complete(state) => version,
                Step::Read(_) => {
                    watch.incomplete(now, now);
                    continue;
                }
            };
            assert_eq!(version, state.version);
            watch.tried(state.clone());
            loads.push(poll);
        }
        loads
    }

    fn never(_: &Stamp) -> bool {
        false
    }

    #[test]
    fn a_version_is_loaded_once_when_its_files_have_their_digests() {
        // The file grows while it is copied.
        let states: Vec<Stamp> =
            [stamp(1, 9, 1)].into_iter().chain([3, 5, 8, 9, 9, 9, 9, 9].map(|bytes| stamp(2, bytes, 2))).collect();
        let is_complete = |state: &Stamp| state.files[0].bytes == 9;
        assert_eq!(loads(&states, is_complete), [4]);
    }

    #[test]
    fn a_version_without_its_digests_is_loaded_once_when_its_files_stand_still() {
        let served = stamp(1, 9, 1);
        let copied = [3, 5, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9].map(|bytes| stamp(2, bytes, 2));
        // Four polls of half a second after the first with 9 bytes.
        assert_eq!(loads(&[&[served.clone()][..], &copied].concat(), never), [8]);
        assert_eq!(loads(&[served, stamp(2, 9, 2)], never), [] as [usize; 0]);
    }

    #[test]
    fn files_that_took_long_to_read_are_not_read_at_each_change() {
        let (start, mut watch) = (Instant::now(), Watch::new(Some(stamp(1, 9, 1))));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(watch.next(&stamp(2, 1, 2), at(0)), Step::Read(2));
        watch.incomplete(at(0), at(300));
        for milliseconds in (500..3300).step_by(400) {
            assert_eq!(watch.next(&stamp(2, milliseconds, 2), at(milliseconds)), Step::Wait, "{milliseconds}");
        }
        assert_eq!(watch.next(&stamp(2, 4000, 2), at(4000)), Step::Read(2));
    }

    #[test]
    fn a_file_that_was_replaced_by_one_of_equal_size_and_times_is_loaded() {
        let served = stamp(1, 9, 1);
        let states: Vec<Stamp> = [served].into_iter().chain((0..8).map(|_| stamp(1, 9, 2))).collect();
        // It waits, whatever its digest is.
        assert_eq!(loads(&states, |_| true), [5]);
    }

    #[test]
    fn inodes_that_change_at_each_listing_load_nothing_and_delay_nothing() {
        let served = (0..19).map(|inode| stamp(1, 9, inode));
        assert_eq!(loads(&served.clone().collect::<Vec<_>>(), never), [] as [usize; 0]);
        let next = (19..39).map(|inode| stamp(2, 9, inode));
        assert_eq!(loads(&served.chain(next).collect::<Vec<_>>(), never), [23]);
    }
}
