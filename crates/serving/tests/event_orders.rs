//! The scheduler under random orders of events: arrivals, clients that leave, executors that ask, finish and fail, a closed queue,
//! and any passing of time. A second, simple account of the rows says what may happen to each.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use canet_serving::scheduler::{
    Arrival, Cancellable, Due, Limits, RejectReason, RejectedRow, Routed, Scheduler, SharesRouter, Work,
};
use proptest::prelude::*;

/// The starvation bound: no row that arrives later than this after another one runs before it in the same lane.
const PATIENCE: Duration = Duration::from_millis(250);

/// A row. Its client may leave at any time.
#[derive(Clone, Debug)]
struct Request {
    id: usize,
    router: u8,
    left: Rc<Cell<bool>>,
}

impl Cancellable for Request {
    fn is_cancelled(&self) -> bool {
        self.left.get()
    }
}

impl SharesRouter for Request {
    fn shares_router(&self, other: &Request) -> bool {
        self.router == other.router
    }
}

/// What happens next. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A row arrives. `lane` is that of the route that it names.
    Arrive { lane: Option<u8>, router: u8, flops: u64, deadline_ms: u64 },
    /// The client of a row leaves.
    Leave(usize),
    /// An executor that is idle asks for work.
    Ask(usize),
    /// An executor that is busy has done its work, in this time, and well or not.
    Finish { executor: usize, took_ms: u64, works: bool },
    /// Time passes.
    Pass(u64),
    /// A large answer asks for room.
    Answer(usize),
    /// A large answer is built.
    Built,
    /// No further row is admitted.
    Close,
}

fn events() -> impl Strategy<Value = Event> {
    let deadline = prop_oneof![Just(0), 1..50_u64, 50..2000_u64, Just(60_000)];
    prop_oneof![
        10 => (prop::option::of(0..4_u8), 0..2_u8, 1..2_000_000_000_u64, deadline)
            .prop_map(|(lane, router, flops, deadline_ms)| Event::Arrive { lane, router, flops, deadline_ms }),
        2 => any::<usize>().prop_map(Event::Leave),
        8 => any::<usize>().prop_map(Event::Ask),
        8 => (any::<usize>(), 0..200_u64, prop::bool::weighted(0.9))
            .prop_map(|(executor, took_ms, works)| Event::Finish { executor, took_ms, works }),
        4 => prop_oneof![0..5_u64, 5..400_u64].prop_map(Event::Pass),
        1 => (0..50_000_000_usize).prop_map(Event::Answer),
        1 => Just(Event::Built),
    ]
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Unrouted,
    Routing,
    Lane(u8),
    Gone,
}

/// What an executor does.
enum Doing {
    Nothing,
    Routing(Vec<Request>),
    Running,
}

struct Account {
    place: Place,
    due: Due,
    /// The order of arrival in its lane.
    since: usize,
    flops: u64,
    left: Rc<Cell<bool>>,
}

impl Account {
    /// The time by which its lane counts it as due.
    fn urgency(&self) -> (Instant, usize) {
        (self.due.deadline.min(self.due.arrived + PATIENCE), self.since)
    }
}

struct World {
    limits: Limits,
    now: Instant,
    scheduler: Scheduler<u8, Request, Request>,
    rows: BTreeMap<usize, Account>,
    executors: Vec<Doing>,
    answers: Vec<Duration>,
    pushed: usize,
    closed: bool,
}

impl World {
    fn new(executors: usize, max_batch: usize) -> World {
        let now = Instant::now();
        let limits = Limits { executors, max_batch, queue_limit: Duration::from_millis(250), degrade: true };
        World {
            limits,
            now,
            scheduler: Scheduler::new(limits, now),
            rows: BTreeMap::new(),
            executors: (0..executors).map(|_| Doing::Nothing).collect(),
            answers: Vec::new(),
            pushed: 0,
            closed: false,
        }
    }

    fn waiting(&self) -> usize {
        self.rows.values().filter(|row| row.place != Place::Gone).count()
    }

    fn next_place(&mut self) -> usize {
        self.pushed += 1;
        self.pushed
    }

    /// A row leaves the scheduler. Each leaves once.
    fn gone(&mut self, row: &Request, from: impl Fn(Place) -> bool) -> &Account {
        let account = self.rows.get_mut(&row.id).expect("a row that was admitted");
        assert!(from(account.place), "row {} was {:?}", row.id, account.place);
        account.place = Place::Gone;
        account
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Arrive { lane, router, flops, deadline_ms } => self.arrive(lane, router, flops, deadline_ms),
            Event::Leave(place) => {
                if let Some(row) = self.rows.values().nth(place % self.rows.len().max(1)) {
                    row.left.set(true);
                }
            }
            Event::Ask(executor) => self.ask(executor % self.limits.executors),
            Event::Finish { executor, took_ms, works } => self.finish(executor % self.limits.executors, took_ms, works),
            Event::Pass(milliseconds) => self.now += Duration::from_millis(milliseconds),
            Event::Answer(bytes) => self.answers.extend(self.scheduler.admit_answer(bytes)),
            Event::Built => {
                if let Some(time) = self.answers.pop() {
                    self.scheduler.built(time, Some((1000, Duration::from_millis(1))));
                }
            }
            Event::Close => {
                self.scheduler.close();
                self.closed = true;
            }
        }
        assert_eq!(self.scheduler.queued(), self.waiting());
        let pressure = self.scheduler.pressure();
        assert!(pressure.is_finite() && pressure >= 0.0, "{pressure}");
        assert_eq!(
            self.scheduler.has_work(),
            self.rows.values().any(|row| matches!(row.place, Place::Unrouted | Place::Lane(_)))
        );
    }

    fn arrive(&mut self, lane: Option<u8>, router: u8, flops: u64, deadline_ms: u64) {
        let (id, left) = (self.rows.len(), Rc::new(Cell::new(false)));
        let due = Due { arrived: self.now, deadline: self.now + Duration::from_millis(deadline_ms) };
        let row = Request { id, router, left: Rc::clone(&left) };
        let arrival = match lane {
            Some(lane) => Arrival::Routed(Routed { row, lane, flops }),
            None => Arrival::Unrouted { row, router_flops: flops / 1000 + 1, full_flops: flops },
        };
        let waited = self.waiting();
        let place = match self.scheduler.admit(due, arrival) {
            Ok(()) => {
                assert!(!self.closed, "a closed queue admits no row");
                lane.map_or(Place::Unrouted, Place::Lane)
            }
            Err(RejectedRow { reason, .. }) => {
                match reason {
                    RejectReason::Closed => assert!(self.closed),
                    RejectReason::Full(full) => {
                        assert!(waited > 0, "an idle device refuses no row");
                        assert!(full.retry_after() >= 1);
                    }
                }
                Place::Gone
            }
        };
        let since = self.next_place();
        self.rows.insert(id, Account { place, due, since, flops, left });
    }

    fn ask(&mut self, executor: usize) {
        if !matches!(self.executors[executor], Doing::Nothing) {
            return;
        }
        let (now, max_batch) = (self.now, self.limits.max_batch);
        let had_work = self.scheduler.has_work();
        match self.scheduler.next(executor, now) {
            // A device is never idle while a row waits.
            None => assert!(!had_work && !self.scheduler.has_work(), "{} rows wait", self.waiting()),
            Some(Work::Route(batch)) => {
                assert!(batch.rows.len() <= max_batch);
                assert!(batch.rows.windows(2).all(|pair| pair[0].router == pair[1].router), "two routers");
                for row in &batch.rows {
                    let account = self.rows.get_mut(&row.id).unwrap();
                    assert_eq!(account.place, Place::Unrouted);
                    assert!(!account.left.get() && account.due.deadline > now, "row {} must not be routed", row.id);
                    account.place = Place::Routing;
                }
                let ids: Vec<usize> = batch.rows.iter().map(|row| row.id).collect();
                assert!(ids.is_sorted(), "rows are routed in the order of their arrival: {ids:?}");
                for row in &batch.late {
                    assert!(self.gone(row, |place| place == Place::Unrouted).due.deadline <= now);
                }
                for row in &batch.cancelled {
                    assert!(self.gone(row, |place| place == Place::Unrouted).left.get());
                }
                if !batch.rows.is_empty() {
                    self.executors[executor] = Doing::Routing(batch.rows);
                }
            }
            Some(Work::Run(batch)) => {
                assert!(batch.rows.len() <= max_batch);
                let lane = Place::Lane(batch.lane);
                let most_urgent = self
                    .rows
                    .values()
                    .filter(|row| matches!(row.place, Place::Lane(_)))
                    .min_by_key(|row| row.urgency())
                    .expect("a batch has rows");
                assert_eq!(most_urgent.place, lane, "the lane of the most urgent row runs");
                let started: Vec<(Instant, usize)> =
                    batch.rows.iter().map(|started| self.rows[&started.row.id].urgency()).collect();
                assert!(started.is_sorted(), "{started:?}");
                for started in &batch.rows {
                    let account = self.gone(&started.row, |place| place == lane);
                    assert!(!account.left.get(), "row {} runs for nobody", started.row.id);
                    assert!(account.due.deadline > now, "row {} runs too late", started.row.id);
                }
                for row in &batch.late {
                    let (due, flops) = {
                        let account = self.gone(row, |place| place == lane);
                        (account.due, account.flops)
                    };
                    // Either its time is over, or what is left of it is less than half of its prediction.
                    let needed = self.scheduler.predicted(batch.lane, flops);
                    assert!(due.deadline.saturating_duration_since(now) <= needed / 2 + Duration::from_micros(1));
                }
                for row in &batch.cancelled {
                    assert!(self.gone(row, |place| place == lane).left.get());
                }
                // What stays in the lane is less urgent than what left it.
                if let Some(last) = started.last() {
                    let stays = self.rows.values().filter(|row| row.place == lane).map(Account::urgency).min();
                    assert!(stays.is_none_or(|stays| stays > *last));
                }
                if !batch.rows.is_empty() {
                    self.executors[executor] = Doing::Running;
                }
            }
        }
    }

    fn finish(&mut self, executor: usize, took_ms: u64, works: bool) {
        let took = Duration::from_millis(took_ms);
        match std::mem::replace(&mut self.executors[executor], Doing::Nothing) {
            Doing::Nothing => {}
            Doing::Routing(rows) if works => {
                let mut routed = Vec::new();
                for row in rows {
                    let lane = (row.id % 4) as u8;
                    let since = self.next_place();
                    let account = self.rows.get_mut(&row.id).unwrap();
                    (account.place, account.since) = (Place::Lane(lane), since);
                    routed.push(Routed { lane, flops: account.flops, row });
                }
                self.scheduler.routed(executor, took, routed);
            }
            Doing::Routing(rows) => {
                for row in &rows {
                    self.gone(row, |place| place == Place::Routing);
                }
                self.scheduler.unroutable(executor);
            }
            Doing::Running if works => self.scheduler.completed(executor, took, None),
            Doing::Running => self.scheduler.failed(executor, took),
        }
    }

    /// Lets every executor work until no row waits.
    fn drain(&mut self) {
        let mut rounds = 0;
        while self.waiting() > 0 {
            for executor in 0..self.limits.executors {
                self.apply(Event::Ask(executor));
                self.apply(Event::Finish { executor, took_ms: 1, works: true });
            }
            rounds += 1;
            assert!(rounds < 10_000, "{} rows never leave", self.waiting());
        }
        assert!(self.scheduler.pressure() < 1e-6, "an empty queue has a backlog of {}", self.scheduler.pressure());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_leaves_once_and_in_order(
        executors in 1..4_usize,
        max_batch in 1..9_usize,
        events in prop::collection::vec(events(), 1..300),
        closes in prop::option::of(0..300_usize),
    ) {
        let mut world = World::new(executors, max_batch);
        for (place, event) in events.into_iter().enumerate() {
            if closes == Some(place) {
                world.apply(Event::Close);
            }
            world.apply(event);
        }
        world.drain();
    }

    /// As when the device dies: the rows that wait are handed out, and those that executors hold still leave.
    #[test]
    fn abandoned_rows_are_handed_out_once(events in prop::collection::vec(events(), 1..200)) {
        let mut world = World::new(2, 4);
        events.into_iter().for_each(|event| world.apply(event));
        let (unrouted, routed) = world.scheduler.abandon();
        for row in &unrouted {
            world.gone(row, |place| place == Place::Unrouted);
        }
        for row in &routed {
            world.gone(row, |place| matches!(place, Place::Lane(_)));
        }
        world.closed = true;
        for executor in 0..2 {
            world.apply(Event::Finish { executor, took_ms: 1, works: false });
        }
        prop_assert_eq!(world.waiting(), 0);
        prop_assert_eq!(world.scheduler.queued(), 0);
        prop_assert!(!world.scheduler.has_work());
    }
}
