use std::sync::Mutex;

use canet_domain::{Item, RoutePolicy};

use super::*;
use crate::compare;
use crate::testing::{MAX_LEN, RingModel, SHAPE, close, item, items, space};

/// History and target of each user: (1 | 2), (1 2 3 4 | 5), (5 | 1), (2 4 | 6).
const USERS: [(&[u32], u32); 4] = [(&[1], 2), (&[1, 2, 3, 4], 5), (&[5], 1), (&[2, 4], 6)];

fn with_ranker<T>(model: &RingModel, batch: usize, test: impl FnOnce(&mut Ranker<'_>) -> T) -> T {
    let histories: Vec<Vec<Item>> = USERS.iter().map(|(history, _)| items(history)).collect();
    let cases: Vec<Case<'_>> = histories
        .iter()
        .zip(USERS)
        .enumerate()
        .map(|(user, (history, (_, target)))| Case { user, history, target: item(target) })
        .collect();
    let space = space();
    test(&mut Ranker::new(model.with_space(&space), &cases, batch).unwrap())
}

/// Rank of each user's target on each route. The items in brackets are seen and not ranked.
///
/// (1 | 2): route 0 from 2: rank 1; route 1 from 3: 3 4 5 6 (1) 2: rank 5; route 2 from 4: rank 4; route 3 from 5: rank 3.
/// (1 2 3 4 | 5): route 0 from 5: 1; route 1 from 6: 6 (1 2 3 4) 5: 2; route 2 from 1: (1 2 3 4) 5: 1; route 3 from 2: 1.
/// (5 | 1): route 0 from 6: 6 1: 2; route 1 from 1: 1; route 2 from 2: 2 3 4 (5) 6 1: 5; route 3 from 3: 3 4 (5) 6 1: 4.
/// (2 4 | 6): route 0 from 5: 5 6: 2; route 1 from 6: 1; route 2 from 1: 1 (2) 3 (4) 5 6: 4; route 3 from 2: 3 5 6: 3.
const RANKS: [[u32; 4]; 4] = [[1, 5, 4, 3], [1, 2, 1, 1], [2, 1, 5, 4], [2, 1, 4, 3]];
/// The router's choices: `last mod 4` of each user.
const CHOICES: [usize; 4] = [1, 0, 1, 0];
/// Lengths of the histories that the model reads.
const LENGTHS: [usize; 4] = [1, 3, 1, 2];

fn reciprocal(ranks: [u32; 4]) -> Vec<f64> {
    ranks.map(|rank| 1.0 / f64::from(rank)).to_vec()
}

#[test]
fn a_fixed_route_ranks_every_case_on_it() {
    let space = space();
    for batch in [1, 2, 64] {
        with_ranker(&RingModel::new(), batch, |ranker| {
            for route in space.routes() {
                let run = ranker.fixed(route).unwrap();
                assert_eq!(run.name, space.name(route));
                assert_eq!(run.values(Metric::Mrr), reciprocal(RANKS.map(|ranks| ranks[route.index()])));
                let flops: u64 = LENGTHS.iter().map(|length| SHAPE.route_flops(&space, route, *length)).sum();
                close(run.flops().unwrap(), flops as f64 / 4.0);
            }
            close(ranker.fixed(space.full()).unwrap().saved().unwrap(), 0.0);
        });
    }
}

#[test]
fn the_routed_run_takes_the_routers_choice_and_pays_for_it() {
    let space = space();
    with_ranker(&RingModel::new(), 64, |ranker| {
        let run = ranker.routed(&RoutePolicy::Router(vec![0.0; 4])).unwrap();
        assert_eq!(run.values(Metric::Mrr), reciprocal([5, 1, 1, 2]));
        let cost = |user: usize| {
            let route = space.route(CHOICES[user]).unwrap();
            SHAPE.route_flops(&space, route, LENGTHS[user]) + SHAPE.router_flops(4, LENGTHS[user])
        };
        let spent: u64 = (0..4).map(cost).sum();
        let full: u64 = LENGTHS.iter().map(|length| SHAPE.full_flops(&space, *length)).sum();
        close(run.flops().unwrap(), spent as f64 / 4.0);
        close(run.full_flops(), full as f64 / 4.0);
        close(run.saved().unwrap(), 1.0 - spent as f64 / full as f64);
        let shares = run.route_usage(&space);
        assert_eq!(
            shares.iter().map(|share| (share.route.index(), share.share)).collect::<Vec<_>>(),
            [(0, 0.5), (1, 0.5)]
        );
        // The targets on route 0 have ranks 1 and 2.
        close(shares[0].ndcg.mean, f64::midpoint(1.0, 1.0 / 3_f64.log2()));
        close(shares[0].flops, (cost(1) + cost(3)) as f64 / 2.0);
        // A bias of 2 exceeds every logit.
        let biased = ranker.routed(&RoutePolicy::Router(vec![0.0, 0.0, 2.0, 0.0])).unwrap();
        assert_eq!(biased.values(Metric::Mrr), reciprocal(RANKS.map(|ranks| ranks[2])));
    });
}

#[test]
fn a_user_with_several_cases_is_one_observation() {
    let space = space();
    // The first two cases belong to one user.
    let histories: Vec<Vec<Item>> = USERS.iter().map(|(history, _)| items(history)).collect();
    let case = |(place, user): (usize, usize)| Case { user, history: &histories[place], target: item(USERS[place].1) };
    let cases: Vec<Case<'_>> = [0, 0, 1, 2].into_iter().enumerate().map(case).collect();
    let model = RingModel::new();
    let mut ranker = Ranker::new(model.with_space(&space), &cases, 64).unwrap();

    let run = ranker.fixed(space.route(1).unwrap()).unwrap();
    assert_eq!((run.users(), run.cases()), (3, 4));
    assert_eq!(run.values(Metric::Mrr), [f64::midpoint(0.2, 0.5), 1.0, 1.0]);
    // The values are .35, 1 and 1.
    let estimate = run.estimate(Metric::Mrr);
    close(estimate.mean, 2.35 / 3.0);
    close(estimate.se.unwrap(), ((0.65_f64 * 0.65 * 2.0 / 3.0) / 2.0 / 3.0).sqrt());
    let cost = |route: usize, length| SHAPE.route_flops(&space, space.route(route).unwrap(), length) as f64;
    close(run.flops().unwrap(), (f64::midpoint(cost(1, 1), cost(1, 3)) + cost(1, 1) + cost(1, 2)) / 3.0);

    // The router's choices are 1 and 0 for the first user's cases, 1 and 0 for the other users.
    let routed = ranker.routed(&RoutePolicy::Router(vec![0.0; 4])).unwrap();
    let shares: Vec<f64> = routed.route_usage(&space).iter().map(|share| share.share).collect();
    assert_eq!(shares, [0.5, 0.5]);
    // Route 0 has rank 1 for the first user's second case and rank 2 for the last user.
    close(routed.route_usage(&space)[0].ndcg.mean, f64::midpoint(1.0, 1.0 / 3_f64.log2()));

    let compared = compare(&[(&run, &routed)], Metric::Mrr, 1);
    // The routed values are the mean of 1/5 and 1, then 1, then 1/2.
    close(compared[0].difference.mean, (0.35 - 0.6 + 0.5) / 3.0);
    assert!(compared[0].interval[0] >= -0.25 && compared[0].interval[1] <= 0.5);
}

#[test]
fn the_table_gives_the_outcome_of_every_policy() {
    let space = space();
    let model = RingModel::new();
    with_ranker(&model, 3, |ranker| {
        let table = ranker.table(Metric::Mrr).unwrap();
        let routed = ranker.routed(&RoutePolicy::Router(vec![0.0; 4])).unwrap();
        let [third, fourth] = [2, 3].map(|route| space.route(route).unwrap());
        assert_eq!(table.values(third), reciprocal(RANKS.map(|ranks| ranks[2])));
        assert_eq!(table.fixed(fourth).values, ranker.fixed(fourth).unwrap().values(Metric::Mrr));
        let choices = CHOICES.map(|choice| space.route(choice).unwrap());
        let assigned = table.assigned(&choices);
        assert_eq!(assigned.values, routed.values(Metric::Mrr));
        close(assigned.flops, routed.flops().unwrap());

        let drawn = table.drawn(&[0.5, 0.0, 0.0, 0.5]);
        assert_eq!(drawn.values, RANKS.map(|ranks| 0.5 / f64::from(ranks[0]) + 0.5 / f64::from(ranks[3])));
        close(drawn.flops, f64::midpoint(table.fixed(space.smallest()).flops, table.fixed(space.full()).flops));
        let oracle = table.oracle(&space);
        assert_eq!(oracle.values, [1.0; 4]);
        // For the second user routes 0, 2 and 3 are equal, and route 0 is the cheapest.
        let best = [0, 0, 1, 1].map(|route| space.route(route).unwrap());
        let cost: u64 = best.iter().zip(LENGTHS).map(|(best, length)| SHAPE.route_flops(&space, *best, length)).sum();
        close(oracle.flops, cost as f64 / 4.0);

        let differences = assigned.differences(&table.fixed(space.smallest()));
        differences.iter().zip([0.2 - 1.0, 0.0, 1.0 - 0.5, 0.0]).for_each(|(found, expected)| close(*found, expected));
    });
    assert!(space.routes().all(|route| model.computed(Some(route)) == 4));
}

#[test]
fn every_case_is_computed_once_on_each_route_and_by_the_router() {
    let model = RingModel::new();
    let space = space();
    with_ranker(&model, 3, |ranker| {
        for round in 0..2 {
            ranker.routed(&RoutePolicy::Router(vec![0.0; 4])).unwrap();
            ranker.random(round).unwrap();
            ranker.random_matched(&RoutePolicy::Router(vec![0.0; 4]), round).unwrap();
            space.routes().for_each(|route| drop(ranker.fixed(route).unwrap()));
        }
    });
    assert!([None].into_iter().chain(space.routes().map(Some)).all(|route| model.computed(route) == 4));
    let calls = model.calls.into_inner().unwrap();
    assert!(calls.iter().all(|(_, lengths)| lengths.len() <= 3 && lengths.is_sorted_by(|a, b| a >= b)));
    assert!(calls.iter().flat_map(|(_, lengths)| lengths).all(|length| *length <= MAX_LEN));
}

#[test]
fn random_runs_are_seeded_and_matched_ones_keep_the_routers_frequencies() {
    let space = space();
    with_ranker(&RingModel::new(), 64, |ranker| {
        let random = ranker.random(1).unwrap();
        assert_eq!(random.values(Metric::Mrr), ranker.random(1).unwrap().values(Metric::Mrr));
        assert_ne!(random.values(Metric::Mrr), ranker.random(2).unwrap().values(Metric::Mrr));
        let total: f64 = random.route_usage(&space).iter().map(|share| share.share).sum();
        close(total, 1.0);
        // Each value is a mean of the user's own reciprocal ranks.
        for (value, ranks) in random.values(Metric::Mrr).iter().zip(RANKS) {
            let own = ranks.map(|rank| 1.0 / f64::from(rank));
            assert!(*value >= own.into_iter().fold(1.0, f64::min) && *value <= own.into_iter().fold(0.0, f64::max));
        }
        let matched = ranker.random_matched(&RoutePolicy::Router(vec![0.0; 4]), 1).unwrap();
        let shares: Vec<_> =
            matched.route_usage(&space).iter().map(|share| (share.route.index(), share.share)).collect();
        assert_eq!(shares, [(0, 0.5), (1, 0.5)]);
        let allowed: Vec<f64> =
            (0..=RANDOM_ASSIGNMENTS).map(|first| first as f64 / RANDOM_ASSIGNMENTS as f64).collect();
        for (value, ranks) in matched.values(Metric::Mrr).iter().zip(RANKS) {
            let mix = |share: &f64| share / f64::from(ranks[0]) + (1.0 - share) / f64::from(ranks[1]);
            assert!(allowed.iter().any(|share| (mix(share) - value).abs() < 1e-12));
        }
    });
}

#[test]
fn progress_counts_every_ranked_case() {
    let ranked_cases = Mutex::new(0);
    let space = space();
    let histories = [items(&[1]), items(&[2, 3])];
    let cases = [0, 1].map(|user| Case { user, history: &histories[user], target: item(5) });
    let model = RingModel::new();
    let ranker = Ranker::new(model.with_space(&space), &cases, 1).unwrap();
    let mut ranker = ranker.on_progress(|ranked| *ranked_cases.lock().unwrap() += ranked);
    ranker.fixed(space.full()).unwrap();
    assert_eq!(*ranked_cases.lock().unwrap(), 2);
}
