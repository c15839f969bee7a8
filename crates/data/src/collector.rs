use std::path::{Path, PathBuf};

use canet_domain::Item;

use super::dense_ids::DenseIds;
use super::interaction::Interaction;
use super::times::{Keys, Times};
use super::{DataError, Duplicates, LineFault, TimeUnit};

/// Collects the interactions of all files in their order.
#[derive(Default)]
pub(crate) struct Collector {
    users: DenseIds,
    items: DenseIds,
    rows: Vec<Row>,
    /// Times of the current file.
    times: Times,
    /// Times of the files before it.
    keys: Option<Keys>,
    /// The first file, and whether it has times.
    first: Option<(PathBuf, bool)>,
    /// Whether ids or rows outgrew their type.
    overflown: bool,
    /// Bytes that the interactions and ids take, at most.
    bytes: u64,
    max_bytes: Option<u64>,
}

/// The most bytes that an interaction takes: its row and its time in lists that grow by doubling, its place in the order of the
/// users, its place in a sequence, and whether it is a duplicate.
const INTERACTION_BYTES: u64 = 2 * (size_of::<Row>() + size_of::<i128>()) as u64 + 2 * size_of::<Item>() as u64 + 1;

/// Bytes that an id takes beside its characters, in the table of ids and in lists of users or items.
const ID_BYTES: u64 = 256;

/// Dense ids, from 0.
#[derive(Clone, Copy)]
struct Row {
    user: u32,
    item: u32,
}

/// How many dense ids there are.
struct IdCounts {
    users: usize,
    items: usize,
}

/// The collected interactions, each user's in the order of time.
pub(crate) struct Collected {
    /// External ids in the order of first appearance.
    pub(crate) users: Vec<Box<str>>,
    /// External ids in the order of first appearance.
    pub(crate) ids: Vec<Box<str>>,
    pub(crate) sequences: Vec<Vec<Item>>,
    /// The earliest and the latest time, in nanoseconds since 1970.
    pub(crate) span: Option<(i128, i128)>,
    /// Interactions that the filter on their number dropped.
    pub(crate) rare: u64,
    /// Interactions with the user, item and time of an earlier one.
    pub(crate) duplicates: Duplicates,
    pub(crate) rows: TimedRows,
}

/// What was collected, in the order of the files.
pub(crate) struct TimedRows {
    rows: Vec<Row>,
    keys: Option<Keys>,
}

impl TimedRows {
    /// The times of each user's sequence in nanoseconds since 1970. `None` if there are no times.
    pub(crate) fn by_user(&self, users: usize) -> Option<Vec<Vec<i64>>> {
        let mut times = vec![Vec::new(); users];
        let keys = self.keys.as_ref()?;
        for (row, time) in self.rows.iter().zip(keys.nanoseconds()) {
            times[row.user as usize].push(time);
        }
        // The sequences have this order too, and equal times are equal.
        times.iter_mut().for_each(|times| times.sort_unstable());
        Some(times)
    }
}

impl Collector {
    /// A collector that takes at most this many bytes.
    pub(crate) fn new(max_bytes: Option<u64>) -> Collector {
        Collector { max_bytes, ..Collector::default() }
    }

    /// Adds the next interaction of the current file.
    ///
    /// A reader gives a time to every interaction of a file or to none. Without times, the order of the calls is the order
    /// of time.
    ///
    /// # Errors
    /// [`LineFault::MixedTimes`].
    pub(crate) fn add(&mut self, interaction: Interaction<'_>) -> Result<(), LineFault> {
        if let Some(time) = interaction.time {
            self.times.push(time)?;
        }
        let (users, items) = (self.users.len(), self.items.len());
        let (user, item) = (interaction.user.as_str(), interaction.item.as_str());
        match (self.users.get(user), self.items.get(item)) {
            (Some(user), Some(item)) if self.rows.len() < u32::MAX as usize => self.rows.push(Row { user, item }),
            _ => self.overflown = true,
        }
        self.bytes += INTERACTION_BYTES;
        if self.users.len() > users {
            self.bytes += ID_BYTES + user.len() as u64;
        }
        if self.items.len() > items {
            self.bytes += ID_BYTES + item.len() as u64;
        }
        Ok(())
    }

    /// Checks that what was added fits. The readers call it after each line.
    ///
    /// # Errors
    /// [`DataError::TooMany`] or [`DataError::TooLarge`].
    pub(crate) fn check_size(&self, path: &Path) -> Result<(), DataError> {
        match self.max_bytes {
            _ if self.overflown => Err(DataError::TooMany),
            Some(limit) if self.bytes > limit => {
                Err(DataError::TooLarge { path: path.to_owned(), interactions: self.rows.len() as u64, limit })
            }
            _ => Ok(()),
        }
    }

    /// Number of interactions so far.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Ends a file, and returns what its times are.
    ///
    /// # Errors
    /// [`DataError::SomeTimed`] if another file differs in whether it has times.
    pub(crate) fn finish_file(&mut self, path: &Path, timed: bool) -> Result<Option<TimeUnit>, DataError> {
        match &self.first {
            None => self.first = Some((path.to_owned(), timed)),
            Some((_, first)) if *first == timed => {}
            Some((earlier, _)) => {
                return Err(DataError::SomeTimed { path: path.to_owned(), timed, earlier: earlier.clone() });
            }
        }
        Ok(std::mem::take(&mut self.times).finish().map(|(later, unit)| {
            match &mut self.keys {
                None => self.keys = Some(later),
                Some(keys) => keys.append(later),
            }
            unit
        }))
    }

    /// Drops duplicates if `drop_duplicates` says so, then users and items with fewer interactions than `least`, and sorts.
    pub(crate) fn finish(mut self, least: u32, drop_duplicates: bool) -> Collected {
        let (mut users, mut ids) = (self.users.into_ids(), self.items.into_ids());
        let read = self.rows.len();
        if let Some(keys) = self.keys.as_mut().filter(|_| drop_duplicates) {
            let first = match keys {
                Keys::Nanoseconds(keys) => first_of_each(&self.rows, users.len(), keys),
                Keys::Fine(keys) => first_of_each(&self.rows, users.len(), keys),
            };
            let mut kept = first.iter();
            self.rows.retain(|_| kept.next().is_some_and(|first| *first));
            keys.retain(&first);
        }
        let before = self.rows.len();
        if least > 1 {
            let counts = IdCounts { users: users.len(), items: ids.len() };
            retain_frequent(&mut self.rows, &mut self.keys, counts, least);
            users = renumber(users, self.rows.iter_mut().map(|row| &mut row.user));
            ids = renumber(ids, self.rows.iter_mut().map(|row| &mut row.item));
        }
        let rare = (before - self.rows.len()) as u64;
        let span = self.keys.as_ref().and_then(Keys::span);
        let (sequences, equal) = match &self.keys {
            None => (sequences(&self.rows, users.len(), &vec![(); self.rows.len()]).0, 0),
            Some(Keys::Nanoseconds(keys)) => sequences(&self.rows, users.len(), keys),
            Some(Keys::Fine(keys)) => sequences(&self.rows, users.len(), keys),
        };
        let found = if drop_duplicates { (read - before) as u64 } else { equal };
        let duplicates = Duplicates { found, dropped: drop_duplicates };
        Collected {
            users,
            ids,
            sequences,
            span,
            rare,
            duplicates,
            rows: TimedRows { rows: self.rows, keys: self.keys },
        }
    }
}

/// Drops rows until every user and every item that is left has at least `least` of them.
fn retain_frequent(rows: &mut Vec<Row>, keys: &mut Option<Keys>, counts: IdCounts, least: u32) {
    loop {
        let (mut of_user, mut of_item) = (vec![0u32; counts.users], vec![0u32; counts.items]);
        for row in &*rows {
            of_user[row.user as usize] += 1;
            of_item[row.item as usize] += 1;
        }
        let frequent = |row: &Row| of_user[row.user as usize] >= least && of_item[row.item as usize] >= least;
        let kept: Vec<bool> = rows.iter().map(frequent).collect();
        let before = rows.len();
        rows.retain(frequent);
        if rows.len() == before {
            return;
        }
        if let Some(keys) = keys {
            keys.retain(&kept);
        }
    }
}

/// Gives new dense ids in the order of first appearance to those that are left, and returns their external ids.
fn renumber<'a>(mut ids: Vec<Box<str>>, dense: impl Iterator<Item = &'a mut u32>) -> Vec<Box<str>> {
    let mut renumbered = vec![None; ids.len()];
    let mut left = Vec::new();
    for id in dense {
        let old = *id as usize;
        *id = *renumbered[old].get_or_insert_with(|| {
            left.push(std::mem::take(&mut ids[old]));
            left.len() as u32 - 1
        });
    }
    left
}

/// Whether each row is the first of its user, item and time.
fn first_of_each<K: Copy + Ord>(rows: &[Row], users: usize, keys: &[K]) -> Vec<bool> {
    let mut first = vec![true; rows.len()];
    let mut timed: Vec<(K, u32, u32)> = Vec::new();
    for_each_user(rows, users, |places| {
        // The rows of most files are in the order of time.
        if places.is_sorted_by(|a, b| keys[*a as usize] < keys[*b as usize]) {
            return;
        }
        timed.clear();
        timed.extend(places.iter().map(|place| (keys[*place as usize], rows[*place as usize].item, *place)));
        timed.sort_unstable();
        for pair in timed.windows(2) {
            if let [before, row] = pair {
                first[row.2 as usize] = (before.0, before.1) != (row.0, row.1);
            }
        }
    });
    first
}

/// Each user's items in the order of time, and the number of rows with the user, item and key of an earlier one. Rows of equal
/// time keep the order of the files.
fn sequences<K: Copy + Ord>(rows: &[Row], users: usize, keys: &[K]) -> (Vec<Vec<Item>>, u64) {
    let (mut sequences, mut equal) = (Vec::with_capacity(users), 0);
    let (mut timed, mut items): (Vec<(K, u32)>, Vec<u32>) = (Vec::new(), Vec::new());
    for_each_user(rows, users, |places| {
        timed.clear();
        timed.extend(places.iter().map(|place| (keys[*place as usize], rows[*place as usize].item)));
        timed.sort_by_key(|(key, _)| *key);
        for moment in timed.chunk_by(|a, b| a.0 == b.0).filter(|moment| moment.len() > 1) {
            items.clear();
            items.extend(moment.iter().map(|(_, item)| *item));
            items.sort_unstable();
            equal += items.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        }
        sequences.push(timed.iter().filter_map(|(_, item)| Item::new(item + 1)).collect());
    });
    (sequences, equal)
}

/// Gives the places of each user's rows, in the order of the files.
fn for_each_user(rows: &[Row], users: usize, mut take: impl FnMut(&[u32])) {
    // Rows of the users one after another.
    let mut ends = vec![0u32; users];
    for row in rows {
        ends[row.user as usize] += 1;
    }
    let mut total = 0;
    for end in &mut ends {
        (*end, total) = (total, total + *end);
    }
    let mut order = vec![0u32; rows.len()];
    for (place, row) in (0..).zip(rows) {
        let end = &mut ends[row.user as usize];
        order[*end as usize] = place;
        *end += 1;
    }
    let mut start = 0;
    for end in ends {
        take(&order[start..end as usize]);
        start = end as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interaction::Id;
    use crate::time::Time;

    fn collected(rows: &[(&str, &str, i64)], least: u32) -> Collected {
        collected_without(rows, least, false)
    }

    fn collected_without(rows: &[(&str, &str, i64)], least: u32, drop_duplicates: bool) -> Collected {
        let mut collector = Collector::default();
        for (user, item, time) in rows {
            let [user, item] = [user, item].map(|id| Id::new("id", id).unwrap());
            collector.add(Interaction { user, item, time: Some(Time::Whole(*time)) }).unwrap();
        }
        collector.finish_file(Path::new("a"), true).unwrap();
        collector.finish(least, drop_duplicates)
    }

    #[test]
    fn dropping_a_rare_item_can_make_its_user_rare() {
        // b has two interactions, one of them with the rare z. Without b, y has one interaction left.
        let rows =
            [("b", "z", 1), ("b", "y", 2), ("a", "x", 9), ("a", "y", 8), ("a", "x", 7), ("c", "x", 1), ("c", "x", 0)];
        let collected = collected(&rows, 2);
        assert_eq!((collected.users.join(" "), collected.ids.join(" ")), ("a c".to_owned(), "x".to_owned()));
        assert_eq!((collected.sequences.iter().map(Vec::len).collect::<Vec<_>>(), collected.rare), (vec![2, 2], 3));
        assert_eq!(collected.span, Some((0, 9_000_000_000)));
    }

    #[test]
    fn the_first_of_equal_interactions_stays_where_it_was() {
        let rows = [
            ("a", "x", 3),
            ("b", "x", 3),
            ("a", "y", 3),
            ("a", "x", 3),
            ("a", "x", 1),
            ("a", "x", 3),
            ("b", "x", 4),
            ("c", "z", 1),
            ("c", "z", 1),
        ];
        for (drop, a, c, found, least, rare) in [
            (false, "x x y x x", "z z", 3, 0, 0),
            (true, "x x y", "z", 3, 0, 0),
            // The filter drops c, duplicate included. Duplicates that were dropped before do not count for the filter.
            (false, "x x x x", "", 2, 3, 5),
            (true, "x x", "", 3, 2, 2),
        ] {
            let collected = collected_without(&rows, least, drop);
            let items_of = |user: &str| {
                let place = collected.users.iter().position(|known| **known == *user);
                let items = place.map_or(&[][..], |place| &collected.sequences[place]);
                items.iter().map(|item| &*collected.ids[item.column() - 1]).collect::<Vec<_>>().join(" ")
            };
            assert_eq!((items_of("a").as_str(), items_of("c").as_str()), (a, c), "{drop} {least}");
            assert_eq!(collected.duplicates, Duplicates { found, dropped: drop });
            assert_eq!(collected.rare, rare);
            let times = collected.rows.by_user(collected.users.len()).unwrap();
            assert!(times.iter().map(Vec::len).eq(collected.sequences.iter().map(Vec::len)));
        }
    }

    #[test]
    fn equal_times_keep_the_order_of_the_file() {
        let collected = collected(&[("u", "b", 2), ("v", "c", 1), ("u", "a", 2), ("u", "c", 1)], 0);
        let items: Vec<Vec<u32>> =
            collected.sequences.iter().map(|items| items.iter().map(|item| item.id()).collect()).collect();
        assert_eq!((collected.ids.join(" "), items), ("b c a".to_owned(), vec![vec![2, 1, 3], vec![2]]));
    }
}
