use std::time::{Duration, Instant};

use super::{
    Arrival, Batch, BatchTiming, Cancellable, DegradeLevel, Due, Limits, QueueFull, RejectReason, Routed, RouterBatch,
    Scheduler, SharesRouter, Work,
};

/// A row of 10 MFLOP, which takes 1 ms.
const ROW: u64 = 10_000_000;

impl Cancellable for &str {
    fn is_cancelled(&self) -> bool {
        self.starts_with("cancelled")
    }
}

impl SharesRouter for &str {
    fn shares_router(&self, other: &Self) -> bool {
        self.ends_with("of the old model") == other.ends_with("of the old model")
    }
}

type Next = Option<Work<char, &'static str, &'static str>>;

/// A scheduler whose times are milliseconds since the start of the test.
struct Clock {
    start: Instant,
    scheduler: Scheduler<char, &'static str, &'static str>,
}

const LIMITS: Limits = Limits { executors: 1, max_batch: 4, queue_limit: Duration::from_secs(3600), degrade: false };

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Batches of a device that takes 1 ms a batch and 1 ms a row.
fn timed() -> [BatchTiming; 2] {
    [1, 4].map(|rows| BatchTiming { flops: ROW * rows, took: ms(1 + rows) })
}

fn unrouted(row: &'static str) -> Arrival<char, &'static str, &'static str> {
    Arrival::Unrouted { row, router_flops: 10, full_flops: 10 * ROW }
}

fn routed(row: &'static str, lane: char) -> Routed<char, &'static str> {
    Routed { row, lane, flops: ROW }
}

impl Clock {
    /// Lanes `a` and `b` and the router are calibrated.
    fn new(limits: Limits) -> Clock {
        let start = Instant::now();
        let mut scheduler = Scheduler::new(limits, start);
        let lanes: Vec<(char, BatchTiming)> =
            ['a', 'b'].into_iter().flat_map(|lane| timed().map(|ran| (lane, ran))).collect();
        scheduler.calibrate(&lanes, &timed());
        Clock { start, scheduler }
    }

    fn limited(queue_limit: u64) -> Clock {
        Clock::new(Limits { queue_limit: ms(queue_limit), ..LIMITS })
    }

    fn due(&self, arrived: u64, deadline: u64) -> Due {
        Due { arrived: self.start + ms(arrived), deadline: self.start + ms(deadline) }
    }

    /// A row without a route arrives at the start.
    fn send(&mut self, row: &'static str) {
        self.scheduler.admit(self.due(0, 60_000), unrouted(row)).unwrap();
    }

    /// A row of lane `a` arrives at the start.
    fn send_routed(&mut self, row: &'static str, deadline: u64) {
        self.scheduler.admit(self.due(0, deadline), Arrival::Routed(routed(row, 'a'))).unwrap();
    }

    /// Sends rows until one is refused: how many were admitted, and why the last was not.
    fn fill(&mut self, arrival: impl Fn() -> Arrival<char, &'static str, &'static str>) -> (usize, QueueFull) {
        for admitted in 0.. {
            if let Err(rejected) = self.scheduler.admit(self.due(0, 3_600_000), arrival()) {
                let RejectReason::Full(full) = rejected.reason else { panic!("{:?}", rejected.reason) };
                return (admitted, full);
            }
        }
        unreachable!()
    }

    fn next(&mut self, now: u64) -> Next {
        self.scheduler.next(0, self.start + ms(now))
    }

    fn router_batch(&mut self, now: u64) -> RouterBatch<&'static str> {
        match self.next(now) {
            Some(Work::Route(batch)) => batch,
            work => panic!("{work:?}"),
        }
    }

    fn batch(&mut self, now: u64) -> Batch<char, &'static str> {
        match self.next(now) {
            Some(Work::Run(batch)) => batch,
            work => panic!("{work:?}"),
        }
    }

    fn rows(&mut self, now: u64) -> Vec<&'static str> {
        self.batch(now).rows.into_iter().map(|started| started.row).collect()
    }

    /// Runs everything that waits, in batches that take no time to teach anything.
    fn drain(&mut self, now: u64) {
        while let Some(work) = self.next(now) {
            if let Work::Route(batch) = work {
                let rows = batch.rows.into_iter().map(|row| routed(row, 'a')).collect();
                self.scheduler.routed(0, ms(5), rows);
            }
        }
    }
}

#[test]
fn an_executor_routes_what_has_arrived_then_runs_one_batch() {
    let mut clock = Clock::new(LIMITS);
    assert!(clock.next(0).is_none());
    ["1", "2", "3", "4", "5"].into_iter().for_each(|row| clock.send(row));
    assert_eq!(clock.router_batch(1).rows, ["1", "2", "3", "4"]);
    clock.send("6");
    clock.scheduler.routed(0, ms(1), ["1", "2", "3", "4"].map(|row| routed(row, 'a')).into());
    assert_eq!(clock.router_batch(2).rows, ["5"]);
    clock.scheduler.routed(0, ms(1), vec![routed("5", 'b')]);
    // Row 6 arrived too late for this turn.
    assert_eq!(clock.rows(3), ["1", "2", "3", "4"]);
    clock.scheduler.completed(0, ms(5), None);
    assert_eq!(clock.router_batch(8).rows, ["6"]);
    clock.scheduler.routed(0, ms(1), vec![routed("6", 'b')]);
    assert_eq!(clock.rows(9), ["5", "6"]);
    clock.scheduler.completed(0, ms(3), None);
    assert!(clock.next(12).is_none() && clock.scheduler.queued() == 0);
}

#[test]
fn another_executor_takes_what_the_first_one_left() {
    let mut clock = Clock::new(Limits { executors: 2, ..LIMITS });
    ["1", "2", "3", "4", "5"].into_iter().for_each(|row| clock.send(row));
    assert_eq!(clock.router_batch(0).rows.len(), 4);
    let Some(Work::Route(second)) = clock.scheduler.next(1, clock.start) else { panic!("five rows were sent") };
    assert_eq!(second.rows, ["5"]);
    clock.scheduler.routed(0, ms(1), ["1", "2", "3", "4"].map(|row| routed(row, 'a')).into());
    clock.scheduler.routed(1, ms(1), vec![routed("5", 'a')]);
    assert_eq!(clock.rows(2), ["1", "2", "3", "4"]);
    let Some(Work::Run(second)) = clock.scheduler.next(1, clock.start) else { panic!("one row is left") };
    assert_eq!(second.rows.len(), 1);
}

#[test]
fn rows_of_two_routers_share_no_micro_batch() {
    let mut clock = Clock::new(LIMITS);
    ["1 of the old model", "2 of the old model", "3", "4"].into_iter().for_each(|row| clock.send(row));
    assert_eq!(clock.router_batch(0).rows, ["1 of the old model", "2 of the old model"]);
    clock.scheduler.unroutable(0);
    assert_eq!(clock.router_batch(0).rows, ["3", "4"]);
    clock.scheduler.unroutable(0);
    assert_eq!((clock.scheduler.queued(), clock.scheduler.pressure()), (0, 0.0));
}

#[test]
fn rows_of_two_routers_fill_their_micro_batches_and_keep_their_order() {
    let mut clock = Clock::new(LIMITS);
    let rows = ["1", "2 of the old model", "3", "4 of the old model", "5", "6", "7", "8 of the old model", "9"];
    rows.into_iter().for_each(|row| clock.send(row));
    let mut batches = Vec::new();
    for _ in 0..3 {
        batches.push(clock.router_batch(0).rows);
        clock.scheduler.unroutable(0);
    }
    let olds = vec!["2 of the old model", "4 of the old model", "8 of the old model"];
    assert_eq!(batches, [vec!["1", "3", "5", "6"], olds, vec!["7", "9"]]);
    assert_eq!((clock.scheduler.queued(), clock.scheduler.pressure()), (0, 0.0));
    // A look goes no further than four rows for each row of a batch.
    clock.send("of the old model");
    (0..15).for_each(|_| clock.send("new"));
    clock.send("too far, of the old model");
    assert_eq!(clock.router_batch(0).rows, ["of the old model"]);
}

#[test]
fn late_and_cancelled_rows_do_not_run_and_take_no_place_in_a_batch() {
    let mut clock = Clock::new(Limits { max_batch: 1, ..LIMITS });
    for (row, deadline) in [("late", 10), ("cancelled", 20), ("alive", 30), ("alive too", 31)] {
        clock.send_routed(row, deadline);
    }
    let batch = clock.batch(10);
    assert_eq!((batch.late, batch.cancelled), (vec!["late"], vec!["cancelled"]));
    assert_eq!((batch.rows[0].row, batch.rows[0].waited), ("alive", ms(10)));
    assert_eq!(clock.rows(10), ["alive too"]);
    // The same before the router runs.
    clock.scheduler.admit(clock.due(0, 10), unrouted("late")).unwrap();
    ["cancelled", "alive"].into_iter().for_each(|row| clock.send(row));
    let batch = clock.router_batch(10);
    assert_eq!((batch.rows, batch.late, batch.cancelled), (vec!["alive"], vec!["late"], vec!["cancelled"]));
    clock.scheduler.unroutable(0);
    assert_eq!(clock.scheduler.queued(), 0);
}

#[test]
fn a_row_that_cannot_be_in_time_runs_only_if_no_other_row_waits() {
    let mut clock = Clock::new(LIMITS);
    // A batch of one takes 4 ms: half of that must be left.
    clock.scheduler.calibrate(&[('a', BatchTiming { flops: ROW, took: ms(4) })], &[]);
    clock.send_routed("hopeless", 100);
    clock.send_routed("in time", 102);
    let batch = clock.batch(99);
    assert_eq!((batch.late, batch.rows.len()), (vec!["hopeless"], 1));
    clock.send_routed("hopeless", 100);
    clock.send_routed("hopeless too", 100);
    let batch = clock.batch(99);
    assert_eq!((batch.late, batch.rows[0].row), (vec!["hopeless"], "hopeless too"));
    clock.send_routed("hopeless", 100);
    assert_eq!(clock.rows(99), ["hopeless"]);
}

#[test]
fn a_batch_does_not_outlast_its_rows_unless_it_is_of_two() {
    let mut clock = Clock::new(LIMITS);
    // A row takes 4 ms in every batch.
    let timed = |rows: u32| ('a', BatchTiming { flops: ROW * u64::from(rows), took: ms(4) * rows });
    clock.scheduler.calibrate(&[timed(1), timed(4)], &[]);
    ["1", "2", "3", "4"].into_iter().for_each(|row| clock.send_routed(row, 14));
    assert_eq!(clock.rows(0), ["1", "2", "3"]);
    clock.send_routed("in a second", 1000);
    clock.send_routed("5", 1000);
    // Row 4 will be late, whoever shares its batch.
    assert_eq!(clock.rows(11), ["4", "in a second"]);
    ["6", "7", "8"].into_iter().for_each(|row| clock.send_routed(row, 1000));
    assert_eq!(clock.rows(11), ["5", "6", "7", "8"]);
}

#[test]
fn rows_are_admitted_while_the_predicted_work_is_within_the_limit() {
    // Four rows a batch, 5 ms a batch: 15 ms are three batches.
    let mut clock = Clock::limited(15);
    let (admitted, _) = clock.fill(|| Arrival::Routed(routed("", 'a')));
    assert!((11..=12).contains(&admitted), "{admitted}");
    assert_eq!(clock.scheduler.queued(), admitted);
    assert!((0.9..=1.0).contains(&clock.scheduler.pressure()), "{}", clock.scheduler.pressure());
    // A row frees its place when it leaves, however it leaves.
    assert_eq!(clock.batch(0).rows.len(), 4);
    assert_eq!(clock.scheduler.queued(), admitted - 4);
    assert_eq!(clock.scheduler.abandon().1.len(), admitted - 4);
    assert_eq!((clock.scheduler.queued(), clock.scheduler.pressure()), (0, 0.0));
}

#[test]
fn rows_of_many_lanes_share_no_batch_and_cost_more() {
    let (together, _) = Clock::limited(40).fill(|| Arrival::Routed(routed("", 'a')));
    let mut clock = Clock::limited(40);
    let mut lanes = '\0'..;
    let admitted = (0..100).take_while(|_| {
        let lane = lanes.next().unwrap();
        clock.scheduler.admit(clock.due(0, 1000), Arrival::Routed(routed("", lane))).is_ok()
    });
    let alone = admitted.count();
    assert!(alone * 3 < together * 2, "{alone} {together}");
}

#[test]
fn as_many_rows_as_fit_are_admitted() {
    let mut clock = Clock::limited(40);
    // 20 ms of 2 ms each.
    let fitting = clock.scheduler.fitting(ROW);
    assert!((9..=11).contains(&fitting), "{fitting}");
    assert!(clock.fill(|| Arrival::Routed(routed("", 'a'))).0 > fitting);
    assert_eq!(clock.scheduler.fitting(10_000 * ROW), 1);
}

#[test]
fn an_idle_device_refuses_no_row_and_a_closed_queue_every_row() {
    let mut clock = Clock::limited(1);
    let expensive = || Arrival::Routed(Routed { row: "", lane: 'a', flops: 10_000 * ROW });
    assert_eq!(clock.fill(expensive).0, 1);
    clock.drain(0);
    assert_eq!(clock.fill(expensive).0, 1);
    clock.drain(0);
    clock.scheduler.close();
    let rejected = clock.scheduler.admit(clock.due(0, 1), unrouted("row")).unwrap_err();
    assert_eq!(rejected.reason, RejectReason::Closed);
    assert!(matches!(rejected.arrival, Arrival::Unrouted { row: "row", .. }));
}

#[test]
fn a_refusal_says_when_the_work_that_waits_will_have_run() {
    let (_, full) = Clock::limited(3200).fill(|| Arrival::Routed(routed("", 'b')));
    assert!(full.backlog > ms(3100) && full.backlog <= full.limit, "{full:?}");
    assert_eq!(full.retry_after(), 4);
    let short = QueueFull { backlog: Duration::from_micros(3), limit: Duration::from_micros(3) };
    assert_eq!(short.retry_after(), 1);
}

#[test]
fn a_row_without_a_lane_counts_with_the_share_that_rows_have_run() {
    let mut clock = Clock::limited(1000);
    let (before, _) = clock.fill(|| unrouted(""));
    let expected = clock.scheduler.pressure();
    // The router chooses a twentieth of the full cost for all of them: there is room again.
    let cheap = Routed { row: "", lane: 'a', flops: ROW / 2 };
    for _ in 0..before.div_ceil(4) {
        let rows = clock.router_batch(0).rows.len();
        clock.scheduler.routed(0, ms(1), (0..rows).map(|_| Routed { ..cheap }).collect());
    }
    assert_eq!(clock.scheduler.queued(), before);
    assert!(clock.scheduler.pressure() < expected / 3.0, "{} {expected}", clock.scheduler.pressure());
    assert_eq!(clock.scheduler.abandon().1.len(), before);
    assert_eq!((clock.scheduler.queued(), clock.scheduler.pressure()), (0, 0.0));
}

#[test]
fn waits_longer_than_predicted_admit_fewer_rows() {
    let mut clock = Clock::limited(50);
    let fill = |clock: &mut Clock| clock.fill(|| Arrival::Routed(routed("", 'a'))).0;
    let before = fill(&mut clock);
    clock.drain(0);
    // Rows wait twice as long as the work that they found; the device itself is as fast as before.
    for _ in 0..20 {
        fill(&mut clock);
        clock.drain(100);
    }
    let after = fill(&mut clock);
    assert!(after < before * 3 / 4 && after > before / 5, "{before} {after}");
}

#[test]
fn several_executors_admit_as_many_times_the_work() {
    let fill = |executors, queue_limit| {
        let limits = Limits { executors, queue_limit: ms(queue_limit), ..LIMITS };
        Clock::new(limits).fill(|| Arrival::Routed(routed("", 'a'))).0
    };
    assert_eq!(fill(1, 30), fill(2, 15));
    assert!(fill(2, 15) > fill(1, 15));
}

#[test]
fn costs_are_learnt_from_batches_that_ran_and_not_from_failed_ones() {
    let mut clock = Clock::new(LIMITS);
    let before = clock.scheduler.predicted('a', ROW);
    for fails in [true, false] {
        for _ in 0..100 {
            clock.send_routed("", 1000);
            assert_eq!(clock.batch(0).rows.len(), 1);
            if fails {
                clock.scheduler.failed(0, ms(10));
            } else {
                clock.scheduler.completed(0, ms(10), None);
            }
        }
        let after = clock.scheduler.predicted('a', ROW);
        assert_eq!(after == before, fails, "{before:?} {after:?}");
    }
    assert!(clock.scheduler.predicted('a', ROW).abs_diff(ms(10)) < ms(1));
}

#[test]
fn pressure_degrades_the_router_only_if_the_limits_say_so() {
    for degrade in [false, true] {
        let mut clock = Clock::new(Limits { queue_limit: ms(40), degrade, ..LIMITS });
        clock.fill(|| unrouted(""));
        let level = clock.router_batch(30).level;
        assert_eq!(level != DegradeLevel::NONE, degrade);
    }
}

/// Bytes of an answer that is predicted to take this long before any was timed.
fn bytes(milliseconds: usize) -> usize {
    milliseconds * 250_000
}

#[test]
fn large_answers_take_at_most_half_of_the_limit() {
    let mut clock = Clock::limited(40);
    // Alone even one that takes longer than the limit is built.
    let long = clock.scheduler.admit_answer(bytes(500)).unwrap();
    assert_eq!(long, ms(500));
    let full = clock.scheduler.admit_answer(bytes(1)).unwrap_err();
    assert_eq!(full, QueueFull { backlog: ms(500), limit: ms(20) });
    clock.scheduler.built(long, None);
    let admitted: Vec<Duration> = (0..4).map(|_| clock.scheduler.admit_answer(bytes(5)).unwrap()).collect();
    assert!(clock.scheduler.admit_answer(bytes(5)).is_err());
    // Rows are not refused because of them.
    assert_eq!(clock.fill(|| unrouted("row")).0, Clock::limited(40).fill(|| unrouted("row")).0);
    admitted.into_iter().for_each(|time| clock.scheduler.built(time, None));
    assert!(clock.scheduler.admit_answer(bytes(1)).is_ok(), "the rows are within the limit");
}

#[test]
fn large_answers_are_refused_behind_rows_that_fill_the_limit() {
    let mut clock = Clock::limited(40);
    assert!(clock.fill(|| unrouted("row")).0 > 1);
    let first = clock.scheduler.admit_answer(bytes(19)).unwrap();
    let full = clock.scheduler.admit_answer(bytes(1)).unwrap_err();
    assert!(full.backlog > ms(40) && full.limit == ms(40), "{full:?}");
    clock.scheduler.built(first, None);
    assert!(clock.scheduler.admit_answer(bytes(1)).is_ok());
}

#[test]
fn the_time_of_an_answer_is_learnt_from_those_that_were_built() {
    let mut clock = Clock::limited(40);
    for _ in 0..200 {
        let time = clock.scheduler.admit_answer(bytes(10)).unwrap();
        clock.scheduler.built(time, Some((bytes(10), ms(2))));
    }
    let learnt = clock.scheduler.admit_answer(bytes(10)).unwrap().as_secs_f64();
    assert!((learnt / ms(2).as_secs_f64() - 1.0).abs() < 0.01, "{learnt}");
}

#[test]
fn a_history_cache_that_saves_less_than_predicted_spoils_no_prediction() {
    let mut clock = Clock::new(LIMITS);
    for _ in 0..300 {
        // Predicted at a hundredth of what it then computes: the cache lost the history meanwhile.
        let row = Routed { row: "row", lane: 'a', flops: ROW / 100 };
        clock.scheduler.admit(clock.due(0, 60_000), Arrival::Routed(row)).unwrap();
        assert_eq!(clock.rows(1), ["row"]);
        clock.scheduler.completed(0, ms(2), Some(ROW));
    }
    let predicted = clock.scheduler.predicted('a', ROW).as_secs_f64();
    assert!((predicted - 2e-3).abs() < 2e-4, "{predicted}");
    // An idle device still refuses no row.
    let mut limited = Clock::limited(1);
    limited
        .scheduler
        .admit(limited.due(0, 60_000), Arrival::Routed(Routed { row: "row", lane: 'a', flops: 100 * ROW }))
        .unwrap();
}
