use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::moment::Moment;
use super::{BadLine, DataError, LineFault, ReadOptions, Skipped, Untimed};
use canet_domain::{Catalogue, Item};

/// Collects interactions line by line, in the order of the file.
pub(crate) struct Gather<'a> {
    pub(crate) path: &'a Path,
    pub(crate) faults: Faults,
    /// Where a header names no moments.
    pub(crate) untimed: Option<Untimed>,
    users: Numbered,
    items: Items<'a>,
    /// By user, in the order of the file.
    events: Vec<Vec<Event>>,
}

/// What becomes of lines that cannot be used.
pub(crate) struct Faults {
    pub(crate) options: ReadOptions,
    pub(crate) skipped: Skipped,
}

impl Faults {
    /// Ends the reading, or counts one more skipped line.
    pub(crate) fn report(&mut self, path: &Path, line: u64, fault: LineFault) -> Result<(), DataError> {
        let bad = BadLine { path: path.to_owned(), line, fault };
        if !self.options.skip_bad_lines {
            return Err(DataError::BadLine(bad));
        }
        self.skipped.add(bad);
        Ok(())
    }
}

/// Where items get their dense ids.
enum Items<'a> {
    /// From the file, in the order of first appearance.
    Own(Numbered),
    /// From a checkpoint; others are counted.
    Known { catalogue: &'a Catalogue, unknown: u64 },
}

#[derive(Clone, Copy)]
struct Event {
    /// Seconds, or whatever unit the file has; only the order counts.
    time: Moment,
    item: Item,
}

/// What was gathered: each user's items in the order of time.
pub(crate) struct Gathered {
    pub(crate) users: Vec<Box<str>>,
    /// External ids in the order of first appearance; none where a catalogue gave the items.
    pub(crate) ids: Vec<Box<str>>,
    pub(crate) sequences: Vec<Vec<Item>>,
    pub(crate) unknown: u64,
    pub(crate) untimed: Option<Untimed>,
    pub(crate) faults: Faults,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(path: &'a Path, options: ReadOptions, catalogue: Option<&'a Catalogue>) -> Gather<'a> {
        let items = match catalogue {
            None => Items::Own(Numbered::default()),
            Some(catalogue) => Items::Known { catalogue, unknown: 0 },
        };
        let faults = Faults { options, skipped: Skipped::default() };
        Gather { path, faults, untimed: None, users: Numbered::default(), items, events: Vec::new() }
    }

    /// A whole line of items without timestamps: they follow what the user already has.
    pub(crate) fn sequence<'s>(&mut self, user: &str, items: impl Iterator<Item = &'s str>) -> Result<(), DataError> {
        items.into_iter().try_for_each(|item| self.interaction(user, item, Moment::default()))
    }

    pub(crate) fn interaction(&mut self, user: &str, item: &str, time: Moment) -> Result<(), DataError> {
        let number = |numbered: &mut Numbered, id: &str| {
            numbered.number(id).ok_or_else(|| DataError::TooMany(self.path.to_owned()))
        };
        let item = match &mut self.items {
            Items::Own(numbered) => number(numbered, item)?,
            Items::Known { catalogue, unknown } => match catalogue.item(item) {
                Some(item) => item,
                None => {
                    *unknown += 1;
                    return Ok(());
                }
            },
        };
        let user = number(&mut self.users, user)?.column() - 1;
        if user == self.events.len() {
            self.events.push(Vec::new());
        }
        self.events[user].push(Event { time, item });
        Ok(())
    }

    pub(crate) fn unreadable(&self, source: io::Error) -> DataError {
        DataError::Read { path: self.path.to_owned(), source }
    }

    pub(crate) fn finish(self) -> Gathered {
        let sequences = self.events.into_iter().map(in_time_order).collect();
        let (ids, unknown) = match self.items {
            Items::Own(numbered) => (numbered.into_ids(), 0),
            Items::Known { unknown, .. } => (Vec::new(), unknown),
        };
        Gathered { users: self.users.into_ids(), ids, sequences, unknown, untimed: self.untimed, faults: self.faults }
    }
}

/// A stable sort: interactions of one moment stay in the order of the file.
fn in_time_order(mut events: Vec<Event>) -> Vec<Item> {
    events.sort_by(|a, b| a.time.partial_cmp(&b.time).unwrap_or(Ordering::Equal));
    events.into_iter().map(|event| event.item).collect()
}

/// Names numbered from 1 in the order of their first appearance.
#[derive(Default)]
struct Numbered(HashMap<Box<str>, Item>);

impl Numbered {
    /// The name's number; `None` where there are more names than dense ids.
    fn number(&mut self, id: &str) -> Option<Item> {
        if let Some(number) = self.0.get(id) {
            return Some(*number);
        }
        let next = Some(self.0.len() + 1).filter(|next| *next <= Catalogue::MAX_ITEMS)?;
        let number = Item::new(u32::try_from(next).ok()?)?;
        self.0.insert(id.into(), number);
        Some(number)
    }

    fn into_ids(self) -> Vec<Box<str>> {
        let mut ids: Vec<_> = self.0.into_iter().collect();
        ids.sort_unstable_by_key(|(_, number)| *number);
        ids.into_iter().map(|(id, _)| id).collect()
    }
}
