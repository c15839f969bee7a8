use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Rows that may share a batch wait in one lane, in the order of their deadlines.
///
/// A deadline counts as no later than arrival + `patience`, which bounds starvation: a row that has waited for
/// `patience` runs before every row that arrives later. It then waits only for the rows that were there before it.
#[derive(Debug)]
pub(crate) struct Lanes<L, T> {
    patience: Duration,
    /// No lane is empty.
    lanes: HashMap<L, BinaryHeap<Reverse<Entry<T>>>>,
    pushed: u64,
}

/// When a row came and when its answer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When the request arrived, and in the queue when the row entered it.
    pub arrived: Instant,
    /// From this time on the answer is of no use.
    pub deadline: Instant,
}

#[derive(Debug)]
struct Entry<T> {
    /// The effective deadline, then the order of arrival: no two are equal.
    urgency: (Instant, u64),
    row: T,
}

impl<L: Copy + Eq + Hash, T> Lanes<L, T> {
    /// Without any row.
    pub(crate) fn new(patience: Duration) -> Lanes<L, T> {
        Lanes { patience, lanes: HashMap::new(), pushed: 0 }
    }

    /// Adds a row to a lane.
    pub(crate) fn push(&mut self, lane: L, due: Due, row: T) {
        let urgency = (due.deadline.min(due.arrived + self.patience), self.pushed);
        self.pushed += 1;
        self.lanes.entry(lane).or_default().push(Reverse(Entry { urgency, row }));
    }

    /// Whether no row waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The lane of the most urgent row.
    pub(crate) fn most_urgent(&self) -> Option<L> {
        let urgency = |rows: &BinaryHeap<Reverse<Entry<T>>>| rows.peek().map(|Reverse(entry)| entry.urgency);
        self.lanes.iter().min_by_key(|(_, rows)| urgency(rows)).map(|(lane, _)| *lane)
    }

    /// How many rows wait in a lane.
    pub(crate) fn len(&self, lane: L) -> usize {
        self.lanes.get(&lane).map_or(0, BinaryHeap::len)
    }

    /// The most urgent row of a lane.
    pub(crate) fn peek(&self, lane: L) -> Option<&T> {
        self.lanes.get(&lane)?.peek().map(|Reverse(entry)| &entry.row)
    }

    /// Takes the most urgent row out of a lane.
    pub(crate) fn pop(&mut self, lane: L) -> Option<T> {
        let rows = self.lanes.get_mut(&lane)?;
        let Reverse(entry) = rows.pop()?;
        if rows.is_empty() {
            self.lanes.remove(&lane);
        }
        Some(entry.row)
    }

    /// Takes every row out, with its lane.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (L, T)> {
        self.lanes.drain().flat_map(|(lane, rows)| rows.into_iter().map(move |Reverse(entry)| (lane, entry.row)))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.urgency == other.urgency
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.urgency.cmp(&other.urgency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    /// Lanes of named rows; times are milliseconds since the start of the test.
    struct Clock {
        start: Instant,
        lanes: Lanes<char, &'static str>,
    }

    impl Clock {
        fn new() -> Clock {
            Clock { start: Instant::now(), lanes: Lanes::new(PATIENCE) }
        }

        fn push(&mut self, lane: char, arrived: u64, deadline: u64, row: &'static str) {
            let at = |milliseconds| self.start + Duration::from_millis(milliseconds);
            self.lanes.push(lane, Due { arrived: at(arrived), deadline: at(deadline) }, row);
        }

        /// Up to `max` rows of the most urgent lane.
        fn take(&mut self, max: usize) -> Vec<&'static str> {
            let Some(lane) = self.lanes.most_urgent() else { return Vec::new() };
            (0..max).map_while(|_| self.lanes.pop(lane)).collect()
        }
    }

    #[test]
    fn the_lane_with_the_earliest_deadline_runs_first() {
        let mut clock = Clock::new();
        clock.push('a', 0, 90, "later");
        clock.push('b', 1, 50, "soon");
        clock.push('b', 2, 80, "with soon");
        clock.push('a', 3, 40, "soonest");
        assert_eq!(clock.take(8), ["soonest", "later"]);
        assert_eq!(clock.take(8), ["soon", "with soon"]);
        assert!(clock.lanes.is_empty() && clock.lanes.most_urgent().is_none());
    }

    #[test]
    fn the_most_urgent_rows_of_a_lane_leave_first() {
        let mut clock = Clock::new();
        for (deadline, row) in [(70, "third"), (50, "first"), (60, "second")] {
            clock.push('a', 0, deadline, row);
        }
        assert_eq!(clock.take(2), ["first", "second"]);
        assert_eq!(clock.take(2), ["third"]);
    }

    #[test]
    fn equal_deadlines_run_in_the_order_of_arrival() {
        let mut clock = Clock::new();
        ["one", "two", "three", "four"].into_iter().for_each(|row| clock.push('a', 0, 50, row));
        assert_eq!(clock.take(8), ["one", "two", "three", "four"]);
    }

    #[test]
    fn patience_bounds_how_long_urgent_newcomers_overtake_a_row() {
        let mut clock = Clock::new();
        clock.push('z', 0, 60_000, "patient");
        let mut overtaken = 0;
        // Every millisecond a row arrives that is due in 5 ms, and one row runs: the device is exactly busy.
        for now in 1.. {
            clock.push('a', now, now + 5, "urgent");
            if clock.take(1) == ["patient"] {
                break;
            }
            overtaken += 1;
        }
        assert!((90..=100).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn a_rare_lane_beside_a_busy_one_waits_no_longer_than_its_patience_and_a_batch() {
        // 500 rows a second are due within 30 ms, and one a second can wait for an hour. The device runs up to 16 rows
        // in 20 ms.
        let mut clock = Clock::new();
        let (mut longest, mut arrived, mut served) = (0, 0, 0);
        for now in (0..60_000_u64).step_by(20) {
            for came in (now.saturating_sub(20)..now).step_by(2) {
                clock.push('b', came, came + 30, "busy");
                if came % 1000 == 500 {
                    clock.push('r', came, came + 3_600_000, "rare");
                    arrived = came;
                }
            }
            if clock.take(16) == ["rare"] {
                longest = longest.max(now - arrived);
                served += 1;
            }
        }
        assert_eq!(served, 60);
        // More urgent rows overtake it, but not for long.
        assert!((40..=120).contains(&longest), "{longest} ms");
    }
}
