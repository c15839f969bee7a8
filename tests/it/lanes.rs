//! Lanes: order, starvation, deadlines and bounds, with the time as an argument.

use std::time::{Duration, Instant};

use canet_serving::{Batch, Due, Lanes};

const PATIENCE: Duration = Duration::from_millis(100);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Rows are named by what they are; their times are milliseconds since the start of the test.
struct Clock {
    start: Instant,
    lanes: Lanes<char, &'static str>,
}

impl Clock {
    fn new() -> Clock {
        Clock { start: Instant::now(), lanes: Lanes::new(PATIENCE) }
    }

    fn push(&mut self, lane: char, arrived: u64, deadline: u64, row: &'static str) {
        let due = Due { arrived: self.start + ms(arrived), deadline: self.start + ms(deadline) };
        self.lanes.push(lane, due, row);
    }

    fn take(&mut self, now: u64, max: usize) -> Option<Batch<char, &'static str>> {
        self.lanes.take(self.start + ms(now), max, |row| row.starts_with("gone"))
    }

    fn rows(&mut self, now: u64, max: usize) -> Vec<&'static str> {
        self.take(now, max).map(|batch| batch.rows).unwrap_or_default()
    }
}

#[test]
fn the_lane_with_the_earliest_deadline_runs_first() {
    let mut clock = Clock::new();
    clock.push('a', 0, 90, "later");
    clock.push('b', 1, 50, "soon");
    clock.push('b', 2, 80, "with soon");
    clock.push('a', 3, 40, "soonest");
    assert_eq!(clock.rows(5, 8), ["soonest", "later"]);
    assert_eq!(clock.rows(5, 8), ["soon", "with soon"]);
    assert!(clock.lanes.is_empty() && clock.take(5, 8).is_none());
}

#[test]
fn a_batch_is_bounded_and_takes_the_most_urgent_rows() {
    let mut clock = Clock::new();
    for (deadline, row) in [(70, "third"), (50, "first"), (60, "second")] {
        clock.push('a', 0, deadline, row);
    }
    assert_eq!(clock.rows(1, 2), ["first", "second"]);
    assert_eq!(clock.rows(1, 2), ["third"]);
}

#[test]
fn equal_deadlines_run_in_the_order_of_arrival() {
    let mut clock = Clock::new();
    ["one", "two", "three", "four"].into_iter().for_each(|row| clock.push('a', 0, 50, row));
    assert_eq!(clock.rows(1, 8), ["one", "two", "three", "four"]);
}

#[test]
fn late_and_gone_rows_are_set_apart_and_take_no_place_in_the_batch() {
    let mut clock = Clock::new();
    clock.push('a', 0, 10, "late");
    clock.push('a', 0, 20, "gone");
    clock.push('a', 0, 30, "alive");
    clock.push('a', 0, 31, "alive too");
    let batch = clock.take(10, 1).unwrap();
    assert_eq!((batch.rows, batch.late, batch.gone), (vec!["alive"], vec!["late"], vec!["gone"]));
    assert_eq!(clock.rows(10, 1), ["alive too"]);
}

#[test]
fn a_lane_of_dead_rows_gives_an_empty_batch_and_is_done() {
    let mut clock = Clock::new();
    clock.push('a', 0, 10, "late");
    let batch = clock.take(11, 4).unwrap();
    assert!(batch.rows.is_empty() && clock.lanes.is_empty());
}

#[test]
fn patience_bounds_how_long_urgent_newcomers_can_pass_a_row() {
    let mut clock = Clock::new();
    clock.push('z', 0, 60_000, "patient");
    let mut passed_by = 0;
    // Every millisecond brings a row that is due in 5 ms, and one batch runs: the device is exactly busy.
    for now in 1.. {
        clock.push('a', now, now + 5, "urgent");
        if clock.rows(now, 1) == ["patient"] {
            break;
        }
        passed_by += 1;
    }
    assert!((90..=100).contains(&passed_by), "{passed_by}");
}

#[test]
fn a_rare_lane_among_a_busy_one_waits_no_longer_than_its_patience_and_a_batch() {
    // 500 rows a second that are due within 30 ms, and one a second that could wait for ever; the device runs up to 16
    // rows in 20 ms.
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
        if clock.rows(now, 16) == ["rare"] {
            longest = longest.max(now - arrived);
            served += 1;
        }
    }
    assert_eq!(served, 60);
    let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
    // It is passed by more urgent rows, but not for long.
    assert!((40..=patience + 20).contains(&longest), "{longest} ms");
}
