use std::path::Path;

use super::form::{self, Told};
use super::gather::{Gather, Gathered};
use super::lines::Lines;
use super::source::Source;
use super::{DataError, Skipped, locate, sequences, table, titles};
use canet_domain::{Catalogue, Item};

/// Interactions of users with items, in the order of time.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The file's name without its extensions.
    pub name: String,
    /// SHA-256 of the file's bytes as they are on disk, in hexadecimal.
    pub sha256: String,
    /// External id of item `i` at `i - 1`.
    pub ids: Vec<Box<str>>,
    /// External ids with titles, from RecBole's `.item` file beside an `.inter` file of the same stem; else none.
    pub titles: Vec<(Box<str>, Box<str>)>,
    /// External ids of the users, in the order of their first appearance.
    pub users: Vec<Box<str>>,
    /// Each user's items, oldest first, at least one. Interactions of one moment are in the order of the file.
    pub sequences: Vec<Vec<Item>>,
    /// Interactions in `sequences`.
    pub interactions: u64,
    /// Interactions dropped because a checkpoint does not know the item ([`Dataset::read_known`] alone).
    pub unknown: u64,
    /// Bad lines passed over.
    pub skipped: Skipped,
    /// Where the file's header names no moments, so that the order of its lines is taken for them.
    pub untimed: Option<Untimed>,
}

/// A header without a column of moments. Forms without a header are in the order of time by definition, this is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no column `{column}` (the header has: {found}): the order of lines is taken as time")]
pub struct Untimed {
    /// The column that is not there.
    pub column: &'static str,
    /// The header as it stands.
    pub found: String,
}

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Pass over lines that cannot be used and count them, instead of stopping at the first.
    pub skip_bad_lines: bool,
}

impl Dataset {
    /// Reads a file of one of the known [forms](super::Form), or the one such file of a directory, and gives its items
    /// dense ids: in numeric order where every external id is a plain decimal number (no sign, no leading
    /// zero), else in the order of their first appearance in the file.
    ///
    /// # Errors
    /// [`DataError`], which names the file and the line.
    pub fn read(path: &Path, options: &ReadOptions) -> Result<Dataset, DataError> {
        let mut dataset = Dataset::gather(path, options, None)?;
        dataset.number_items();
        Ok(dataset)
    }

    /// Reads the same with the items of a checkpoint; interactions with others are dropped and counted.
    ///
    /// # Errors
    /// [`DataError`], also where no item is known.
    pub fn read_known(path: &Path, catalogue: &Catalogue, options: &ReadOptions) -> Result<Dataset, DataError> {
        let mut dataset = Dataset::gather(path, options, Some(catalogue))?;
        dataset.ids = catalogue.ids().to_vec();
        Ok(dataset)
    }

    fn gather(path: &Path, options: &ReadOptions, catalogue: Option<&Catalogue>) -> Result<Dataset, DataError> {
        let file = locate::interactions(path)?;
        let mut gather = Gather::new(&file, *options, catalogue);
        let source = Source::open(&file).map_err(|error| gather.unreadable(error))?;
        let told = form::tell(&file, source.sample())?;
        let mut lines = Lines::new(source);
        match told {
            Told::Lines(shown) => sequences::read(&mut lines, shown, &mut gather)?,
            Told::Table(form) => table::read(&mut lines, form, &mut gather)?,
        }
        let sha256 = lines.digest().map_err(|error| gather.unreadable(error))?;
        let Gathered { users, ids, sequences, unknown, untimed, mut faults } = gather.finish();
        let titles = match locate::items_beside(&file) {
            Some(items) => titles::read(&items, &mut faults)?,
            None => Vec::new(),
        };
        let interactions: u64 = sequences.iter().map(|sequence| sequence.len() as u64).sum();
        if interactions == 0 {
            return Err(match unknown {
                0 => DataError::NoInteractions { path: file, skipped: faults.skipped },
                interactions => DataError::NoKnownItem { path: file, interactions },
            });
        }
        let (name, skipped) = (locate::stem(&file), faults.skipped);
        Ok(Dataset { name, sha256, ids, titles, users, sequences, interactions, unknown, skipped, untimed })
    }

    /// Gives items that go by numbers the order of their numbers.
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

/// The number that an id is, where it is written in the one usual way, so that equal numbers are equal ids.
fn plain_number(id: &str) -> Option<u64> {
    id.parse().ok().filter(|number: &u64| number.to_string() == id)
}
