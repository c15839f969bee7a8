use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Rows that wait for the device, in one lane for each set that may share a batch.
///
/// The order is by earliest deadline, within a lane and between lanes. A deadline counts as no later than arrival +
/// `patience`, and this bounds starvation: whatever arrives once a row has waited for `patience` goes behind it, so it
/// waits at most `patience` and then for the rows that were there before it.
///
/// Nothing here reads a clock: the time is an argument.
#[derive(Debug)]
pub struct Lanes<K, T> {
    patience: Duration,
    lanes: HashMap<K, BinaryHeap<Reverse<Waiting<T>>>>,
    pushed: u64,
}

/// What a lane gave to the device.
#[derive(Debug)]
pub struct Batch<K, T> {
    /// The lane.
    pub lane: K,
    /// The rows to run, the most urgent first; empty where none was alive.
    pub rows: Vec<T>,
    /// Rows whose deadline has passed: they must not run.
    pub late: Vec<T>,
    /// Rows that nobody waits for any more: they must not run.
    pub gone: Vec<T>,
}

/// When a row came and when its answer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Arrival of the request.
    pub arrived: Instant,
    /// From here on the answer is of no use.
    pub deadline: Instant,
}

#[derive(Debug)]
struct Waiting<T> {
    /// The effective deadline, then the order of arrival: no two are equal.
    urgency: (Instant, u64),
    deadline: Instant,
    row: T,
}

impl<K: Copy + Eq + Hash, T> Lanes<K, T> {
    /// No lane yet; rows that have waited for `patience` are passed by no newcomer.
    pub fn new(patience: Duration) -> Lanes<K, T> {
        Lanes { patience, lanes: HashMap::new(), pushed: 0 }
    }

    /// Adds a row to a lane.
    pub fn push(&mut self, lane: K, due: Due, row: T) {
        let urgency = (due.deadline.min(due.arrived + self.patience), self.pushed);
        self.pushed += 1;
        self.lanes.entry(lane).or_default().push(Reverse(Waiting { urgency, deadline: due.deadline, row }));
    }

    /// Whether no row waits.
    pub fn is_empty(&self) -> bool {
        // A lane that runs empty is removed.
        self.lanes.is_empty()
    }

    /// Takes every row out, those in time and those that are not.
    pub fn clear(&mut self) -> Vec<T> {
        self.lanes.drain().flat_map(|(_, rows)| rows).map(|Reverse(waiting)| waiting.row).collect()
    }

    /// Up to `max` rows of the most urgent lane that are in time at `now` and not `gone`; `None` where no row waits.
    pub fn take(&mut self, now: Instant, max: usize, gone: impl Fn(&T) -> bool) -> Option<Batch<K, T>> {
        let head = |rows: &BinaryHeap<Reverse<Waiting<T>>>| rows.peek().map(|Reverse(waiting)| waiting.urgency);
        let lane = self.lanes.iter().min_by_key(|(_, rows)| head(rows)).map(|(lane, _)| *lane)?;
        let waiting = self.lanes.get_mut(&lane)?;
        let mut batch = Batch { lane, rows: Vec::new(), late: Vec::new(), gone: Vec::new() };
        while batch.rows.len() < max {
            let Some(Reverse(Waiting { deadline, row, .. })) = waiting.pop() else { break };
            if gone(&row) {
                batch.gone.push(row);
            } else if deadline <= now {
                batch.late.push(row);
            } else {
                batch.rows.push(row);
            }
        }
        if waiting.is_empty() {
            self.lanes.remove(&lane);
        }
        Some(batch)
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.urgency == other.urgency
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.urgency.cmp(&other.urgency)
    }
}
