use std::path::{Path, PathBuf};

use canet_domain::{Catalogue, Item};
use sha2::{Digest, Sha256};

use super::collector::{Collected, TimedRows};
use super::reader::{CoarseTimes, FilesRead, Untimed, read_files};
use super::{DataError, FileSummary, ReadOptions, Skipped, Split, TimeSpan};

/// Interactions of users with items, in the order of time.
///
/// ```
/// use canet_data::{Dataset, ReadOptions, Split};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("clicks.txt");
/// std::fs::write(&path, "ann 10 30 20\nbob 30\n")?;
/// let dataset = Dataset::read(&path, &ReadOptions::default())?;
/// assert_eq!(dataset.interactions, 4);
///
/// // Ann's last item is the test target. Bob has too few items for one.
/// let cases = dataset.cases(Split::Test);
/// assert_eq!(cases.len(), 1);
/// assert_eq!(&*dataset.ids[cases[0].target.column() - 1], "20");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The name of the first file without its extensions. With several, their number follows.
    pub name: String,
    /// SHA-256 of the file's bytes on disk, in hexadecimal. With several files, that of their digests in a row.
    pub sha256: String,
    /// SHA-256 of what was understood, in hexadecimal. It does not depend on the form of the files.
    ///
    /// It is that of this text: a line with the external ids of all items in dense order, then a line for each user with the
    /// user and their items, oldest first. Tabs separate the ids. Items that a checkpoint does not know are included.
    pub parsed_sha256: String,
    /// External id of item `i` at `i - 1`.
    pub ids: Vec<Box<str>>,
    /// External ids and titles, from RecBole's `.item` file of the same name beside an `.inter` file.
    pub titles: Vec<(Box<str>, Box<str>)>,
    /// External ids of the users, in the order of first appearance.
    pub users: Vec<Box<str>>,
    /// Each user's items, oldest first, at least one. Interactions of equal time keep the order of the files.
    pub sequences: Vec<Vec<Item>>,
    /// Number of interactions in `sequences`.
    pub interactions: u64,
    /// Number of interactions that [`Dataset::read_known`] dropped because the catalogue lacks the item.
    pub unknown: u64,
    /// Number of users that [`Dataset::read_known`] dropped because the catalogue lacks all of their items.
    pub unknown_users: u64,
    /// Number of interactions that [`ReadOptions::min_interactions`] dropped.
    pub rare: u64,
    /// Interactions with the user, item and time of another.
    pub duplicates: Duplicates,
    /// Bad lines that were skipped.
    pub skipped: Skipped,
    /// Set if a file has no times, although its format has a column or field for them.
    pub untimed: Option<Untimed>,
    /// Set if the times of a file are dates without a time of day, while another of its columns has finer times.
    pub coarse: Option<CoarseTimes>,
    /// What was understood of each file.
    pub files: Vec<FileSummary>,
    /// The earliest and the latest time, if there are times.
    pub span: Option<TimeSpan>,
}

/// Interactions with the same user, item and time as an earlier one, as when a file has a line twice or two exports overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Duplicates {
    /// Number of those that were dropped, or else of those that stayed. 0 if there are no times.
    pub found: u64,
    /// Whether [`ReadOptions::drop_duplicates`] dropped them.
    pub dropped: bool,
}

/// A data set whose interactions have dates.
#[derive(Clone, Debug)]
pub struct TimedDataset {
    /// The interactions.
    pub dataset: Dataset,
    /// The time of each interaction of [`Dataset::sequences`], in nanoseconds since 1970.
    pub times: Vec<Vec<i64>>,
}

/// A data set, and the order in which its items appear.
#[derive(Clone, Debug)]
pub struct OrderedDataset {
    /// The interactions.
    pub dataset: Dataset,
    /// Every item, in the order in which the files name them first. Dropped interactions do not count.
    pub order: Vec<Item>,
}

/// What was read.
struct Read {
    dataset: Dataset,
    order: Vec<Item>,
    rows: TimedRows,
}

impl Dataset {
    /// The fewest interactions of a user who can be tested: one to read, one to validate and one to test.
    pub const TESTED: usize = 3;

    /// Fewer users are too few to train on.
    pub const MIN_USERS: usize = 2;

    /// Fewer items are too few to train on.
    pub const MIN_ITEMS: usize = 10;

    /// Reads a file of any [`Form`](super::Form), the only such file of a directory, all Parquet files of a directory, or
    /// standard input if the path is `-`.
    ///
    /// It gives items dense ids. If every external id is a plain decimal number (no sign, no leading zero), they are in
    /// numeric order. Otherwise they are in the order of first appearance.
    ///
    /// # Errors
    /// [`DataError`] that names the file and the line.
    pub fn read(path: &Path, options: &ReadOptions) -> Result<Dataset, DataError> {
        Dataset::read_all(&[path.to_owned()], options)
    }

    /// Reads several paths as one data set.
    ///
    /// # Errors
    /// [`DataError`] as for [`Dataset::read`].
    pub fn read_all(paths: &[PathBuf], options: &ReadOptions) -> Result<Dataset, DataError> {
        Ok(Dataset::with_rows(paths, options)?.dataset)
    }

    /// Reads several paths as one data set, with its items in the order of first appearance.
    ///
    /// # Errors
    /// [`DataError`] as for [`Dataset::read`].
    pub fn read_all_ordered(paths: &[PathBuf], options: &ReadOptions) -> Result<OrderedDataset, DataError> {
        let Read { dataset, order, .. } = Dataset::with_rows(paths, options)?;
        Ok(OrderedDataset { dataset, order })
    }

    /// Reads several paths as one data set, with the times of its interactions.
    ///
    /// # Errors
    /// [`DataError`] as for [`Dataset::read`], or if a file has no times or numbers that are no dates.
    pub fn read_all_timed(paths: &[PathBuf], options: &ReadOptions) -> Result<TimedDataset, DataError> {
        let Read { dataset, rows, .. } = Dataset::with_rows(paths, options)?;
        let undated = |file: &&FileSummary| file.has_interactions() && (file.time_unit.is_none() || !file.has_dates());
        match (dataset.files.iter().find(undated), rows.by_user(dataset.users.len())) {
            (None, Some(times)) => Ok(TimedDataset { dataset, times }),
            (file, _) => Err(DataError::Undated(
                file.or(dataset.files.first()).map(|file| file.path.clone()).unwrap_or_default(),
            )),
        }
    }

    fn with_rows(paths: &[PathBuf], options: &ReadOptions) -> Result<Read, DataError> {
        let FilesRead { collected, files, name, sha256, titles, skipped, untimed, coarse } =
            read_files(paths, options)?;
        let Collected { users, mut ids, mut sequences, span, rare, duplicates, rows } = collected;
        let order = number_items(&mut ids, &mut sequences);
        let interactions = sequences.iter().map(|sequence| sequence.len() as u64).sum();
        let parsed_sha256 = parsed_sha256(&ids, &users, &sequences);
        let dataset = Dataset {
            name,
            sha256,
            parsed_sha256,
            ids,
            titles,
            users,
            sequences,
            interactions,
            unknown: 0,
            unknown_users: 0,
            rare,
            duplicates,
            skipped,
            untimed,
            coarse,
            span: span.map(|(first, last)| TimeSpan { first, last, dates: files.iter().all(FileSummary::has_dates) }),
            files,
        };
        Ok(Read { dataset, order, rows })
    }

    /// Reads a path with the dense ids of a catalogue. It drops and counts interactions with other items.
    ///
    /// # Errors
    /// [`DataError`] as for [`Dataset::read`], or if the catalogue knows none of the items.
    pub fn read_known(path: &Path, catalogue: &Catalogue, options: &ReadOptions) -> Result<Dataset, DataError> {
        Dataset::read_all_known(&[path.to_owned()], catalogue, options)
    }

    /// Reads several paths as one data set with the dense ids of a catalogue.
    ///
    /// # Errors
    /// [`DataError`] as for [`Dataset::read_known`].
    pub fn read_all_known(
        paths: &[PathBuf],
        catalogue: &Catalogue,
        options: &ReadOptions,
    ) -> Result<Dataset, DataError> {
        let mut dataset = Dataset::read_all(paths, options)?;
        let known: Vec<Option<Item>> = dataset.ids.iter().map(|id| catalogue.item(id)).collect();
        for sequence in &mut dataset.sequences {
            *sequence = sequence.iter().filter_map(|item| known[item.column() - 1]).collect();
        }
        let all = dataset.interactions;
        let left = dataset.sequences.iter().map(|sequence| sequence.len() as u64).sum();
        if left == 0 {
            let path = dataset.files.swap_remove(0).path;
            return Err(DataError::NoKnownItem { path, interactions: all });
        }
        let users = dataset.users.len();
        let mut sequences = dataset.sequences.iter();
        dataset.users.retain(|_| sequences.next().is_some_and(|sequence| !sequence.is_empty()));
        dataset.sequences.retain(|sequence| !sequence.is_empty());
        dataset.ids = catalogue.ids().to_vec();
        (dataset.interactions, dataset.unknown) = (left, all - left);
        dataset.unknown_users = (users - dataset.users.len()) as u64;
        Ok(dataset)
    }

    /// Checks that there are enough users and items to train on.
    ///
    /// # Errors
    /// [`DataError::TooFew`].
    pub fn check_size(&self) -> Result<(), DataError> {
        let (users, items) = (self.users.len(), self.ids.len());
        if users >= Dataset::MIN_USERS && items >= Dataset::MIN_ITEMS {
            return Ok(());
        }
        let Some(file) = self.files.first() else { return Ok(()) };
        let columns = match (&file.user, &file.item) {
            (Some(user), Some(item)) => format!("read as {}: user `{user}`, item `{item}`", file.form),
            _ => format!("read as {}", file.form),
        };
        Err(DataError::TooFew { path: file.path.clone(), users, items, columns })
    }

    /// Checks that there is a pair of items to learn from and a user to validate on.
    ///
    /// # Errors
    /// [`DataError::NothingToLearn`] or [`DataError::NothingToValidate`].
    pub fn check_lengths(&self) -> Result<(), DataError> {
        if self.training_sequences().iter().all(|sequence| sequence.len() < 2) {
            return Err(DataError::NothingToLearn);
        }
        if self.cases(Split::Validation).is_empty() { Err(DataError::NothingToValidate) } else { Ok(()) }
    }

    /// Number of users with at least this many interactions.
    pub fn users_with(&self, interactions: usize) -> usize {
        self.sequences.iter().filter(|sequence| sequence.len() >= interactions).count()
    }

    /// Whether [duplicates](Dataset::duplicates) stayed that are many: a twentieth of all interactions, and half of the
    /// [repeats](Dataset::repeats).
    pub fn repeats_by_duplicates(&self) -> bool {
        let Duplicates { found, dropped } = self.duplicates;
        !dropped && found > 0 && found * 20 >= self.interactions && found * 2 >= self.repeats()
    }

    /// Number of interactions with an item that the user had before.
    pub fn repeats(&self) -> u64 {
        // The last user of each item, counted from 1.
        let mut last = vec![0; self.ids.len()];
        let mut repeats = 0;
        for (user, sequence) in (1usize..).zip(&self.sequences) {
            for item in sequence {
                let last = &mut last[item.column() - 1];
                repeats += u64::from(*last == user);
                *last = user;
            }
        }
        repeats
    }
}

impl FileSummary {
    /// Whether an interaction was read.
    fn has_interactions(&self) -> bool {
        self.lines > self.skipped + self.unselected
    }

    /// Whether the times are dates, or there are none.
    fn has_dates(&self) -> bool {
        self.time_unit != Some(super::TimeUnit::Numbers)
    }
}

fn parsed_sha256(ids: &[Box<str>], users: &[Box<str>], sequences: &[Vec<Item>]) -> String {
    let mut hash = Sha256::new();
    let mut line = String::new();
    for (place, id) in ids.iter().enumerate() {
        line.clear();
        line.push_str(if place == 0 { "" } else { "\t" });
        line.push_str(id);
        hash.update(&line);
    }
    hash.update("\n");
    for (user, sequence) in users.iter().zip(sequences) {
        line.clear();
        line.push_str(user);
        for item in sequence {
            line.push('\t');
            line.push_str(&ids[item.column() - 1]);
        }
        line.push('\n');
        hash.update(&line);
    }
    format!("{:x}", hash.finalize())
}

/// Sorts the dense ids by external id, if all external ids are plain numbers. Returns the items in the order of first
/// appearance.
fn number_items(ids: &mut Vec<Box<str>>, sequences: &mut [Vec<Item>]) -> Vec<Item> {
    let first_items: Vec<Item> = (1..).map_while(Item::new).take(ids.len()).collect();
    let numbers: Option<Vec<u64>> = ids.iter().map(|id| plain_number(id)).collect();
    let Some(numbers) = numbers else { return first_items };
    let mut order = first_items.clone();
    order.sort_unstable_by_key(|item| numbers[item.column() - 1]);
    let mut renumbered = first_items.clone();
    for (new, old) in first_items.iter().zip(&order) {
        renumbered[old.column() - 1] = *new;
    }
    *ids = order.iter().map(|old| std::mem::take(&mut ids[old.column() - 1])).collect();
    for item in sequences.iter_mut().flatten() {
        *item = renumbered[item.column() - 1];
    }
    renumbered
}

/// The number that an id spells canonically. Equal numbers are then equal ids.
fn plain_number(id: &str) -> Option<u64> {
    let canonical = id == "0" || !id.starts_with(['0', '+']);
    if canonical { id.parse().ok() } else { None }
}
