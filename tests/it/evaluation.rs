//! Runs, baselines and the bootstrap against numbers worked out by hand or by another method.

use std::sync::Mutex;

use canet_data::{Case, Dataset, ReadOptions, Split};
use canet_domain::{FfnInner, History, Item, ModelShape, Route, RouteSpace, RouterShape};
use canet_evaluation::{
    Contender, Contest, DRAWS, Markov, Metric, Popularity, Ranker, Run, Subject, compare, evaluate,
};
use canet_model::{Forward, ForwardError, Rows};

use super::support::item;

pub(crate) fn items(ids: &[u32]) -> Vec<Item> {
    ids.iter().map(|id| item(*id)).collect()
}

fn dataset(text: &str) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.txt");
    std::fs::write(&path, text).unwrap();
    Dataset::read(&path, &ReadOptions::default()).unwrap()
}

pub(crate) fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
}

/// A model of four routes over six items, whose ranks can be told by looking.
///
/// Route r scores item j by how far round the circle 1..=6 it lies behind `last + r + 1`, so that the item
/// `last + r + 1` comes first. The router prefers route `last mod 4`.
pub(crate) struct Circle {
    /// Route and lengths of each batch; the router's have none.
    calls: Mutex<Vec<(Option<Route>, Vec<usize>)>>,
}

pub(crate) const ITEMS: usize = 6;

impl Circle {
    pub(crate) fn new() -> Circle {
        Circle { calls: Mutex::default() }
    }

    fn rows(
        &self,
        route: Option<Route>,
        histories: &[&History],
        row: impl Fn(usize) -> Vec<f32>,
    ) -> Result<Rows, ForwardError> {
        self.calls.lock().unwrap().push((route, histories.iter().map(|history| history.len()).collect()));
        let rows: Vec<Vec<f32>> =
            histories.iter().map(|history| row(history.items().last().unwrap().column())).collect();
        Rows::new(rows[0].len(), rows.concat())
    }
}

impl Forward for Circle {
    fn router_logits(&self, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.rows(None, histories, |last| (0..4).map(|route| if route == last % 4 { 1.0 } else { 0.0 }).collect())
    }

    fn scores(&self, route: Route, histories: &[&History]) -> Result<Rows, ForwardError> {
        self.rows(Some(route), histories, |last| {
            let first = last + route.index() + 1;
            (0..=ITEMS).map(|item| -(((item + 6 * ITEMS - first) % ITEMS) as f32)).collect()
        })
    }

    fn weight_bytes(&self) -> usize {
        0
    }
}

pub(crate) fn space() -> RouteSpace {
    RouteSpace::new(vec![4, 8], vec![1, 2], vec![4]).unwrap()
}

pub(crate) const SHAPE: ModelShape =
    ModelShape { items: ITEMS, width: 8, ffn_inner: FfnInner::Slice, router: RouterShape { dim: 4, ffn: 16 } };
pub(crate) const MAX_LEN: usize = 3;
/// Users' test cases: (1 | 2), (1 2 3 4 | 5), (5 | 1), (2 4 | 6).
const USERS: [(&[u32], u32); 4] = [(&[1], 2), (&[1, 2, 3, 4], 5), (&[5], 1), (&[2, 4], 6)];

fn with_ranker<T>(forward: &Circle, batch: usize, test: impl FnOnce(&mut Ranker<'_>) -> T) -> T {
    let histories: Vec<Vec<Item>> = USERS.iter().map(|(history, _)| items(history)).collect();
    let cases: Vec<Case<'_>> = histories
        .iter()
        .zip(USERS)
        .enumerate()
        .map(|(user, (history, (_, target)))| Case { user, history, target: item(target) })
        .collect();
    let space = space();
    let subject = Subject { forward, space: &space, shape: SHAPE, max_len: MAX_LEN };
    test(&mut Ranker::new(subject, &cases, batch).unwrap())
}

/// Rank of each user on each route, read off the circle with seen items left out.
///
/// (1 | 2): route 0 starts at 2: rank 1; route 1 at 3: 3 4 5 6 (1) 2: rank 5; route 2 at 4: 4; route 3 at 5: 3.
/// (.. 4 | 5): route 0 at 5: 1; route 1 at 6: 6 (1 2 3 4) 5: 2; route 2 at 1: (1 2 3 4) 5: 1; route 3 at 2: 1.
/// (5 | 1): route 0 at 6: 6 1: 2; route 1 at 1: 1; route 2 at 2: 2 3 4 (5) 6 1: 5; route 3 at 3: 3 4 (5) 6 1: 4.
/// (2 4 | 6): route 0 at 5: 5 6: 2; route 1 at 6: 1; route 2 at 1: 1 (2) 3 (4) 5 6: 4; route 3 at 2: 3 5 6: 3.
const RANKS: [[u32; 4]; 4] = [[1, 5, 4, 3], [1, 2, 1, 1], [2, 1, 5, 4], [2, 1, 4, 3]];
/// `last mod 4` of each user.
const CHOICES: [usize; 4] = [1, 0, 1, 0];
const LENGTHS: [usize; 4] = [1, 3, 1, 2];

fn reciprocal(ranks: [u32; 4]) -> Vec<f64> {
    ranks.map(|rank| 1.0 / f64::from(rank)).to_vec()
}

#[test]
fn a_fixed_route_ranks_everybody_on_it() {
    let space = space();
    for batch in [1, 2, 64] {
        with_ranker(&Circle::new(), batch, |ranker| {
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
    with_ranker(&Circle::new(), 64, |ranker| {
        let run = ranker.routed(&[0.0; 4]).unwrap();
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
        let shares = run.shares(&space);
        assert_eq!(
            shares.iter().map(|share| (share.route.index(), share.share)).collect::<Vec<_>>(),
            [(0, 0.5), (1, 0.5)]
        );
        // Route 0 served ranks 1 and 2.
        close(shares[0].ndcg.mean, f64::midpoint(1.0, 1.0 / 3_f64.log2()));
        close(shares[0].flops, (cost(1) + cost(3)) as f64 / 2.0);
        // A bias of 2 outweighs every logit.
        let biased = ranker.routed(&[0.0, 0.0, 2.0, 0.0]).unwrap();
        assert_eq!(biased.values(Metric::Mrr), reciprocal(RANKS.map(|ranks| ranks[2])));
    });
}

#[test]
fn a_user_of_several_positions_is_one_observation() {
    let space = space();
    // The first user has two of the four cases: ranks 1, 5, 4, 3 and 1, 2, 1, 1.
    let histories: Vec<Vec<Item>> = USERS.iter().map(|(history, _)| items(history)).collect();
    let case = |(place, user): (usize, usize)| Case { user, history: &histories[place], target: item(USERS[place].1) };
    let cases: Vec<Case<'_>> = [0, 0, 1, 2].into_iter().enumerate().map(case).collect();
    let forward = Circle::new();
    let subject = Subject { forward: &forward, space: &space, shape: SHAPE, max_len: MAX_LEN };
    let mut ranker = Ranker::new(subject, &cases, 64).unwrap();

    let run = ranker.fixed(space.route(1).unwrap()).unwrap();
    assert_eq!((run.users(), run.cases()), (3, 4));
    assert_eq!(run.values(Metric::Mrr), [f64::midpoint(0.2, 0.5), 1.0, 1.0]);
    // Mean of .35, 1, 1; squares of deviations .1877778, .0469444 twice.
    let estimate = run.estimate(Metric::Mrr);
    close(estimate.mean, 2.35 / 3.0);
    close(estimate.se.unwrap(), ((0.65_f64 * 0.65 * 2.0 / 3.0) / 2.0 / 3.0).sqrt());
    let cost = |route: usize, length| SHAPE.route_flops(&space, space.route(route).unwrap(), length) as f64;
    close(run.flops().unwrap(), (f64::midpoint(cost(1, 1), cost(1, 3)) + cost(1, 1) + cost(1, 2)) / 3.0);

    // The router sends the first user to routes 1 and 0, the others to 1 and 0.
    let routed = ranker.routed(&[0.0; 4]).unwrap();
    let shares: Vec<f64> = routed.shares(&space).iter().map(|share| share.share).collect();
    assert_eq!(shares, [0.5, 0.5]);
    // Of route 0: rank 1 of the first user's second case, rank 2 of the last user.
    close(routed.shares(&space)[0].ndcg.mean, f64::midpoint(1.0, 1.0 / 3_f64.log2()));

    let compared = compare(&[(&run, &routed)], Metric::Mrr, 1);
    // Routed: mean of 1/5 and 1, then 1, then 1/2.
    close(compared[0].difference.mean, (0.35 - 0.6 + 0.5) / 3.0);
    assert!(compared[0].interval[0] >= -0.25 && compared[0].interval[1] <= 0.5);
}

#[test]
fn a_table_of_routes_judges_every_policy() {
    let space = space();
    let forward = Circle::new();
    with_ranker(&forward, 3, |ranker| {
        let table = ranker.table(Metric::Mrr).unwrap();
        let routed = ranker.routed(&[0.0; 4]).unwrap();
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
        // The second user's routes 0, 2 and 3 are equal, and 0 is the cheapest.
        let best = [0, 0, 1, 1].map(|route| space.route(route).unwrap());
        let cost: u64 = best.iter().zip(LENGTHS).map(|(best, length)| SHAPE.route_flops(&space, *best, length)).sum();
        close(oracle.flops, cost as f64 / 4.0);

        // By hand: routed less route 0 is (1/5 - 1, 1 - 1, 1 - 1/2, 1/2 - 1/2).
        let over = assigned.over(&table.fixed(space.smallest()));
        close(over.mean, -0.3 / 4.0);
        let squares: f64 = [-0.8, 0.0, 0.5, 0.0].iter().map(|value: &f64| (value + 0.075).powi(2)).sum();
        close(over.se.unwrap(), (squares / 3.0 / 4.0).sqrt());
    });
    let calls = forward.calls.into_inner().unwrap();
    let rows = |route| calls.iter().filter(|call| call.0 == route).map(|call| call.1.len()).sum::<usize>();
    assert!(space.routes().all(|route| rows(Some(route)) == 4));
}

#[test]
fn every_slice_and_router_pass_runs_once() {
    let forward = Circle::new();
    let space = space();
    with_ranker(&forward, 3, |ranker| {
        for round in 0..2 {
            ranker.routed(&[0.0; 4]).unwrap();
            ranker.random(round).unwrap();
            ranker.random_matched(&[0.0; 4], round).unwrap();
            space.routes().for_each(|route| drop(ranker.fixed(route).unwrap()));
        }
    });
    let calls = forward.calls.into_inner().unwrap();
    let rows = |route| calls.iter().filter(|call| call.0 == route).map(|call| call.1.len()).sum::<usize>();
    assert!([None].into_iter().chain(space.routes().map(Some)).all(|route| rows(route) == 4));
    assert!(calls.iter().all(|(_, lengths)| lengths.len() <= 3 && lengths.is_sorted_by(|a, b| a >= b)));
    assert!(calls.iter().flat_map(|(_, lengths)| lengths).all(|length| *length <= MAX_LEN));
}

#[test]
fn lots_are_seeded_and_matched_lots_keep_the_routers_frequencies() {
    let space = space();
    with_ranker(&Circle::new(), 64, |ranker| {
        let random = ranker.random(1).unwrap();
        assert_eq!(random.values(Metric::Mrr), ranker.random(1).unwrap().values(Metric::Mrr));
        assert_ne!(random.values(Metric::Mrr), ranker.random(2).unwrap().values(Metric::Mrr));
        let total: f64 = random.shares(&space).iter().map(|share| share.share).sum();
        close(total, 1.0);
        // Each value is a mean of that user's own reciprocal ranks.
        for (value, ranks) in random.values(Metric::Mrr).iter().zip(RANKS) {
            let own = ranks.map(|rank| 1.0 / f64::from(rank));
            assert!(*value >= own.into_iter().fold(1.0, f64::min) && *value <= own.into_iter().fold(0.0, f64::max));
        }
        let matched = ranker.random_matched(&[0.0; 4], 1).unwrap();
        let shares: Vec<_> = matched.shares(&space).iter().map(|share| (share.route.index(), share.share)).collect();
        assert_eq!(shares, [(0, 0.5), (1, 0.5)]);
        let allowed: Vec<f64> = (0..=DRAWS).map(|first| first as f64 / DRAWS as f64).collect();
        for (value, ranks) in matched.values(Metric::Mrr).iter().zip(RANKS) {
            let mix = |share: &f64| share / f64::from(ranks[0]) + (1.0 - share) / f64::from(ranks[1]);
            assert!(allowed.iter().any(|share| (mix(share) - value).abs() < 1e-12));
        }
    });
}

#[test]
fn progress_tells_every_ranked_case() {
    let told = Mutex::new(0);
    let space = space();
    let histories = [items(&[1]), items(&[2, 3])];
    let cases = [0, 1].map(|user| Case { user, history: &histories[user], target: item(5) });
    let forward = Circle::new();
    let subject = Subject { forward: &forward, space: &space, shape: SHAPE, max_len: MAX_LEN };
    let mut ranker = Ranker::new(subject, &cases, 1).unwrap().on_progress(|ranked| *told.lock().unwrap() += ranked);
    ranker.fixed(space.full()).unwrap();
    assert_eq!(*told.lock().unwrap(), 2);
}

#[test]
fn popularity_ranks_by_the_training_part_alone() {
    // Training parts: 1 2 2 | 2 3 | 4. Counts: 2 three times, 1, 3 and 4 once, 5 and 6 never.
    let dataset = dataset("a 1 2 2 5 6\nb 2 3 5 4\nc 4 5 6\n");
    let ranks = Popularity::fit(&dataset).ranks(&dataset.cases(Split::Test));
    // a has seen 1 2 5: 3 4 6. b has seen 2 3 5: 1 4. c has seen 4 5: 2 1 3 6.
    assert_eq!(ranks, [Some(3), Some(2), Some(4)]);
}

#[test]
fn markov_ranks_what_followed_the_last_item_then_the_popular() {
    // Training parts: 1 2 1 3 | 1 2 4 | 5 1. Of 9: 1 four times, 2 twice, 3, 4 and 5 once.
    let dataset = dataset("a 1 2 1 3 4 1\nb 1 2 4 3 5\nc 5 1 2 3\n");
    let markov = Markov::fit(&dataset);
    let case = |history, target| Case { user: 0, history, target: item(target) };
    let (one, two, four) = (items(&[1]), items(&[2]), items(&[4]));
    // After 1: 2 twice, 3 once; then 4 and 5 by popularity, a tie.
    let after_one = [case(&one, 2), case(&one, 3), case(&one, 4), case(&one, 5)];
    assert_eq!(markov.ranks(&after_one), [Some(1), Some(2), Some(3), Some(4)]);
    // After 2: 1 and 4 once each, and 1 is the more popular.
    assert_eq!(markov.ranks(&[case(&two, 1), case(&two, 4), case(&two, 3)]), [Some(1), Some(2), Some(3)]);
    // Nothing ever came after 4: popularity.
    assert_eq!(markov.ranks(&[case(&four, 1), case(&four, 2), case(&four, 5)]), [Some(1), Some(2), Some(4)]);
}

#[test]
fn the_strength_of_markovs_prior_is_chosen_on_validation() {
    // 1 is followed by the rare 9 in one training part; everybody's validation item is the popular 2. With the
    // weakest prior 9 comes before 2; from s·(p(2) - p(9)) > 1 on, 2 comes first.
    let users: String = (0..20).map(|user| format!("u{user} 2 3 1 2 3\nv{user} 3 1 2 4\n")).collect();
    let backed_off = dataset(&format!("{users}w 1 9 4 5\n"));
    assert!(Markov::fit(&backed_off).strength() > 1.0);
    // Where validation continues as training does, the weakest prior is as good as any.
    let chained = dataset("a 1 2 3 1\nb 1 2 3 1 2 3\nc 2 3 1 2 3\n");
    assert!(Markov::fit(&chained).strength() <= 1.0);
}

#[test]
fn contenders_run_in_order_and_once() {
    let space = space();
    let dataset = dataset("a 1 2 3 4\nb 4 5 6 1\nc 2 6\n");
    let cases = dataset.cases(Split::Test);
    let forward = Circle::new();
    let subject = Subject { forward: &forward, space: &space, shape: SHAPE, max_len: MAX_LEN };
    let mut ranker = Ranker::new(subject, &cases, 8).unwrap();
    let names = ["smallest", "statics", "markov", "auto", "h4-l2-e4", "popularity", "random-matched", "random", "full"];
    let contenders: Vec<Contender> = names.iter().map(|name| Contender::parse(&space, name).unwrap()).collect();
    let contest = Contest { dataset: &dataset, bias: &[0.0; 4], seed: 7 };
    let runs = evaluate(&mut ranker, &contest, &contenders).unwrap();
    assert_eq!(
        runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>(),
        [
            "smallest",
            "h4-l1-e4",
            "h4-l2-e4",
            "h8-l1-e4",
            "h8-l2-e4",
            "markov",
            "auto",
            "popularity",
            "random-matched",
            "random",
            "full",
        ]
    );
    assert!(runs.iter().all(|run| run.users() == 2));
    assert_eq!(runs[5].flops(), None);
    assert_eq!(Contender::parse(&space, "h4-l3-e4"), None);
}

/// A baseline's run with these ranks.
fn run_of(name: &str, ranks: Vec<Option<u32>>) -> Run {
    let history = items(&[1]);
    let cases: Vec<Case<'_>> = (0..ranks.len()).map(|user| Case { user, history: &history, target: item(2) }).collect();
    let (forward, space) = (Circle::new(), space());
    let subject = Subject { forward: &forward, space: &space, shape: SHAPE, max_len: MAX_LEN };
    Ranker::new(subject, &cases, 1).unwrap().baseline(name, ranks)
}

#[test]
fn the_bootstrap_agrees_with_the_closed_form() {
    // a is better for 140 users, worse for 100 and equal for 160: differences in HR@10 of +1, -1 and 0.
    let ranks = |hits: &dyn Fn(usize) -> bool| (0..400).map(|user| hits(user).then_some(1)).collect::<Vec<_>>();
    let a = run_of("a", ranks(&|user| !(140..320).contains(&user)));
    let b = run_of("b", ranks(&|user| user >= 140 && !(240..320).contains(&user)));
    let [found] = compare(&[(&a, &b)], Metric::Hr(10), 3).try_into().unwrap();
    assert_eq!((found.a.as_str(), found.b.as_str()), ("a", "b"));
    let (mean, variance) = (0.1, 0.6 - 0.01);
    close(found.difference.mean, mean);
    close(found.difference.se.unwrap(), (variance / 399.0_f64).sqrt());
    // The resampled mean is normal to good accuracy, with standard deviation sqrt(variance / 400).
    let deviation = (variance / 400.0_f64).sqrt();
    assert!((found.interval[0] - (mean - 1.96 * deviation)).abs() < 0.1 * deviation, "{found:?}");
    assert!((found.interval[1] - (mean + 1.96 * deviation)).abs() < 0.1 * deviation, "{found:?}");
    // z = 2.604, two-sided 0.0092.
    assert!((found.p - 0.0092).abs() < 0.004, "{found:?}");
    let [same, back] = compare(&[(&a, &a), (&b, &a)], Metric::Hr(10), 3).try_into().unwrap();
    assert_eq!((same.difference.mean, same.interval, same.p), (0.0, [0.0, 0.0], 1.0));
    assert_eq!(back.interval, [-found.interval[1], -found.interval[0]]);
    assert_eq!(compare(&[(&a, &b)], Metric::Hr(10), 3), [found]);
}

#[test]
fn a_clear_difference_has_a_small_p_but_never_zero() {
    let a = run_of("a", vec![Some(1); 50]);
    let b = run_of("b", vec![None; 50]);
    let [found] = compare(&[(&a, &b)], Metric::Ndcg(10), 0).try_into().unwrap();
    assert_eq!(found.interval, [1.0, 1.0]);
    close(found.p, 2.0 / 10_001.0);
}
