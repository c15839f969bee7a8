//! Degrading under pressure: when the relief falls and rises, and what runs under it. The time is an argument.

use std::time::{Duration, Instant};

use canet_domain::{Reason, Route, RouteSpace, choose_route};
use canet_model::checkpoint::{BudgetPoint, Calibration};
use canet_serving::{Degrade, Relief};

/// Four routes that cost 1, 2, 4 and 8.
fn space() -> RouteSpace {
    RouteSpace::new(vec![64], vec![1, 2, 3, 4], vec![64]).unwrap()
}

fn cost(route: Route) -> u64 {
    1 << route.index()
}

/// Without a calibration.
fn choose(relief: Relief, logits: [f32; 4], bias: [f32; 4]) -> (usize, Reason) {
    let (choice, reason) = relief.ease(0.3, None).choose(&space(), (&logits, &bias), cost);
    (choice.route.index(), reason)
}

/// A relief that has fallen `halvings` times.
fn fallen(halvings: u32) -> Relief {
    let start = Instant::now();
    let mut degrade = Degrade::new(start);
    (1..=halvings)
        .map(|step| degrade.relief(start + Duration::from_secs(step.into()), 1.0))
        .last()
        .unwrap_or(Relief::NONE)
}

#[test]
fn what_is_affordable_runs_as_the_router_chose_it() {
    assert_eq!(choose(Relief::NONE, [0.0, 0.0, 0.0, 1.0], [0.0; 4]), (3, Reason::Router));
    assert_eq!(choose(fallen(1), [0.0, 0.0, 1.0, 0.0], [0.0; 4]), (2, Reason::Router));
    assert_eq!(choose(fallen(60), [1.0, 0.0, 0.0, 0.0], [0.0; 4]), (0, Reason::Router));
}

#[test]
fn what_costs_too_much_becomes_the_best_affordable_route_by_logit_and_bias() {
    assert_eq!(choose(fallen(1), [0.0, 2.0, 1.0, 3.0], [0.0; 4]), (1, Reason::Degraded));
    assert_eq!(choose(fallen(1), [0.0, 2.0, 1.0, 3.0], [0.0, 0.0, 1.5, 0.0]), (2, Reason::Degraded));
    // The smallest route is affordable whatever the cap.
    assert_eq!(choose(fallen(60), [0.0, 2.0, 1.0, 3.0], [0.0; 4]), (0, Reason::Degraded));
    // The confidence is the router's probability of what runs, among all routes.
    let (logits, total) = ([0.0_f32, 2.0, 1.0, 3.0], 1.0 + 2.0_f32.exp() + 1.0_f32.exp() + 3.0_f32.exp());
    let (choice, _) = fallen(1).ease(0.3, None).choose(&space(), (&logits, &[0.0; 4]), cost);
    assert!((choice.confidence - 2.0_f32.exp() / total).abs() < 1e-6);
    let chosen = choose_route(&space(), &logits, &[0.0; 4]);
    assert!((chosen.confidence - 3.0_f32.exp() / total).abs() < 1e-6);
}

/// Prices of 8, 2 and nothing for what the full model costs.
fn calibration() -> Calibration {
    let point = |budget, price: f32| BudgetPoint {
        budget,
        bias: (0..4).map(|route| -price * (1 << route) as f32 / 8.0).collect(),
        spent: budget,
    };
    Calibration { points: vec![point(0.2, 8.0), point(0.4, 2.0), point(0.8, 0.0)] }
}

#[test]
fn with_a_calibration_the_budget_falls_along_its_curve() {
    let (curve, space) = (calibration(), space());
    let by_hand = [0.0, 0.8, 1.5, 2.2];
    let (mut degraded, mut before) = (0, f64::INFINITY);
    for halvings in 0..=6 {
        // From a budget beyond the curve, which counts as its highest.
        let lowered = 0.8 / f64::from(1 << halvings);
        let eased = fallen(halvings).ease(1.0, Some(&curve));
        let mut spent = 0.0;
        for turn in 0..4 {
            let mut logits = by_hand;
            logits.rotate_left(turn);
            let (choice, reason) = eased.choose(&space, (&logits, &curve.bias(1.0)), cost);
            let own = choose_route(&space, &logits, &[0.0; 4]).route;
            // Within the curve it is the router with the smaller budget, but for rows that this would make dearer.
            let eased = choose_route(&space, &logits, &curve.bias(lowered)).route;
            if lowered >= 0.2 && cost(eased) <= cost(own) {
                assert_eq!(choice.route, eased, "{halvings} {turn}");
            }
            assert!(cost(choice.route) <= cost(own));
            assert_eq!(reason == Reason::Degraded, choice.route != own);
            degraded += usize::from(reason == Reason::Degraded);
            spent += cost(choice.route) as f64;
        }
        assert!(spent <= before, "{halvings}: {spent} after {before}");
        before = spent;
    }
    assert!(degraded > 4, "{degraded}");
    // Past its end the cap goes on: every row takes the smallest route at last.
    assert!((before - 4.0).abs() < 1e-9, "{before}");
}

#[test]
fn a_row_never_becomes_dearer_and_a_route_far_outside_the_curve_is_no_fault() {
    // A curve whose lower budget likes the dearest route, and routes that no budget takes.
    let point = |budget, bias: [f32; 4]| BudgetPoint { budget, bias: bias.into(), spent: budget };
    let odd = Calibration { points: vec![point(0.1, [-1e9, -1e9, -1e9, 9.0]), point(1.0, [-1e9, 0.0, -1e9, 0.0])] };
    for (halvings, expected) in [(0, 1), (1, 1), (3, 1), (6, 0)] {
        let eased = fallen(halvings).ease(1.0, Some(&odd));
        let (choice, reason) = eased.choose(&space(), (&[0.0, 2.0, 1.0, 0.5], &odd.bias(1.0)), cost);
        assert_eq!((choice.route.index(), reason == Reason::Degraded), (expected, expected != 1), "{halvings}");
        assert!((0.0..=1.0).contains(&choice.confidence), "{choice:?}");
    }
}

/// The relief over time, one every `step`, under a pressure that depends on the time.
fn reliefs(milliseconds: u64, step: u64, pressure: impl Fn(u64) -> f64) -> Vec<Relief> {
    let start = Instant::now();
    let mut degrade = Degrade::new(start);
    let at = |now: u64| start + Duration::from_millis(now);
    (0..milliseconds / step).map(|n| degrade.relief(at(n * step), pressure(n * step))).collect()
}

fn changes(reliefs: &[Relief]) -> usize {
    reliefs.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn the_share_falls_step_by_step_and_not_below_what_the_smallest_route_takes() {
    let reliefs = reliefs(10_000, 1, |_| 1.0);
    assert_eq!((reliefs[0], reliefs[19]), (Relief::NONE, Relief::NONE));
    assert!(reliefs[20] != reliefs[19] && reliefs[39] == reliefs[20] && reliefs[40] != reliefs[39]);
    assert_eq!(changes(&reliefs), 6);
}

#[test]
fn between_the_thresholds_nothing_changes() {
    assert_eq!(changes(&reliefs(10_000, 5, |_| 0.45)), 0);
    let after_pressure = reliefs(10_000, 5, |now| if now < 50 { 1.0 } else { 0.3 });
    assert_eq!(changes(&after_pressure), 2);
}

#[test]
fn a_pressure_that_swings_quickly_does_not_make_the_share_flap() {
    // Over and under the thresholds every 10 ms: the share falls to the ground and stays there but for a probe a second.
    let reliefs = reliefs(60_000, 10, |now| if now / 10 % 2 == 0 { 0.9 } else { 0.05 });
    assert!(changes(&reliefs) <= 6 + 2 * 60, "{}", changes(&reliefs));
}

#[test]
fn when_the_pressure_is_gone_every_route_may_run_again() {
    let reliefs = reliefs(30_000, 10, |now| if now < 1000 { 1.0 } else { 0.0 });
    assert!(reliefs[100] != Relief::NONE && reliefs[1000] == Relief::NONE);
    // Also where nobody asked meanwhile.
    let start = Instant::now();
    let mut degrade = Degrade::new(start);
    for step in 1..=5 {
        degrade.relief(start + Duration::from_secs(step), 1.0);
    }
    assert_eq!(degrade.relief(start + Duration::from_secs(60), 0.0), Relief::NONE);
}
