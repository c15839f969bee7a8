use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::reload_error::Retry;
use super::{Priority, ReloadError, Reloader};

mod look_log;
mod notes;
mod stamp;

pub(crate) use look_log::LookLog;
pub(crate) use notes::{Baseline, Reserved, WatchNotes};
pub use stamp::Stamp;

/// How long the files of a version must stand still before it is loaded although they do not have their digests. Somebody may
/// be copying them.
const STILL: Duration = Duration::from_secs(2);

/// After files were read in vain, the next reading waits this many times as long as that one took: a copy may reserve the
/// space of a large file first and then change it for minutes.
const READING_PAUSE: u32 = 10;

/// The least time between two loads of a state that the machine failed to load.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// Decides which state of a model's directory is new.
///
/// A version that was tried, with or without success, is tried again only if its files change. A version below one that
/// was tried is never tried, so that a deliberate return to an older version lasts. So it does if the version that was left is
/// written again with the same contents. A failure of the machine or of the store is no attempt: see [`Watch::failed`].
///
/// Most copies are made file by file. So a new state is tried once all its files have the digests of their manifest, which
/// nobody copies any more, or once it has stood still for two seconds.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    tried: Option<Stamp>,
    /// Whether the state that the next look finds counts as tried.
    adopts_next_look: bool,
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
    /// It is not loaded before this time, because the machine failed to load it.
    load_from: Option<Instant>,
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

impl Watch {
    /// How often files are looked at, unless somebody says otherwise. A listing costs microseconds. Unlike notifications it
    /// also works on network file systems.
    pub const INTERVAL: Duration = Duration::from_millis(500);

    /// A state is new only if it differs from `served`.
    pub fn new(served: Option<Stamp>) -> Watch {
        Watch { tried: served, ..Watch::default() }
    }

    /// A watch to which everything is new that came since the server began to load its first version. If an earlier copy of
    /// the highest version serves because the store failed, every version is new.
    pub fn since_start(reloader: &Reloader) -> Watch {
        Watch::since(reloader.notes().baseline())
    }

    fn since(baseline: Baseline) -> Watch {
        match baseline {
            Baseline::Nothing => Watch::default(),
            Baseline::State(stamp) => Watch::new(Some(stamp)),
            Baseline::FirstLook => Watch { adopts_next_look: true, ..Watch::default() },
        }
    }

    /// What to do about the state that was found at `now`.
    pub fn next(&mut self, found: &Stamp, now: Instant) -> Step {
        let Some(change) = self.change(found) else {
            self.pending = None;
            return Step::Wait;
        };
        let pending = match self.pending.take() {
            Some(pending) if change.stands_still(&pending.stamp, found) => pending,
            _ => Pending { stamp: found.clone(), since: now, is_read: false, load_from: None },
        };
        let pending = self.pending.insert(pending);
        if pending.load_from.is_some_and(|from| now < from) {
            return Step::Wait;
        }
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

    /// The machine failed to load the state that was found last, which took from `began` to `ended`. It is tried again after a
    /// pause, or at once if it changes.
    pub fn failed(&mut self, began: Instant, ended: Instant) {
        let pause = (ended.saturating_duration_since(began) * READING_PAUSE).max(FAILED_PAUSE);
        if let Some(pending) = &mut self.pending {
            pending.load_from = Some(ended + pause);
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

    /// Marks a state that somebody's order loaded. It changes nothing about higher versions.
    fn ordered(&mut self, stamp: Stamp) {
        if self.tried.as_ref().is_none_or(|tried| tried.version <= stamp.version) {
            self.tried = Some(stamp);
        }
    }

    /// Notes the highest version that a look found.
    fn looked(&mut self, highest: Option<&Stamp>) {
        if std::mem::take(&mut self.adopts_next_look) {
            self.tried = highest.cloned();
        }
    }

    /// Notes how a load of a state ended, which took from `began` to `ended`.
    fn loaded<T>(&mut self, stamp: Stamp, outcome: &Result<T, ReloadError>, began: Instant, ended: Instant) {
        match outcome.as_ref().err().map(ReloadError::retry) {
            Some(Retry::NextLook) => {}
            Some(Retry::Later) => self.failed(began, ended),
            Some(Retry::OnceChanged) | None => self.tried(stamp),
        }
    }

    /// Looks at the reloader's directory every `interval` and loads each new state. Ends only with the runtime.
    ///
    /// While there is a candidate, it loads nothing: a new live version would end the comparison. It then looks again once the
    /// candidate is promoted or withdrawn. A version that somebody's order loaded is not new to it. A reserved candidate is
    /// followed apart, and never as a live version.
    pub async fn run(mut self, reloader: Arc<Reloader>, interval: Duration) {
        let mut candidate = Watch::new(reloader.notes().reserved().and_then(|reserved| reserved.tried));
        let mut poll = tokio::time::interval(interval);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            poll.tick().await;
            let Some(found) = look(&reloader).await else { continue };
            self.looked(found.highest.as_ref());
            let is_compared = reloader.candidate().is_some();
            reloader.notes().take_ordered().into_values().for_each(|stamp| self.ordered(stamp));
            if is_compared {
                continue;
            }
            // The live version first, as at a start.
            for (watch, stamp) in [(&mut self, found.highest), (&mut candidate, found.reserved)] {
                if let Some(stamp) = stamp {
                    watch.follow(stamp, &reloader).await;
                }
            }
        }
    }

    /// Loads a state if it is new and complete.
    async fn follow(&mut self, mut stamp: Stamp, reloader: &Arc<Reloader>) {
        let version = match self.next(&stamp, Instant::now()) {
            Step::Wait => return,
            Step::Load(version) => version,
            Step::Read(version) => {
                let began = Instant::now();
                if !is_complete(reloader, version).await {
                    self.incomplete(began, Instant::now());
                    return;
                }
                // The last file may have grown since the look. What changes after this look is seen by the next poll.
                let Some(found) = look(reloader).await.and_then(|found| found.of(version)) else { return };
                stamp = found;
                version
            }
        };
        let began = Instant::now();
        let outcome = reloader.reload_watched(version).await;
        self.loaded(stamp, &outcome, began, Instant::now());
    }
}

/// What a look finds.
struct Found {
    /// The present state of the highest version that is not reserved.
    highest: Option<Stamp>,
    /// That of the version that is reserved for the candidate, unless it was withdrawn.
    reserved: Option<Stamp>,
}

impl Found {
    fn of(self, version: u64) -> Option<Stamp> {
        [self.highest, self.reserved].into_iter().flatten().find(|stamp| stamp.version == version)
    }
}

/// Looks at the versions. `None` if the directory cannot be read now.
async fn look(reloader: &Arc<Reloader>) -> Option<Found> {
    let reloader = Arc::clone(reloader);
    let look = move || {
        let (directory, started) = (reloader.directory(), Instant::now());
        let reserved = reloader.notes().reserved();
        let found = directory.list().and_then(|listing| {
            reloader.look_log().log_ignored(&listing);
            let awaited = reserved.as_ref().filter(|reserved| !reserved.is_withdrawn).map(|reserved| reserved.version);
            let there = awaited.filter(|version| listing.versions.contains(version));
            let stamp = there.map(|version| Stamp::of_version(directory, &listing, version)).transpose()?;
            let kept = reserved.map(|reserved| reserved.version);
            Ok(Found { highest: Stamp::of_highest(directory, &listing, kept)?, reserved: stamp })
        });
        reloader.look_log().looked(found.as_ref().err(), started.elapsed(), reloader.metrics());
        found.ok()
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
    use super::stamp::FileStamp;
    use super::*;
    use crate::LoadError;
    use canet_model::OpenError;
    use canet_model::checkpoint::CheckpointError;

    /// A version of one file, by its number, size and inode.
    pub(super) fn stamp(version: u64, bytes: u64, inode: u64) -> Stamp {
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
    fn without_a_look_before_the_first_load_the_first_one_finds_nothing_new() {
        let (now, mut watch) = (Instant::now(), Watch::since(Baseline::FirstLook));
        watch.looked(Some(&stamp(12, 9, 1)));
        assert_eq!(watch.next(&stamp(12, 9, 1), now), Step::Wait);
        // Later looks find what came since, another version and other files.
        watch.looked(Some(&stamp(13, 9, 1)));
        assert_eq!(watch.next(&stamp(13, 9, 1), now), Step::Read(13));
        assert_eq!(watch.next(&stamp(12, 8, 1), now), Step::Read(12));
        // A first look at no version leaves everything new.
        let mut watch = Watch::since(Baseline::FirstLook);
        watch.looked(None);
        assert_eq!(watch.next(&stamp(1, 9, 1), now), Step::Read(1));
        let mut watch = Watch::since(Baseline::State(stamp(12, 9, 1)));
        watch.looked(Some(&stamp(13, 9, 1)));
        assert_eq!(watch.next(&stamp(13, 9, 1), now), Step::Read(13));
    }

    #[test]
    fn a_load_that_the_machine_failed_is_repeated_after_a_pause() {
        let (start, next) = (Instant::now(), stamp(2, 9, 2));
        let at = |seconds| start + Duration::from_secs(seconds);
        let opening = |error| Err::<(), _>(ReloadError::from(LoadError::from(OpenError::from(error))));
        let io = |number| {
            opening(CheckpointError::Io {
                path: "small/2/weights.safetensors".into(),
                action: "read",
                source: std::io::Error::from_raw_os_error(number),
            })
        };
        let mut watch = Watch::new(Some(stamp(1, 9, 1)));
        assert_eq!(watch.next(&next, at(0)), Step::Read(2));
        // Too many open files, then a disk that takes long to fail.
        watch.loaded(next.clone(), &io(24), at(0), at(1));
        assert_eq!([watch.next(&next, at(2)), watch.next(&next, at(30))], [Step::Wait; 2]);
        assert_eq!(watch.next(&next, at(31)), Step::Load(2));
        watch.loaded(next.clone(), &io(5), at(31), at(41));
        assert_eq!(watch.next(&next, at(140)), Step::Wait);
        assert_eq!(watch.next(&next, at(141)), Step::Load(2));
        // Another load was running, or the store failed: the next look is soon enough.
        watch.loaded(next.clone(), &Err::<(), _>(ReloadError::InProgress), at(141), at(141));
        assert_eq!(watch.next(&next, at(142)), Step::Load(2));
        let store = CheckpointError::Origin { address: "s3://shop/small".to_owned(), reason: "403".to_owned() };
        watch.loaded(next.clone(), &opening(store), at(142), at(150));
        assert_eq!(watch.next(&next, at(151)), Step::Load(2));
        // New files need not wait.
        watch.loaded(next.clone(), &io(24), at(151), at(151));
        let mended = stamp(2, 8, 2);
        assert_eq!(watch.next(&mended, at(152)), Step::Read(2));
        // A damaged version is tried once.
        watch.loaded(mended.clone(), &opening(CheckpointError::NotAFile { path: "small/2".into() }), at(152), at(153));
        assert_eq!(watch.next(&mended, at(999)), Step::Wait);
    }
}
