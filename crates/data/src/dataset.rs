use std::path::Path;

use canet_domain::{Catalogue, Item};

use super::collector::{Collected, Collector, ReadOptions, Untimed};
use super::detect::detect;
use super::lines::Lines;
use super::{DataError, Form, Skipped, headerless, locate, table};

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
    /// The file's name without its extensions.
    pub name: String,
    /// SHA-256 of the file's bytes on disk, in hexadecimal.
    pub sha256: String,
    /// External id of item `i` at `i - 1`.
    pub ids: Vec<Box<str>>,
    /// External ids and titles, from RecBole's `.item` file of the same name beside an `.inter` file.
    pub titles: Vec<(Box<str>, Box<str>)>,
    /// External ids of the users, in the order of first appearance.
    pub users: Vec<Box<str>>,
    /// Each user's items, oldest first, at least one. Interactions of equal time keep the order of the file.
    pub sequences: Vec<Vec<Item>>,
    /// Number of interactions in `sequences`.
    pub interactions: u64,
    /// Number of interactions that [`Dataset::read_known`] dropped because the catalogue lacks the item.
    pub unknown: u64,
    /// Bad lines that were skipped.
    pub skipped: Skipped,
    /// Set if the file has no timestamps, although its format has a column or field for them.
    pub untimed: Option<Untimed>,
}

impl Dataset {
    /// Reads a file of any [`Form`], or the only such file of a directory.
    ///
    /// It gives items dense ids. If every external id is a plain decimal number (no sign, no leading zero), they are in
    /// numeric order. Otherwise they are in the order of first appearance.
    ///
    /// # Errors
    /// [`DataError`] that names the file and the line.
    pub fn read(path: &Path, options: &ReadOptions) -> Result<Dataset, DataError> {
        let mut dataset = Dataset::collect(path, options, None)?;
        dataset.number_items();
        Ok(dataset)
    }

    /// Reads a file with the dense ids of a catalogue. It drops and counts interactions with other items.
    ///
    /// # Errors
    /// [`DataError`] as for [`Dataset::read`], or if the catalogue knows none of the items.
    pub fn read_known(path: &Path, catalogue: &Catalogue, options: &ReadOptions) -> Result<Dataset, DataError> {
        let mut dataset = Dataset::collect(path, options, Some(catalogue))?;
        dataset.ids = catalogue.ids().to_vec();
        Ok(dataset)
    }

    fn collect(path: &Path, options: &ReadOptions, catalogue: Option<&Catalogue>) -> Result<Dataset, DataError> {
        let file = locate::interactions(path)?;
        let mut collector = Collector::new(&file, *options, catalogue);
        let mut lines = Lines::open(&file).map_err(|error| collector.unreadable(error))?;
        let detected = detect(&file, lines.sample())?;
        match detected.form {
            Form::RecBole | Form::Csv => table::read_interactions(&mut lines, detected.form, &mut collector)?,
            Form::Pairs | Form::Sequences => headerless::read(&mut lines, detected, &mut collector)?,
        }
        let sha256 = lines.digest().map_err(|error| collector.unreadable(error))?;
        let Collected { users, ids, sequences, unknown, untimed, mut bad_lines } = collector.finish();
        let titles = match locate::items_beside(&file) {
            Some(items) => table::read_titles(&items, &mut bad_lines)?,
            None => Vec::new(),
        };
        let interactions: u64 = sequences.iter().map(|sequence| sequence.len() as u64).sum();
        if interactions == 0 {
            return Err(match unknown {
                0 => DataError::NoInteractions { path: file, skipped: bad_lines.skipped },
                interactions => DataError::NoKnownItem { path: file, interactions },
            });
        }
        let (name, skipped) = (locate::stem(&file), bad_lines.skipped);
        Ok(Dataset { name, sha256, ids, titles, users, sequences, interactions, unknown, skipped, untimed })
    }

    /// Sorts the dense ids by external id, if all external ids are plain numbers.
    fn number_items(&mut self) {
        let numbers: Option<Vec<u64>> = self.ids.iter().map(|id| plain_number(id)).collect();
        let Some(numbers) = numbers else { return };
        let first_items: Vec<Item> = (1..).map_while(Item::new).take(self.ids.len()).collect();
        let mut order = first_items.clone();
        order.sort_unstable_by_key(|item| numbers[item.column() - 1]);
        let mut renumbered = first_items.clone();
        for (new, old) in first_items.iter().zip(&order) {
            renumbered[old.column() - 1] = *new;
        }
        self.ids = order.iter().map(|old| std::mem::take(&mut self.ids[old.column() - 1])).collect();
        for item in self.sequences.iter_mut().flatten() {
            *item = renumbered[item.column() - 1];
        }
    }
}

/// The number that an id spells canonically. Equal numbers are then equal ids.
fn plain_number(id: &str) -> Option<u64> {
    id.parse().ok().filter(|number: &u64| number.to_string() == id)
}
