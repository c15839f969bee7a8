use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use canet_catalogue::ItemIndex;
use canet_data::{ItemTable, ItemTableError};
use canet_domain::{Catalogue, Item, TextSizes};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::absence::{Absence, Report};
use super::freed_memory::return_freed_memory;
use super::priority::Priority;
use super::watch::{Stamp, Step, Watch};
use super::{Generation, Recommender, Serving};
use crate::metrics::{CatalogueReloaded, Metrics};

/// The catalogue file of a server: the newest valid contents, and the watch for newer ones.
///
/// A new file replaces the old one for the generation that serves, without touching the model. A new generation gets the
/// contents before it is swapped in. Each row pins one generation and one state of the file, so no row mixes two.
pub struct CatalogueFile {
    path: PathBuf,
    metrics: Arc<Metrics>,
    /// The file's state just before it was first read.
    opened: Option<Stamp>,
    /// The most that a new file may lack of the items of the one before, as a share of them.
    max_loss: f64,
    contents: Mutex<Contents>,
}

/// What was last read.
pub(crate) struct Contents {
    revision: CatalogueRevision,
    table: Arc<ItemTable>,
    read_at: SystemTime,
}

/// Tells states of catalogue files apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CatalogueRevision(u64);

/// A catalogue file over the items of one generation.
#[derive(Debug)]
pub struct CatalogueView {
    /// The state of the file.
    pub revision: CatalogueRevision,
    /// The items.
    pub index: Arc<ItemIndex>,
    /// Bounds of the bytes that ids and titles take in an answer.
    pub text_sizes: TextSizes,
    /// When the file was read.
    pub read_at: SystemTime,
}

/// The newest state of the catalogue file over the items of one generation, if the server has one.
#[derive(Debug, Default)]
pub struct CurrentView(ArcSwapOption<CatalogueView>);

impl CurrentView {
    pub(crate) fn get(&self) -> Option<Arc<CatalogueView>> {
        self.0.load_full()
    }

    pub(crate) fn set(&self, view: Arc<CatalogueView>) {
        self.0.store(Some(view));
    }
}

impl CatalogueView {
    /// The item's title: that of the file, if there is one, or else the model's.
    pub fn title<'a>(view: Option<&'a CatalogueView>, catalogue: &'a Catalogue, item: Item) -> Option<&'a str> {
        view.and_then(|view| view.index.title(item)).or_else(|| catalogue.title(item))
    }
}

impl Contents {
    fn new(table: ItemTable) -> Contents {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let revision = CatalogueRevision(NEXT.fetch_add(1, Ordering::Relaxed));
        Contents { revision, table: Arc::new(table), read_at: SystemTime::now() }
    }

    /// Gives a generation these contents, unless it has them.
    pub(crate) fn give_to(&self, generation: &Generation) {
        generation.set_catalogue_view(self.view(generation));
    }

    /// The contents over the items of a generation.
    fn view(&self, generation: &Generation) -> Arc<CatalogueView> {
        if let Some(known) = generation.catalogue_view().filter(|known| known.revision == self.revision) {
            return known;
        }
        let catalogue = generation.model.catalogue();
        let index = ItemIndex::new(Arc::clone(&self.table), catalogue);
        let title = |item: Item| index.title(item).or_else(|| catalogue.title(item));
        let text_sizes = TextSizes::with_titles(catalogue, title);
        let (revision, read_at) = (self.revision, self.read_at);
        Arc::new(CatalogueView { revision, index: Arc::new(index), text_sizes, read_at })
    }
}

impl CatalogueFile {
    /// Reads a file. A later one that lacks more than the share `max_loss` of its items is refused: an export that broke off
    /// would show what is hidden, and leave filters without values.
    ///
    /// # Errors
    /// [`ItemTableError`] if it cannot be read or its contents are wrong.
    pub fn open(path: &Path, max_loss: f64, metrics: Arc<Metrics>) -> Result<Arc<CatalogueFile>, ItemTableError> {
        // Before the file is read, so that a change meanwhile is seen.
        let opened = Stamp::of_file(path).ok();
        let contents = Contents::new(ItemTable::read(path)?);
        metrics.catalogue_reloaded(CatalogueReloaded::Served);
        let (path, contents) = (path.to_owned(), Mutex::new(contents));
        Ok(Arc::new(CatalogueFile { path, metrics, opened, max_loss, contents }))
    }

    /// The newest contents. They stay the newest until the guard drops.
    pub(crate) fn hold(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock()
    }

    /// Watches the file and swaps in new contents once it stands still. What the system failed to read is read again after a
    /// pause. Ends only with the runtime.
    pub async fn watch(self: Arc<Self>, recommender: Weak<Recommender>) {
        let (mut watch, mut absence) = (Watch::new(self.opened.clone()), Absence::default());
        let mut poll = tokio::time::interval(Watch::INTERVAL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            poll.tick().await;
            let path = self.path.clone();
            let stamp = match tokio::task::spawn_blocking(move || Stamp::of_file(&path)).await {
                Ok(Ok(stamp)) => stamp,
                Ok(Err(error)) => {
                    self.note_absence(absence.fails(Instant::now()), &error);
                    continue;
                }
                // The runtime is stopping.
                Err(_) => return,
            };
            if absence.ends() {
                tracing::info!("the catalogue file can be read again");
            }
            if !is_news(&mut watch, &stamp, Instant::now()) {
                continue;
            }
            let began = Instant::now();
            let ended = match self.reload_beside(recommender.clone()) {
                // It always ends: a panic drops the sender, and the file may be at fault.
                Ok(ended) => ended.await.unwrap_or(Reading::Ended),
                Err(error) => {
                    tracing::warn!(%error, "no thread could be started to read the catalogue file");
                    Reading::Failed
                }
            };
            match ended {
                Reading::Ended => watch.tried(stamp),
                Reading::Failed => watch.failed(began, Instant::now()),
            }
        }
    }

    /// Counts and logs what is to be reported of a file that cannot be looked at.
    fn note_absence(&self, report: Option<Report>, error: &io::Error) {
        let Some(report) = report else { return };
        self.metrics.catalogue_reloaded(CatalogueReloaded::Failed);
        if report == Report::First {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the catalogue file cannot be read: the server keeps the one that it has");
        }
    }

    /// Reads the file on a thread of its own, beside live requests.
    fn reload_beside(self: &Arc<Self>, recommender: Weak<Recommender>) -> io::Result<oneshot::Receiver<Reading>> {
        let (done, ended) = oneshot::channel();
        let file = Arc::clone(self);
        thread::Builder::new().name("catalogue".to_owned()).spawn(move || {
            Priority::BesideLive.apply_to_thread();
            let ended = file.reload(&recommender);
            return_freed_memory();
            // The watch may have ended.
            let _ = done.send(ended);
        })?;
        Ok(ended)
    }

    /// Reads the file and gives it to the generations that serve. If it is wrong, the contents before it stay.
    fn reload(&self, recommender: &Weak<Recommender>) -> Reading {
        let started = Instant::now();
        match ItemTable::read(&self.path) {
            Ok(table) => self.replace(table, recommender, started),
            Err(error) if error.is_io() => {
                self.metrics.catalogue_reloaded(CatalogueReloaded::Failed);
                tracing::warn!(%error, "the catalogue file cannot be read: the server keeps the one that it has and tries again");
                return Reading::Failed;
            }
            Err(error) => {
                self.metrics.catalogue_reloaded(CatalogueReloaded::Rejected);
                tracing::warn!(%error, "the catalogue file is refused: the server keeps the one that it has");
            }
        }
        Reading::Ended
    }

    /// Gives a table to the generations that serve, unless it lacks too many items.
    fn replace(&self, table: ItemTable, recommender: &Weak<Recommender>, started: Instant) {
        let before = Arc::clone(&self.hold().table);
        let lost = lost(&before, &table);
        if lost as f64 > self.max_loss * before.len() as f64 {
            self.metrics.catalogue_reloaded(CatalogueReloaded::Rejected);
            let (items, max_loss) = (before.len(), self.max_loss);
            tracing::warn!(
                lost,
                items,
                max_loss,
                "the catalogue file is refused, because it lacks too many items of the one before: the server keeps that one. \
                 If they are gone on purpose, restart the server or raise --catalogue-max-loss"
            );
            return;
        }
        // Not before: a server that stops waits until nobody holds the recommender.
        let Some(recommender) = recommender.upgrade() else { return };
        let mut contents = self.hold();
        if contents.table.sha256() == table.sha256() {
            tracing::debug!("the catalogue file was written again without a change");
            return;
        }
        *contents = Contents::new(table);
        // A generation that is not swapped in yet gets the contents when it is.
        let serving = recommender.current();
        serving.iter().flat_map(Serving::generations).for_each(|generation| contents.give_to(generation));
        let took_ms = started.elapsed().as_millis();
        tracing::info!(path = %self.path.display(), took_ms, "a new catalogue file is read");
        self.metrics.catalogue_reloaded(CatalogueReloaded::Served);
        // Still under the lock, so that a model that is swapped in meanwhile says later what serves.
        if let Some(view) = serving.and_then(|serving| serving.live.catalogue_view()) {
            self.serves(&view);
        }
        drop(contents);
    }

    /// Says in the log and the metrics which contents serve.
    pub(crate) fn serves(&self, view: &CatalogueView) {
        let index = &view.index;
        self.metrics.catalogue_serves(view);
        tracing::info!(
            path = %self.path.display(),
            digest = index.table().sha256(),
            items = index.table().len(),
            hidden = index.hidden(),
            unknown = index.unknown(),
            missing = index.missing(),
            keys = index.keys().map(|key| key.name).collect::<Vec<_>>().join(", "),
            "the catalogue file serves"
        );
    }
}

/// How a reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// The file was taken or refused, and is read again once it changes.
    Ended,
    /// The system failed to read it, and may succeed later.
    Failed,
}

/// How many items of a table another one lacks.
fn lost(before: &ItemTable, after: &ItemTable) -> usize {
    let kept: HashSet<&str> = (0..after.len()).map(|place| after.id(place)).collect();
    (0..before.len()).filter(|place| !kept.contains(before.id(*place))).count()
}

/// Whether a file that looks so is another one and has stood still.
fn is_news(watch: &mut Watch, stamp: &Stamp, now: Instant) -> bool {
    match watch.next(stamp, now) {
        Step::Load(_) => true,
        Step::Wait => false,
        // No digest says what the file should hold, so it must stand still.
        Step::Read(_) => {
            watch.incomplete(now, now);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};
    use std::time::Instant;

    use super::{CatalogueFile, Reading, Stamp, Watch, is_news};
    use crate::metrics::Metrics;

    #[test]
    fn only_a_file_that_the_system_fails_to_read_is_read_again_without_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.csv");
        std::fs::write(&path, "id\n1\n").unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let file = CatalogueFile::open(&path, 0.1, Arc::clone(&metrics)).unwrap();
        assert_eq!(file.reload(&Weak::new()), Reading::Ended);
        std::fs::write(&path, "id\n1\n1\n").unwrap();
        assert_eq!(file.reload(&Weak::new()), Reading::Ended, "an item has two lines");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.reload(&Weak::new()), Reading::Failed);
        let scrape = metrics.render().unwrap();
        for outcome in ["rejected", "failed"] {
            assert!(scrape.contains(&format!("canet_catalogue_reload_total{{outcome=\"{outcome}\"}} 1\n")), "{scrape}");
        }
    }

    #[test]
    fn a_file_is_news_once_it_stands_still() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalogue.csv");
        let start = Instant::now();
        assert!(Stamp::of_file(&path).is_err());
        std::fs::write(&path, "id\n1\n").unwrap();
        let mut watch = Watch::new(Stamp::of_file(&path).ok());
        let mut loads = |polls: std::ops::Range<u32>| {
            let mut is_load = |poll: u32| {
                let now = start + Watch::INTERVAL * poll;
                is_news(&mut watch, &Stamp::of_file(&path).unwrap(), now)
            };
            polls.map(&mut is_load).collect::<Vec<_>>()
        };
        assert_eq!(loads(0..6), [false; 6], "the file is the one that serves");
        // A file that is moved into place, as a mounted file is.
        let next = directory.path().join("next.csv");
        std::fs::write(&next, "id\n1\n2\n").unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert_eq!(loads(6..11), [false, false, false, false, true]);
    }
}
