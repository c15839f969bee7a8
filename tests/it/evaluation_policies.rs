//! Hulls, halves, controls and groups against other ways to the same number.

use canet_data::Case;
use canet_domain::{Item, Route, RouteSpace};
use canet_evaluation::{
    Halves, Hull, Mark, Metric, Permuted, Ranker, Replicated, RouteTable, Subject, by_length, by_popularity, by_taste,
    frequencies, kmeans, t_reach,
};
use proptest::prelude::*;
use rand::Rng;

use super::evaluation::{Circle, ITEMS, MAX_LEN, SHAPE, close, items, space};
use super::support::{item, rng};

/// The best value of a mean cost that any two routes can be mixed to; past the best route, or below the cheapest, the
/// route itself.
pub(crate) fn best_mixture(costs: &[f64], values: &[f64], cost: f64) -> (f64, Vec<f64>) {
    let mut best = (f64::NEG_INFINITY, Vec::new());
    for a in 0..costs.len() {
        for b in 0..costs.len() {
            let share = match costs[b] - costs[a] {
                span if span > 0.0 => ((cost - costs[a]) / span).clamp(0.0, 1.0),
                _ => 0.0,
            };
            let spent = costs[a] + share * (costs[b] - costs[a]);
            let value = values[a] + share * (values[b] - values[a]);
            if spent <= cost + 1e-9 && value > best.0 {
                let mut shares = vec![0.0; costs.len()];
                shares[a] += 1.0 - share;
                shares[b] += share;
                best = (value, shares);
            }
        }
    }
    best
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn the_hull_has_the_corners_that_are_worth_having() {
    let space = space();
    let costs = [1.0, 2.0, 3.0, 5.0];
    let hull = |values: [f64; 4]| -> Vec<usize> {
        Hull::of(&space, &costs, &values).routes().iter().map(|route| route.index()).collect()
    };
    assert_eq!(hull([0.1, 0.3, 0.25, 0.4]), [0, 1, 3]);
    // On a line there is no corner; past the best there is nothing worth its cost.
    assert_eq!(hull([0.1, 0.2, 0.3, 0.5]), [0, 3]);
    assert_eq!(hull([0.4, 0.3, 0.2, 0.1]), [0]);
    assert_eq!(hull([0.1, 0.1, 0.4, 0.4]), [0, 2]);

    let hull = Hull::of(&space, &costs, &[0.1, 0.3, 0.25, 0.4]);
    assert_eq!(hull.mixture(&costs, 3.5), [0.0, 0.5, 0.0, 0.5]);
    assert_eq!(hull.mixture(&costs, 2.0), [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(hull.mixture(&costs, 0.5), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(hull.mixture(&costs, 9.0), [0.0, 0.0, 0.0, 1.0]);
}

proptest! {
    #[test]
    fn no_mixture_of_two_routes_beats_the_hulls(
        points in prop::collection::vec((1_u32..40, 0_u32..20), 12),
        above in 0.0_f64..50.0,
    ) {
        let space = RouteSpace::new(vec![4, 8], vec![1, 2], vec![2, 3, 4]).unwrap();
        let costs: Vec<f64> = points.iter().map(|(cost, _)| f64::from(*cost)).collect();
        let values: Vec<f64> = points.iter().map(|(_, value)| f64::from(*value)).collect();
        let cheapest = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let shares = Hull::of(&space, &costs, &values).mixture(&costs, cheapest + above);
        prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(dot(&shares, &costs) <= cheapest + above + 1e-9);
        prop_assert!((dot(&shares, &values) - best_mixture(&costs, &values, cheapest + above).0).abs() < 1e-9);
    }
}

/// Random users of the circle, and what its four routes make of them by MRR.
fn with_table<T>(users: usize, seed: u64, test: impl FnOnce(&RouteTable, &[Case<'_>]) -> T) -> T {
    let mut rng = rng(seed);
    let mut list =
        |length: usize| -> Vec<Item> { (0..length).map(|_| item(rng.gen_range(1..=ITEMS as u32))).collect() };
    let histories: Vec<(Vec<Item>, Item)> = (0..users).map(|user| (list(1 + user % 3), list(1)[0])).collect();
    let case = |(user, (history, target)): (usize, &'_ (Vec<Item>, Item))| (user, history.clone(), *target);
    let owned: Vec<_> = histories.iter().enumerate().map(case).collect();
    let cases: Vec<Case<'_>> =
        owned.iter().map(|(user, history, target)| Case { user: *user, history, target: *target }).collect();
    let (forward, space) = (Circle::new(), space());
    let subject = Subject { forward: &forward, space: &space, shape: SHAPE, max_len: MAX_LEN };
    let table = Ranker::new(subject, &cases, 64).unwrap().table(Metric::Mrr).unwrap();
    test(&table, &cases)
}

#[test]
fn each_half_runs_on_the_hull_that_the_other_chose() {
    let space = space();
    with_table(61, 5, |validation, _| {
        with_table(61, 6, |test, _| {
            let halves = Halves::draw(61, 9);
            let second = (0..61).filter(|user| halves.is_second(*user)).count();
            assert_eq!(second, 30);
            let cost = 0.4 * test.costs(&space)[0] + 0.6 * test.costs(&space)[3];
            let found = halves.static_mixture(&space, validation, test, cost);
            for half in [false, true] {
                let own = |user: &usize| halves.is_second(*user) == half;
                let mean = |route: Route| {
                    let others: Vec<usize> = (0..61).filter(|user| !own(user)).collect();
                    others.iter().map(|user| validation.values(route)[*user]).sum::<f64>() / others.len() as f64
                };
                let means: Vec<f64> = space.routes().map(mean).collect();
                // The hull's corners at the validation's costs; the mixture at the test's, which are the same here.
                assert_eq!(validation.costs(&space), test.costs(&space));
                let (_, shares) = best_mixture(&test.costs(&space), &means, cost);
                for user in (0..61).filter(own) {
                    let expected: f64 =
                        space.routes().map(|route| shares[route.index()] * test.values(route)[user]).sum();
                    assert!((found.values[user] - expected).abs() < 1e-9, "user {user}");
                }
            }
            assert_eq!(Halves::draw(61, 9), halves);
            assert_ne!(Halves::draw(61, 10), halves);
        });
    });
}

#[test]
fn choices_dealt_out_to_others_gain_nothing() {
    let space = space();
    with_table(400, 7, |table, _| {
        // A router that looks at the target, and one that knows nothing.
        let best = |user: usize| {
            let value = |route: &Route| table.values(*route)[user];
            space.routes().max_by(|a, b| value(a).total_cmp(&value(b))).unwrap()
        };
        let knowing: Vec<Route> = (0..400).map(best).collect();
        let shares = frequencies(&knowing, 4);
        close(shares.iter().sum::<f64>(), 1.0);
        let dealt = Permuted::deal(table, &knowing, 3);
        let expected: f64 = (0..400).map(|user| table.values(knowing[user])[user]).sum::<f64>() / 400.0;
        let random: f64 =
            space.routes().map(|route| shares[route.index()] * table.values(route).iter().sum::<f64>() / 400.0).sum();
        close(dealt.own, expected - random);
        let [low, high] = dealt.interval();
        assert!(low < 0.0 && high > 0.0 && high < dealt.own, "{low} to {high}, own {}", dealt.own);
        assert!(dealt.mean().abs() < 0.2 * high, "{}", dealt.mean());
        close(dealt.p(), 1.0 / 1001.0);

        let mut rng = rng(8);
        let ignorant: Vec<Route> = (0..400).map(|_| space.route(rng.gen_range(0..4)).unwrap()).collect();
        let none = Permuted::deal(table, &ignorant, 3);
        assert!(none.p() > 0.01, "{}", none.p());
        let both = Permuted::mean_of(&[dealt.clone(), none.clone()]);
        close(both.own, f64::midpoint(dealt.own, none.own));
        close(both.gains[17], f64::midpoint(dealt.gains[17], none.gains[17]));
    });
}

#[test]
fn numbers_of_several_models_have_errors_over_users_and_over_models() {
    let one = Replicated::of(&[vec![1.0, 2.0, 4.0, 5.0]]);
    close(one.estimate.mean, 3.0);
    let se = (10.0_f64 / 3.0 / 4.0).sqrt();
    close(one.estimate.se.unwrap(), se);
    assert_eq!(one.spread, None);
    close(one.interval().unwrap()[0], 3.0 - t_reach(3.0) * se);

    // The second model is better by 1 for everybody, which is no error over users.
    let two = Replicated::of(&[vec![1.0, 2.0, 4.0, 5.0], vec![2.0, 3.0, 5.0, 6.0]]);
    assert_eq!(two.by_model, [3.0, 4.0]);
    close(two.estimate.se.unwrap(), se);
    close(two.spread.unwrap(), 0.5_f64.sqrt());
    // Means of 3 and 4 have a standard error of 0.5, of which two models know little.
    close(two.interval().unwrap()[1], 3.5 + ((t_reach(3.0) * se).powi(2) + (t_reach(1.0) * 0.5).powi(2)).sqrt());
    assert_eq!(Replicated::of(&[vec![1.0]]).interval(), None);

    // Models that differ, users who do not: one degree of freedom is left, however many users there are.
    let apart = Replicated::of(&[vec![1.0; 500], vec![2.0; 500]]);
    let [low, high] = apart.interval().unwrap();
    assert!((high - low - 2.0 * 12.7062 * 0.5).abs() < 1e-3, "{low} to {high}");
    assert_eq!(Replicated::of(&[vec![2.0; 9], vec![2.0; 9]]).interval(), Some([2.0, 2.0]));
}

/// Of printed tables.
#[test]
fn student_reaches_as_far_as_the_tables_say() {
    for (degrees, expected) in [
        (1.0, 12.706_205),
        (1.5, 6.016_663),
        (2.0, 4.302_653),
        (3.0, 3.182_446),
        (4.0, 2.776_445),
        (10.0, 2.228_139),
        (30.0, 2.042_272),
        (100.0, 1.983_972),
        (199.0, 1.971_957),
        (200.0, 1.971_896),
        (1000.0, 1.962_339),
        (f64::INFINITY, 1.959_964),
    ] {
        let found = t_reach(degrees);
        assert!((found - expected).abs() < 2e-6, "{degrees} degrees: {found} is not {expected}");
    }
    // Between whole degrees it falls without a jump, also where the one way to compute it ends.
    let found: Vec<f64> = (10..3000).map(|tenths| t_reach(f64::from(tenths) / 10.0)).collect();
    assert!(found.windows(2).all(|pair| pair[0] > pair[1]), "it does not fall");
    assert_eq!(t_reach(0.3), t_reach(1.0));
}

#[test]
fn kmeans_finds_clusters_that_are_there() {
    let mut rng = rng(2);
    let centres = [[0.0, 0.0], [9.0, 1.0], [1.0, 9.0]];
    // 10, 20 and 30 points around them, mixed.
    let of: Vec<usize> = (0..60).map(|place| [0, 1, 1, 2, 2, 2][place % 6]).collect();
    let points: Vec<Vec<f32>> =
        of.iter().map(|centre| centres[*centre].map(|value: f32| value + rng.gen_range(-1.0..1.0)).to_vec()).collect();
    let found = kmeans(&points, 3, 4);
    // The largest comes first.
    let expected: Vec<usize> = of.iter().map(|centre| 2 - centre).collect();
    assert_eq!(found, expected);
    assert_eq!(kmeans(&points, 3, 4), found);
    assert_eq!(kmeans(&vec![vec![1.0, 1.0]; 5], 3, 0), [0; 5]);
    assert_eq!(kmeans(&[], 3, 0), Vec::<usize>::new());
}

#[test]
fn groups_hold_everybody_once_and_are_named_by_what_they_share() {
    // Two tastes: items 1 and 2, or 4 and 5; the first ten users have item 3 too.
    let taste = |user: usize| if user.is_multiple_of(4) { [4, 5, 3] } else { [1, 2, 3] };
    let histories: Vec<Vec<Item>> = (0..20).map(|user| items(&taste(user)[..if user < 10 { 3 } else { 2 }])).collect();
    let cases: Vec<Case<'_>> =
        histories.iter().enumerate().map(|(user, history)| Case { user, history, target: item(1) }).collect();
    let row = |column: usize| vec![if column > 3 { 1.0 } else { -1.0 }, if column == 3 { 0.1 } else { 0.0 }];
    let embedding: Vec<Vec<f32>> = (0..=ITEMS).map(row).collect();
    let everybody = |groups: &[canet_evaluation::Group]| {
        let mut members: Vec<usize> = groups.iter().flat_map(|group| group.cases.clone()).collect();
        members.sort_unstable();
        assert_eq!(members, (0..20).collect::<Vec<_>>());
    };
    let tastes = by_taste(&cases, &embedding, 2, 1);
    everybody(&tastes);
    assert_eq!(tastes[0].cases.len(), 15);
    let named = |place: usize| match &tastes[place].mark {
        Mark::Taste(items) => items.iter().map(|item| item.id()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    // Item 3: 7 of 15, 3 of 5, of everybody 10 of 20.
    assert_eq!((named(0), named(1)), (vec![1, 2], vec![4, 5, 3]));

    let lengths = by_length(&cases);
    everybody(&lengths);
    let marks: Vec<Mark> = lengths.iter().map(|group| group.mark.clone()).collect();
    assert_eq!(marks, [Mark::Length(2.0, 2.0), Mark::Length(3.0, 3.0)]);
    let popular = by_popularity(&cases, &[10, 10, 10, 40, 40, 40]);
    everybody(&popular);
    assert_eq!(popular.last().unwrap().mark, Mark::Popularity(30.0, 40.0));
}
