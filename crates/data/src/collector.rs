use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use canet_domain::{Catalogue, Item};

use super::interaction::{Interaction, Timestamp};
use super::{BadLine, DataError, LineFault, Skipped};

/// How to read a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Skip and count bad lines instead of stopping at the first.
    pub skip_bad_lines: bool,
    /// Bytes of memory that the interactions may take; `None` for no limit. A small compressed file can hold very many.
    pub max_bytes: Option<u64>,
}

/// The most bytes that an interaction takes: in its user's list, which grows by doubling, and in the sequence that is made of
/// it.
const INTERACTION_BYTES: u64 = 2 * size_of::<Event>() as u64 + size_of::<Item>() as u64;

/// Bytes that an id takes beside its characters: in the table of ids and in the list of a user's interactions.
const ID_BYTES: u64 = 256;

/// A file without timestamps in a format that has them. The order of the lines then counts as the order of time.
///
/// Files of [`Form::Pairs`](super::Form::Pairs) and [`Form::Sequences`](super::Form::Sequences) are in the order of time by
/// definition, so they lack nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no `{missing}` (found: {found}): the order of lines is taken as time")]
pub struct Untimed {
    /// The missing column or field.
    pub missing: &'static str,
    /// The columns or fields that the file has.
    pub found: String,
}

/// Skips or reports bad lines.
pub(crate) struct BadLines {
    options: ReadOptions,
    pub(crate) skipped: Skipped,
}

impl BadLines {
    /// Counts a bad line, or returns it as the error.
    pub(crate) fn report(&mut self, path: &Path, line: u64, fault: LineFault) -> Result<(), DataError> {
        let bad = BadLine { path: path.to_owned(), line, fault };
        if !self.options.skip_bad_lines {
            return Err(DataError::BadLine(bad));
        }
        self.skipped.add(bad);
        Ok(())
    }
}

/// Collects interactions in the order of the file.
pub(crate) struct Collector<'a> {
    pub(crate) path: &'a Path,
    pub(crate) bad_lines: BadLines,
    /// The reader sets it if the format has timestamps and the file has none. The commands print it as a remark.
    pub(crate) untimed: Option<Untimed>,
    users: DenseIds,
    items: Items<'a>,
    /// By user.
    events: Vec<Vec<Event>>,
    interactions: u64,
    /// Bytes that the interactions and ids take, at most.
    bytes: u64,
    max_bytes: u64,
}

/// The source of the items' dense ids.
enum Items<'a> {
    /// The file: in the order of first appearance.
    File(DenseIds),
    /// A checkpoint. Interactions with other items are counted.
    Catalogue { catalogue: &'a Catalogue, unknown: u64 },
}

#[derive(Clone, Copy)]
struct Event {
    time: Timestamp,
    item: Item,
}

/// The collected interactions, each user's in the order of time.
pub(crate) struct Collected {
    pub(crate) users: Vec<Box<str>>,
    /// External ids in the order of first appearance; empty if a catalogue gave the items.
    pub(crate) ids: Vec<Box<str>>,
    pub(crate) sequences: Vec<Vec<Item>>,
    pub(crate) unknown: u64,
    pub(crate) untimed: Option<Untimed>,
    pub(crate) bad_lines: BadLines,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(path: &'a Path, options: ReadOptions, catalogue: Option<&'a Catalogue>) -> Collector<'a> {
        let items = match catalogue {
            None => Items::File(DenseIds::default()),
            Some(catalogue) => Items::Catalogue { catalogue, unknown: 0 },
        };
        let bad_lines = BadLines { options, skipped: Skipped::default() };
        Collector {
            path,
            bad_lines,
            untimed: None,
            users: DenseIds::default(),
            items,
            events: Vec::new(),
            interactions: 0,
            bytes: 0,
            max_bytes: options.max_bytes.unwrap_or(u64::MAX),
        }
    }

    /// Adds the next interaction of the file. Interactions with items that the catalogue lacks are counted, not kept.
    ///
    /// A reader gives a time to every interaction of a file or to none, because a missing time counts as 0. It reports a line
    /// that differs as a bad line. Without times, the order of the calls is the order of time. The reader then sets
    /// [`untimed`](Self::untimed) if the format has timestamps.
    ///
    /// # Errors
    /// [`DataError::TooMany`] or [`DataError::TooLarge`]. The reader returns it and stops, because no single line is at fault.
    pub(crate) fn add(&mut self, interaction: Interaction<'_>) -> Result<(), DataError> {
        let (user, item) = (interaction.user.as_str(), interaction.item.as_str());
        let time = interaction.time.unwrap_or_default();
        let dense = |ids: &mut DenseIds, id: &str| ids.get(id).ok_or_else(|| DataError::TooMany(self.path.to_owned()));
        let item = match &mut self.items {
            Items::File(ids) => {
                let known = ids.0.len();
                let dense = dense(ids, item)?;
                if ids.0.len() > known {
                    self.bytes += ID_BYTES + item.len() as u64;
                }
                dense
            }
            Items::Catalogue { catalogue, unknown } => match catalogue.item(item) {
                Some(item) => item,
                None => {
                    *unknown += 1;
                    return Ok(());
                }
            },
        };
        let id_bytes = ID_BYTES + user.len() as u64;
        let user = dense(&mut self.users, user)?.column() - 1;
        if user == self.events.len() {
            self.events.push(Vec::new());
            self.bytes += id_bytes;
        }
        self.events[user].push(Event { time, item });
        self.interactions += 1;
        self.bytes += INTERACTION_BYTES;
        if self.bytes > self.max_bytes {
            let (path, limit) = (self.path.to_owned(), self.max_bytes);
            return Err(DataError::TooLarge { path, interactions: self.interactions, limit });
        }
        Ok(())
    }

    pub(crate) fn unreadable(&self, source: io::Error) -> DataError {
        DataError::Read { path: self.path.to_owned(), source }
    }

    pub(crate) fn finish(self) -> Collected {
        let sequences = self.events.into_iter().map(in_time_order).collect();
        let (ids, unknown) = match self.items {
            Items::File(ids) => (ids.into_ids(), 0),
            Items::Catalogue { unknown, .. } => (Vec::new(), unknown),
        };
        let users = self.users.into_ids();
        Collected { users, ids, sequences, unknown, untimed: self.untimed, bad_lines: self.bad_lines }
    }
}

/// Sorts stably, so events of equal time keep the order of the file.
fn in_time_order(mut events: Vec<Event>) -> Vec<Item> {
    events.sort_by(|a, b| a.time.partial_cmp(&b.time).unwrap_or(Ordering::Equal));
    events.into_iter().map(|event| event.item).collect()
}

/// Dense ids from 1, in the order of first appearance.
#[derive(Default)]
struct DenseIds(HashMap<Box<str>, Item>);

impl DenseIds {
    /// The dense id of an external id; `None` if there are too many.
    fn get(&mut self, id: &str) -> Option<Item> {
        if let Some(item) = self.0.get(id) {
            return Some(*item);
        }
        let next = Some(self.0.len() + 1).filter(|next| *next <= Catalogue::MAX_ITEMS)?;
        let item = Item::new(u32::try_from(next).ok()?)?;
        self.0.insert(id.into(), item);
        Some(item)
    }

    fn into_ids(self) -> Vec<Box<str>> {
        let mut ids: Vec<_> = self.0.into_iter().collect();
        ids.sort_unstable_by_key(|(_, item)| *item);
        ids.into_iter().map(|(id, _)| id).collect()
    }
}
