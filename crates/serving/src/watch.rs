use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::absence::{Absence, Report};
use super::{Priority, ReloadError, Reloader, ServingVersion};
use crate::metrics::{Metrics, Reloaded};
use canet_model::checkpoint::{CheckpointError, Fault, Listing, ModelDirectory, OriginObject, VERSION_NAMES};

/// How long the files of a version must stand still before it is loaded although they do not have their digests. Somebody may
/// be copying them.
const STILL: Duration = Duration::from_secs(2);

/// After files without their digests were read, the next reading waits this many times as long as that one took: a copy may
/// reserve the space of a large file first and then change it for minutes.
const READING_PAUSE: u32 = 10;

/// The most names of ignored directories that are logged.
const MOST_LOGGED: usize = 100;

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
/// was tried is never tried, so that a deliberate return to an older version lasts. So it does if the version that was left is
/// written again with the same contents.
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

/// What the watch must know of the loads that it did not ask for, and what is logged already. The loads and the watch share
/// it.
#[derive(Debug, Default)]
pub(crate) struct WatchNotes(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    /// Names of directories that were logged because they are no versions.
    logged: HashSet<String>,
    /// Versions that somebody's order loaded since the watch last asked, as they were just before that.
    ordered: BTreeMap<u64, Stamp>,
    /// The digest of each version that has served.
    served: BTreeMap<u64, String>,
    /// The state of the highest version just before the first load.
    first_seen: Option<Stamp>,
    /// Whether the store failed when the watch last looked.
    store_fails: bool,
    /// Since when the directory cannot be read.
    directory: Absence,
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
        let highest = listing.versions.last();
        highest.map(|version| Stamp::of_version(directory, listing, *version)).transpose()
    }

    /// The present state of a version, or in a store that of the listing.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if its files cannot be listed.
    pub(crate) fn of_version(
        directory: &ModelDirectory,
        listing: &Listing,
        version: u64,
    ) -> Result<Stamp, CheckpointError> {
        if let Some(objects) = listing.objects.get(&version) {
            return Ok(Stamp {
                version,
                files: objects.iter().map(FileStamp::of_object).collect(),
                inodes: Vec::new(),
            });
        }
        let path = directory.path().join(version.to_string());
        let files = Stamp::files(&path).map_err(|source| CheckpointError::Io { path, action: "list", source })?;
        let (files, inodes) = files.into_iter().unzip();
        Ok(Stamp { version, files, inodes })
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

impl WatchNotes {
    /// Notes the state of the highest version just before the first load. `None` makes every version new to the watch.
    pub(crate) fn set_first_seen(&self, stamp: Option<Stamp>) {
        self.0.lock().first_seen = stamp;
    }

    fn first_seen(&self) -> Option<Stamp> {
        self.0.lock().first_seen.clone()
    }

    /// Notes that somebody's order loaded this state of a version, so that the watch does not load it once more.
    pub(crate) fn note_order(&self, stamp: Option<Stamp>) {
        self.0.lock().ordered.extend(stamp.map(|stamp| (stamp.version, stamp)));
    }

    /// Whether somebody's order loaded a version since the watch last asked.
    pub(crate) fn is_ordered(&self, version: u64) -> bool {
        self.0.lock().ordered.contains_key(&version)
    }

    /// Notes that a version serves.
    pub(crate) fn note_served(&self, served: &ServingVersion) {
        self.0.lock().served.insert(served.version, served.digest.clone());
    }

    /// Whether a version served before with this digest.
    pub(crate) fn has_served(&self, version: u64, digest: &str) -> bool {
        self.0.lock().served.get(&version).is_some_and(|served| served == digest)
    }

    /// The versions that somebody's order loaded since the last call.
    fn take_ordered(&self) -> BTreeMap<u64, Stamp> {
        std::mem::take(&mut self.0.lock().ordered)
    }

    /// Logs the directories that are no versions although their names have digits, each once.
    pub(crate) fn log_ignored(&self, listing: &Listing) {
        for name in &listing.ignored {
            // Writing the line must not hold up a load, so the lock ends before.
            let is_new = self.0.lock().note_ignored(name);
            if is_new {
                tracing::warn!(name, "the directory is ignored: {VERSION_NAMES}");
            }
        }
    }

    /// Counts a look at the versions for which the store failed or that failed for long, and logs when that begins and ends.
    fn looked(&self, error: Option<&CheckpointError>, took: Duration, metrics: &Metrics) {
        let failed = error.filter(|error| error.fault() == Fault::StoreUnavailable);
        let mut notes = self.0.lock();
        let failed_before = std::mem::replace(&mut notes.store_fails, failed.is_some());
        let (report, is_back) = match (failed, error) {
            (None, Some(_)) => (notes.directory.fails(Instant::now()), false),
            _ => (None, notes.directory.ends()),
        };
        drop(notes);
        match (failed, error) {
            (Some(error), _) => {
                metrics.reloaded(Reloaded::Failed, took);
                if !failed_before {
                    tracing::warn!(%error, "the store cannot be read: the server keeps the model that it has");
                }
            }
            (None, Some(error)) => {
                if let Some(report) = report {
                    metrics.reloaded(Reloaded::Failed, took);
                    if report == Report::First {
                        tracing::warn!(%error, "the watched directory cannot be read: the server keeps the model that it has");
                    }
                }
            }
            (None, None) if failed_before => tracing::info!("the store can be read again"),
            (None, None) if is_back => tracing::info!("the watched directory can be read again"),
            (None, None) => {}
        }
    }
}

impl Notes {
    /// Notes a directory that is no version. Returns whether to log it.
    fn note_ignored(&mut self, name: &str) -> bool {
        self.logged.len() < MOST_LOGGED && self.logged.insert(name.to_owned())
    }
}

impl Watch {
    /// How often files are looked at, unless somebody says otherwise. A listing costs microseconds. Unlike notifications it
    /// also works on network file systems.
    pub const INTERVAL: Duration = Duration::from_millis(500);

    /// A state is new only if it differs from `served`.
    pub fn new(served: Option<Stamp>) -> Watch {
        Watch { tried: served, ..Watch::default() }
    }

    /// A watch to which everything is new that came since the server began to load its first version. If an earlier copy
    /// serves because the store failed, every version is new.
    pub fn since_start(reloader: &Reloader) -> Watch {
        Watch::new(reloader.notes().first_seen())
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

    /// Marks a state that somebody's order loaded. It changes nothing about higher versions.
    fn ordered(&mut self, stamp: Stamp) {
        if self.tried.as_ref().is_none_or(|tried| tried.version <= stamp.version) {
            self.tried = Some(stamp);
        }
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
            let is_compared = reloader.candidate().is_some();
            reloader.notes().take_ordered().into_values().for_each(|stamp| self.ordered(stamp));
            if is_compared {
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
                Err(ReloadError::Load(error)) if error.fault() == Fault::StoreUnavailable => {}
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
            reloader.notes().log_ignored(&listing);
            Stamp::of(directory, &listing)
        });
        reloader.notes().looked(found.as_ref().err(), started.elapsed(), reloader.metrics());
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

    #[test]
    fn an_order_is_known_until_the_watch_asks() {
        let notes = WatchNotes::default();
        notes.note_order(None);
        notes.note_order(Some(stamp(3, 9, 1)));
        assert!(notes.is_ordered(3) && !notes.is_ordered(2));
        assert_eq!(notes.take_ordered(), BTreeMap::from([(3, stamp(3, 9, 1))]));
        assert!(!notes.is_ordered(3) && notes.take_ordered().is_empty());
    }

    #[test]
    fn what_an_order_loaded_is_new_only_if_its_files_changed_since() {
        let (now, mut watch) = (Instant::now(), Watch::new(Some(stamp(4, 9, 1))));
        // An order loads 5, and another one goes back to 4, while 6 is being copied.
        assert_eq!(watch.next(&stamp(6, 1, 1), now), Step::Read(6));
        watch.incomplete(now, now);
        [stamp(4, 9, 1), stamp(5, 9, 1)].into_iter().for_each(|stamp| watch.ordered(stamp));
        // The copy goes on, and is given up.
        assert_eq!(watch.next(&stamp(6, 1, 1), now + STILL), Step::Load(6));
        assert_eq!(watch.next(&stamp(5, 9, 1), now + STILL), Step::Wait);
        assert_eq!(watch.next(&stamp(5, 9, 1), now + 3 * STILL), Step::Wait);
        // Other files came while version 5 was loaded.
        assert_eq!(watch.next(&stamp(5, 8, 2), now + 4 * STILL), Step::Read(5));
    }

    #[test]
    fn an_ignored_directory_is_logged_once_and_at_most_a_hundred_are() {
        let mut notes = Notes::default();
        let names: Vec<String> = (0..200).map(|number| format!("v{number}")).collect();
        let mut logged = || names.iter().filter(|name| notes.note_ignored(name)).count();
        assert_eq!([logged(), logged()], [MOST_LOGGED, 0]);
    }

    #[test]
    fn only_looks_at_a_store_that_fails_are_counted_at_once() {
        let (notes, metrics) = (WatchNotes::default(), Metrics::new().unwrap());
        let store = CheckpointError::Origin { address: "s3://shop/small".to_owned(), reason: "403".to_owned() };
        let other = CheckpointError::NotADirectory { path: "small".into() };
        for (error, fails) in [(Some(&store), true), (Some(&store), true), (Some(&other), false), (None, false)] {
            notes.looked(error, Duration::ZERO, &metrics);
            assert_eq!(notes.0.lock().store_fails, fails, "{error:?}");
        }
        let metrics = metrics.render().unwrap();
        assert!(metrics.contains("canet_reload_total{outcome=\"failed\"} 2\n"), "{metrics}");
    }
}
