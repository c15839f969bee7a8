use std::convert::Infallible;

use canet_domain::RoutePolicy;

use super::*;
use crate::testing::{RingModel, close, dataset, space};
use crate::{Baseline, BaselineInputs, evaluate, t_critical};

/// A contender whose value is `high` for the first `hits` of 200 users and 0 for the others.
fn contender(name: &str, hits: usize, high: f64, flops: Option<f64>) -> Contender {
    let values = (0..200).map(|user| if user < hits { high } else { 0.0 }).collect();
    Contender { name: name.to_owned(), route: flops.map(|_| name.to_owned()), values: vec![values], flops }
}

/// Inputs in which the routed model beats everything.
fn inputs() -> VerdictInputs {
    VerdictInputs {
        routes: 4,
        budget: Some(0.3),
        fixed: None,
        routed: contender("auto", 150, 1.0, Some(30.0)),
        full: contender("full", 100, 1.0, Some(100.0)),
        slice: contender("h4-l2-e4", 90, 1.0, Some(25.0)),
        popularity: contender("popularity", 20, 1.0, None),
        markov: contender("markov", 50, 1.0, None),
        full_flops: 100.0,
        repeats: 0.1,
        seen: SeenItems::Excluded,
    }
}

#[test]
fn differences_are_paired_and_have_students_interval() {
    let verdict = Verdict::new(&inputs());
    close(verdict.routed.mean, 0.75);
    close(verdict.saved, 0.7);
    // The difference from the full model is 1 for 50 users and 0 for 150: mean .25, variance .25 * .75 * 200 / 199.
    let Difference { value, interval, shown } = verdict.full.difference;
    close(value.mean, 0.25);
    let se = (0.25_f64 * 0.75 / 199.0).sqrt();
    close(value.se.unwrap(), se);
    close(interval.unwrap()[0], 0.25 - t_critical(199.0) * se);
    assert_eq!(shown, Shown::Better);
    assert_eq!((verdict.slice.compute, verdict.markov.compute), (Some(0.25), None));
    assert_eq!((verdict.routing, &verdict.unbeaten), (Routing::Pays, &None));
    assert_eq!(verdict.serve.as_deref(), Some("auto"));
}

#[test]
fn the_best_single_route_decides_whether_routing_pays() {
    let with = |slice: Contender| {
        let verdict = Verdict::new(&VerdictInputs { slice, ..inputs() });
        (verdict.routing, verdict.serve)
    };
    let served = |route: &str| Some(route.to_owned());
    // One more hit among 200 users is no evidence.
    assert_eq!(with(contender("s", 149, 1.0, Some(30.0))), (Routing::NotShown, served("s")));
    assert_eq!(with(contender("s", 150, 1.0, Some(30.0))), (Routing::NotShown, served("s")));
    assert_eq!(with(contender("s", 190, 1.0, Some(30.0))), (Routing::Loses, served("s")));
    // A slice that is not shown to beat a simple baseline is not recommended.
    assert_eq!(with(contender("s", 1, 150.0, Some(30.0))), (Routing::NotShown, served("auto")));
    let fixed = Verdict::new(&VerdictInputs { fixed: served("s"), ..inputs() });
    assert_eq!((fixed.routing, fixed.serve, fixed.fixed), (Routing::Fixed, served("auto"), served("s")));
    let single = Verdict::new(&VerdictInputs { routes: 1, ..inputs() });
    assert_eq!((single.routing, single.serve), (Routing::SingleRoute, served("auto")));
}

#[test]
fn a_simple_baseline_that_is_not_beaten_is_named() {
    let with = |markov, popularity, full| {
        let verdict = Verdict::new(&VerdictInputs {
            markov: contender("markov", markov, 1.0, None),
            popularity: contender("popularity", popularity, 1.0, None),
            full: contender("full", full, 1.0, Some(100.0)),
            ..inputs()
        });
        let unbeaten = verdict.unbeaten.unwrap();
        (unbeaten.name, unbeaten.wins, unbeaten.full_beats, verdict.serve)
    };
    assert_eq!(with(190, 20, 100), ("markov".to_owned(), true, false, None));
    assert_eq!(with(149, 20, 100), ("markov".to_owned(), false, false, None));
    assert_eq!(with(149, 148, 100).0, "markov");
    assert_eq!(with(148, 149, 100).0, "popularity");
    // Of equal baselines the Markov chain is named.
    assert_eq!(with(160, 160, 100).0, "markov");
    assert_eq!(with(150, 20, 180), ("markov".to_owned(), false, true, Some("full".to_owned())));
    // The full model must beat both.
    assert_eq!(with(150, 180, 180), ("popularity".to_owned(), true, false, None));
    assert_eq!(with(180, 150, 180), ("markov".to_owned(), true, false, None));
}

#[test]
fn a_verdict_over_several_models_includes_their_spread() {
    let twice = |first: Contender, hits: usize| {
        let second = contender("", hits, 1.0, None).values.remove(0);
        Contender { values: vec![first.values[0].clone(), second], ..first }
    };
    let one = inputs();
    let two = VerdictInputs {
        routed: twice(one.routed.clone(), 120),
        full: twice(one.full.clone(), 100),
        slice: twice(one.slice.clone(), 90),
        popularity: twice(one.popularity.clone(), 20),
        markov: twice(one.markov.clone(), 50),
        ..one.clone()
    };
    // The gain over the full model is .25 for one model and .1 for the other. Two models leave one degree of freedom.
    let found = Verdict::new(&two).full.difference;
    close(found.value.mean, 0.175);
    assert_eq!(found.shown, Shown::Open);
    assert_eq!(Verdict::new(&one).full.difference.shown, Shown::Better);
}

#[test]
fn the_slice_to_serve_is_the_first_models_where_the_models_differ() {
    let slice = contender("h4-l1-e4 or h4-l2-e4", 150, 1.0, Some(30.0));
    let slice = Contender { route: Some("h4-l2-e4".to_owned()), ..slice };
    let verdict = Verdict::new(&VerdictInputs { slice, ..inputs() });
    assert_eq!((verdict.slice.name.as_str(), verdict.serve.as_deref()), ("h4-l1-e4 or h4-l2-e4", Some("h4-l2-e4")));
}

#[test]
fn one_user_shows_nothing() {
    let first = |contender: Contender| Contender { values: vec![contender.values[0][..1].to_vec()], ..contender };
    let all = inputs();
    let verdict = Verdict::new(&VerdictInputs {
        routed: first(all.routed),
        full: first(all.full),
        slice: first(all.slice),
        popularity: first(all.popularity),
        markov: first(all.markov),
        full_flops: all.full_flops,
        ..inputs()
    });
    assert_eq!((verdict.full.difference.interval, verdict.full.difference.shown), (None, Shown::Open));
    assert_eq!(verdict.serve, None);
}

#[test]
fn the_best_affordable_route_is_the_best_within_the_limit() {
    let space = space();
    let best = |limit: f64, values: [f64; 4]| {
        let value = |route: Route| Ok::<f64, Infallible>(values[route.index()]);
        best_affordable_route(&space, &[1.0, 3.0, 2.0, 5.0], limit, value).unwrap().index()
    };
    assert_eq!(best(3.0, [0.1, 0.4, 0.3, 0.9]), 1);
    assert_eq!(best(2.9, [0.1, 0.4, 0.3, 0.9]), 2);
    assert_eq!(best(9.0, [0.1, 0.4, 0.3, 0.9]), 3);
    assert_eq!(best(9.0, [0.4, 0.4, 0.4, 0.4]), 0);
    assert_eq!(best(0.5, [0.1, 0.4, 0.3, 0.9]), 0);
}

#[test]
fn the_single_route_is_chosen_on_at_most_five_thousand_users_about() {
    assert_eq!([0, 1, 5000, 5001, 22_363].map(selection_step), [1, 1, 1, 2, 5]);
    let dataset = dataset("a 1 2 3 5\nb 2 3\nc 3 4 5 1\n");
    assert_eq!(selection_cases(&dataset), dataset.cases(Split::Validation));
}

/// The single route is the best one on validation, even where another is better on test.
#[test]
fn the_single_route_is_chosen_on_validation() {
    let space = space();
    // After item i, route r ranks item i + r + 1 first. On validation the next item is the next on the ring, so route 0 is
    // right. On test it is the one after that, so route 1 is right.
    let dataset = dataset("a 1 2 3 5\nb 2 3 4 6\nc 3 4 5 1\n");
    let (validation, test) = (dataset.cases(Split::Validation), dataset.cases(Split::Test));
    let model = RingModel::new();
    let ranker = |cases| Ranker::new(model.with_space(&space), cases, 8).unwrap();
    let (mut on_validation, mut on_test) = (ranker(&validation), ranker(&test));
    let policy = RoutePolicy::Router(vec![0.0; 4]);
    let inputs = BaselineInputs::new(&dataset, &policy, SeenItems::Excluded, 1);
    let wanted = [Baseline::Auto, Baseline::Full, Baseline::Popularity, Baseline::Markov];
    let runs = evaluate(&mut on_test, &inputs, &wanted, |_| ()).unwrap();
    let found = VerdictRuns::among(&runs).unwrap().judge(&mut on_test, &mut on_validation, Some(0.5), &policy).unwrap();
    assert_eq!(found.slice.name, "h4-l1-e4");
    assert_eq!((found.users, found.budget), (3, Some(0.5)));
    close(found.slice.value.mean, Metric::Ndcg(10).value(Some(2)));
    assert!(VerdictRuns::among(&runs[1..]).is_none());
    assert_eq!(Case::repeating(&test) as f64 / 3.0, found.repeats);
}
