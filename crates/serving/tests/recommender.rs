//! Requests through real executors, on the forward for CPUs.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use canet_cpu::CpuBackend;
use canet_domain::{BatchBy, Candidates, History, Ranked, Reason, Route, Selection};
use canet_model::checkpoint::CheckpointDraft;
use canet_model::{Backend, Model, Query};
use canet_serving::metrics::Metrics;
use canet_serving::{Due, Generation, Limits, Policy, Recommender, RecommenderOptions, Refusal, Request};
use canet_testing::{BrokenPart, draft, item, overflowing, random_history, rng, small_config};
use rand::Rng;

const LIMITS: Limits = Limits { executors: 2, max_batch: 8, queue_limit: Duration::from_secs(3600), degrade: false };

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

fn recommender(limits: Limits, metrics: &Arc<Metrics>) -> Arc<Recommender> {
    Recommender::start(limits, RecommenderOptions::default(), Arc::clone(metrics)).unwrap().0
}

fn generation(metrics: &Metrics) -> Generation {
    generation_of(draft(small_config(), 3), metrics)
}

fn generation_of(draft: CheckpointDraft, metrics: &Metrics) -> Generation {
    let directory = tempfile::tempdir().unwrap();
    let checkpoint = draft.write(directory.path()).unwrap();
    let forward = CpuBackend::single_threaded().load(&checkpoint.config, &checkpoint.weights).unwrap();
    let policy = Policy { budget: 0.3, batch_by: BatchBy::Width };
    Generation::new(Model::with_forward(checkpoint, forward), policy, metrics)
}

fn request(route: Option<Route>, timeout: Duration, rng: &mut impl Rng) -> Request {
    let arrived = Instant::now();
    Request {
        history: random_history(40, rng.gen_range(1..=12), rng),
        k: 5,
        excluded: HashSet::new(),
        candidates: None,
        restriction: None,
        route,
        budget: None,
        due: Due { arrived, deadline: arrived + timeout },
    }
}

/// The value of a series in the metrics.
fn metric(metrics: &Metrics, series: &str) -> f64 {
    let text = metrics.render().unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("canet_{series} ")));
    line.and_then(|line| line.rsplit_once(' ')).unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_answered_as_if_it_ran_alone_and_is_counted_once() {
    const ROWS: usize = 500;
    let metrics = metrics();
    let (recommender, threads) =
        Recommender::start(LIMITS, RecommenderOptions::default(), Arc::clone(&metrics)).unwrap();
    recommender.serve(generation(&metrics));
    let generation = recommender.generation().unwrap();
    let model = &generation.model;
    let mut rng = rng(1);
    let rows: Vec<_> = (0..ROWS)
        .map(|row| {
            let route = (row % 3 == 0).then(|| model.space().routes().nth(row % 24).unwrap());
            let request = request(route, Duration::from_secs(60), &mut rng);
            let (recommender, generation) = (Arc::clone(&recommender), Arc::clone(&generation));
            tokio::spawn(async move { (request.clone(), recommender.rank(generation, request).await.unwrap()) })
        })
        .collect();
    for row in rows {
        let (request, answer) = row.await.unwrap();
        let chosen = request.route.unwrap_or_else(|| model.route(&[&request.history], 0.3).unwrap()[0].route);
        assert_eq!(answer.routing.route, chosen);
        let reason = if request.route.is_some() { Reason::Override } else { Reason::Router };
        assert_eq!(answer.routing.reason, reason);
        let selection = Selection { k: 5, excluded: &request.excluded, candidates: Candidates::All };
        let alone = model.rank(&[(chosen, Query { history: &request.history, selection })]).unwrap();
        let items = |ranked: &[Ranked]| ranked.iter().map(|ranked| ranked.item).collect::<Vec<_>>();
        assert_eq!(items(&answer.ranked), items(&alone[0]));
    }
    assert_eq!(recommender.queued(), 0);
    let lanes = ["h4", "h8", "h12"];
    let sum = |family: &str| lanes.map(|lane| metric(&metrics, &format!("{family}{{lane=\"{lane}\"}}"))).iter().sum();
    let (ran, depth): (f64, f64) = (sum("batch_size_sum"), sum("queue_depth"));
    assert_eq!((ran, depth), (ROWS as f64, 0.0));
    // The executors end with their last handle.
    drop(recommender);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A call may hold a row back for long before it enters the queue.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_in_the_queue_begins_when_a_row_enters_it() {
    let metrics = metrics();
    let recommender = recommender(LIMITS, &metrics);
    recommender.serve(generation(&metrics));
    let request = request(None, Duration::from_secs(60), &mut rng(6));
    let arrived = request.due.arrived.checked_sub(Duration::from_secs(1000)).unwrap();
    let asked = Instant::now();
    let due = Due { arrived, ..request.due };
    let answer = recommender.rank(recommender.generation().unwrap(), Request { due, ..request }).await.unwrap();
    assert!(answer.times.queue <= asked.elapsed(), "{:?}", answer.times.queue);
}

/// One thread runs everything, so that no answer is delivered while the test polls.
#[tokio::test]
async fn refused_and_cancelled_rows_are_counted_once() {
    let metrics = metrics();
    let recommender = recommender(LIMITS, &metrics);
    assert!(recommender.pin(3).is_err());
    recommender.serve(generation(&metrics));
    let generation = recommender.generation().unwrap();
    let late = recommender.rank(Arc::clone(&generation), request(None, Duration::ZERO, &mut rng(2))).await;
    assert_eq!((late, recommender.queued()), (Err(Refusal::DeadlineExceeded), 0));
    let patient = request(None, Duration::from_secs(60), &mut rng(2));
    {
        let mut cancelled = pin!(recommender.rank(generation, patient));
        assert!(cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    for (reason, rows) in [("unavailable", 3.0), ("deadline", 1.0), ("cancelled", 1.0), ("overloaded", 0.0)] {
        assert_eq!(metric(&metrics, &format!("rejected_total{{reason=\"{reason}\"}}")), rows, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_pressure_rows_take_cheaper_routes() {
    let metrics = metrics();
    // Every row that waits is beyond this limit; an idle device takes it all the same.
    let limits = Limits { queue_limit: Duration::from_nanos(1), degrade: true, ..LIMITS };
    let recommender = recommender(limits, &metrics);
    recommender.serve(generation(&metrics));
    let generation = recommender.generation().unwrap();
    let mut rng = rng(3);
    let request = request(None, Duration::from_secs(60), &mut rng);
    let cost = |route| generation.model.cost(route, request.history.len()).slice;
    let own = generation.model.route(&[&request.history], 0.3).unwrap()[0].route;
    assert_ne!(own, generation.model.space().smallest());
    let degraded = loop {
        let answer = recommender.rank(Arc::clone(&generation), request.clone()).await.unwrap();
        match answer.routing.reason {
            Reason::Degraded => break answer.routing.route,
            _ => assert_eq!(answer.routing.route, own),
        }
    };
    assert!(cost(degraded) < cost(own));
    assert_eq!(metric(&metrics, "degraded_total"), 1.0);
}

/// One item makes NaN. Only the rows that contain it are refused, whatever else is in their batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_finite_scores_or_logits_is_refused_alone() {
    let broken = item(40);
    for part in [BrokenPart::Backbone, BrokenPart::Router] {
        let metrics = metrics();
        let recommender = recommender(LIMITS, &metrics);
        recommender.serve(generation_of(overflowing(draft(small_config(), 3), broken, part), &metrics));
        let generation = recommender.generation().unwrap();
        let smallest = generation.model.space().smallest();
        let rows: Vec<_> = (1..=100)
            .map(|row: u32| {
                let bad = row.is_multiple_of(4);
                let items = [item(1 + row % 39), if bad { broken } else { item(7) }, item(9)];
                let named = row.is_multiple_of(3).then_some(smallest);
                let request = Request {
                    history: History::new(&items, 12).unwrap(),
                    // All items, or some.
                    k: if row.is_multiple_of(2) { 40 } else { 5 },
                    ..request(named, Duration::from_secs(60), &mut rng(4))
                };
                // The router does not run if the request names a route.
                let refused = bad && (part == BrokenPart::Backbone || named.is_none());
                let (recommender, generation) = (Arc::clone(&recommender), Arc::clone(&generation));
                tokio::spawn(async move { (refused, recommender.rank(generation, request).await) })
            })
            .collect();
        let mut refusals = 0;
        for row in rows {
            let (refused, outcome) = row.await.unwrap();
            refusals += usize::from(refused);
            match outcome {
                Ok(answer) => {
                    assert!(!refused && answer.ranked.iter().all(|ranked| ranked.score.is_finite()));
                    assert!(answer.routing.confidence.is_none_or(f32::is_finite));
                }
                outcome => assert_eq!((refused, outcome), (true, Err(Refusal::NotFinite)), "{part:?}"),
            }
        }
        assert_eq!(metric(&metrics, "rejected_total{reason=\"not_finite\"}"), refusals as f64);
        assert_eq!(metric(&metrics, "rejected_total{reason=\"failed\"}"), 0.0);
        assert!(refusals > 10 && recommender.is_alive());
    }
}

/// The runtime has one thread.
#[tokio::test]
async fn large_answers_are_built_one_at_a_time_and_refused_rows_are_counted() {
    let metrics = metrics();
    let recommender = recommender(LIMITS, &metrics);
    let (first, second) =
        (recommender.admit_answer(1, 1 << 20).unwrap(), recommender.admit_answer(1, 1 << 20).unwrap());
    let permit = first.build_permit().await;
    assert!(permit.is_some());
    {
        let mut waiting = pin!(second.build_permit());
        let mut poll = || waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        drop(permit);
        assert!(poll().is_ready());
    }
    // Far beyond the limit, behind the other two.
    let refused = recommender.admit_answer(3, usize::MAX);
    assert!(matches!(refused, Err(Refusal::Overloaded(_))));
    assert_eq!(metric(&metrics, "rejected_total{reason=\"overloaded\"}"), 3.0);
    first.built(Duration::from_millis(1));
    drop(second);
    // No other answer waits now.
    assert!(recommender.admit_answer(1, usize::MAX).is_ok());
}
