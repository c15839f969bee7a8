//! Degrading under pressure: when the cap falls and rises, and what runs under it. The time is an argument.

use std::time::{Duration, Instant};

use canet::domain::{Reason, Route, RouteSpace, choose_route};
use canet::serving::{Cap, Degrade};

/// Four routes that cost 1, 2, 4 and 8.
fn space() -> RouteSpace {
    RouteSpace::new(vec![64], vec![1, 2, 3, 4], vec![64]).unwrap()
}

fn cost(route: Route) -> u64 {
    1 << route.index()
}

fn choose(cap: Cap, logits: [f32; 4], bias: [f32; 4]) -> (usize, Reason) {
    let (choice, reason) = cap.choose(&space(), (&logits, &bias), cost);
    (choice.route.index(), reason)
}

/// A cap that has fallen `halvings` times.
fn fallen(halvings: u32) -> Cap {
    let start = Instant::now();
    let mut degrade = Degrade::new(start);
    (1..=halvings).map(|step| degrade.cap(start + Duration::from_secs(step.into()), 1.0)).last().unwrap_or(Cap::NONE)
}

#[test]
fn what_is_affordable_runs_as_the_router_chose_it() {
    assert_eq!(choose(Cap::NONE, [0.0, 0.0, 0.0, 1.0], [0.0; 4]), (3, Reason::Router));
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
    let (choice, _) = fallen(1).choose(&space(), (&logits, &[0.0; 4]), cost);
    assert!((choice.confidence - 2.0_f32.exp() / total).abs() < 1e-6);
    let chosen = choose_route(&space(), &logits, &[0.0; 4]);
    assert!((chosen.confidence - 3.0_f32.exp() / total).abs() < 1e-6);
}

/// The caps over time, one every `step`, under a pressure that depends on the time.
fn caps(milliseconds: u64, step: u64, pressure: impl Fn(u64) -> f64) -> Vec<Cap> {
    let start = Instant::now();
    let mut degrade = Degrade::new(start);
    let at = |now: u64| start + Duration::from_millis(now);
    (0..milliseconds / step).map(|n| degrade.cap(at(n * step), pressure(n * step))).collect()
}

fn changes(caps: &[Cap]) -> usize {
    caps.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn the_cap_falls_step_by_step_and_not_below_what_the_smallest_route_takes() {
    let caps = caps(10_000, 1, |_| 1.0);
    assert_eq!((caps[0], caps[19]), (Cap::NONE, Cap::NONE));
    assert!(caps[20] != caps[19] && caps[39] == caps[20] && caps[40] != caps[39]);
    assert_eq!(changes(&caps), 6);
}

#[test]
fn between_the_thresholds_nothing_changes() {
    assert_eq!(changes(&caps(10_000, 5, |_| 0.45)), 0);
    let after_pressure = caps(10_000, 5, |now| if now < 50 { 1.0 } else { 0.3 });
    assert_eq!(changes(&after_pressure), 2);
}

#[test]
fn a_pressure_that_swings_quickly_does_not_make_the_cap_flap() {
    // Over and under the thresholds every 10 ms: the cap falls to the ground and stays there but for a probe a second.
    let caps = caps(60_000, 10, |now| if now / 10 % 2 == 0 { 0.9 } else { 0.05 });
    assert!(changes(&caps) <= 6 + 2 * 60, "{}", changes(&caps));
}

#[test]
fn when_the_pressure_is_gone_every_route_may_run_again() {
    let caps = caps(30_000, 10, |now| if now < 1000 { 1.0 } else { 0.0 });
    assert!(caps[100] != Cap::NONE && caps[1000] == Cap::NONE);
    // Also where nobody asked meanwhile.
    let start = Instant::now();
    let mut degrade = Degrade::new(start);
    for step in 1..=5 {
        degrade.cap(start + Duration::from_secs(step), 1.0);
    }
    assert_eq!(degrade.cap(start + Duration::from_secs(60), 0.0), Cap::NONE);
}
