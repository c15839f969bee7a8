use std::time::{Duration, Instant};

use canet_domain::{Choice, Flops, Reason, Route, RouteSpace, choose_route, choose_route_among};
use canet_model::checkpoint::Calibration;

/// Shares of the queue limit: a backlog above the first raises the level, one below the second lowers it.
const HIGH_WATER: f64 = 0.5;
const LOW_WATER: f64 = 0.2;

/// The level rises at most this often: the effect of the last step must show in the backlog first.
const RISE_EVERY: Duration = Duration::from_millis(20);

/// The level falls at most this often: under a lasting overload each fall probes whether that is over.
const FALL_EVERY: Duration = Duration::from_secs(1);

/// The highest level: 1/64 of the full model's cost is less than any sensible route takes.
const HIGHEST: u32 = 6;

/// Lets the router spend less under pressure, so that fewer rows are refused.
///
/// Two thresholds and two intervals keep the level from flapping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Degrade {
    level: DegradeLevel,
    changed: Instant,
    /// When the level was last asked for.
    asked: Instant,
}

/// How often the share of its budget that the router may spend is halved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DegradeLevel(u32);

/// How rows of one budget are routed at one level.
#[derive(Clone, Debug, PartialEq)]
pub struct DegradedRouter {
    /// The bias of the smaller budget, one value a route; `None` is the router's own.
    bias: Option<Vec<f32>>,
    /// The largest cost that a route may have, as a share of the full model's for the same history.
    cost_cap: f64,
}

impl Degrade {
    /// Not degraded, as of `now`.
    pub(crate) fn new(now: Instant) -> Degrade {
        Degrade { level: DegradeLevel::NONE, changed: now, asked: now }
    }

    /// The level at `now`, when the predicted backlog is `pressure` of the queue limit.
    pub(crate) fn level(&mut self, now: Instant, pressure: f64) -> DegradeLevel {
        let since = now.saturating_duration_since(self.changed);
        let idle = now.saturating_duration_since(std::mem::replace(&mut self.asked, now));
        let level = &mut self.level.0;
        if pressure > HIGH_WATER && since >= RISE_EVERY && *level < HIGHEST {
            *level += 1;
            self.changed = now;
        } else if pressure < LOW_WATER && since >= FALL_EVERY && *level > 0 {
            // Without rows nobody asks for the level. It falls all the same: by one for each second in between.
            let steps = u32::try_from(idle.as_secs() / FALL_EVERY.as_secs()).unwrap_or(HIGHEST);
            *level = level.saturating_sub(steps.max(1));
            self.changed = now;
        }
        self.level
    }
}

impl DegradeLevel {
    /// The router chooses freely.
    pub const NONE: DegradeLevel = DegradeLevel(0);

    /// How rows with this budget are routed.
    ///
    /// With a calibration the router follows the calibration's own curve: it takes the bias of a smaller budget. Below
    /// the curve's lowest budget, and without a calibration, the cost of routes is capped.
    pub fn router(self, budget: f64, calibration: Option<&Calibration>) -> DegradedRouter {
        let share = self.share();
        let curve = calibration.and_then(|curve| Some((curve, curve.points.first()?, curve.points.last()?)));
        match curve {
            Some((calibration, lowest, highest)) if self != DegradeLevel::NONE => {
                // A budget above the curve spends as much as the curve's highest.
                let lowered = budget.min(highest.budget) * share;
                DegradedRouter { bias: Some(calibration.bias(lowered)), cost_cap: (lowered / lowest.budget).min(1.0) }
            }
            _ => DegradedRouter { bias: None, cost_cap: share },
        }
    }
}

/// What is known of a model's budgets.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// The budgets.
    pub calibration: &'a Calibration,
    /// The routes.
    pub space: &'a RouteSpace,
}

impl DegradeLevel {
    /// The route of a row under a budget whose calibration names `route`: that one, or a cheaper one under pressure.
    ///
    /// Such a row never asks the router. It moves along the routes that the calibration names for smaller budgets, and below
    /// all of them it runs the smallest route.
    pub fn fixed(
        self,
        route: Route,
        budget: f64,
        curve: Option<Curve<'_>>,
        cost: impl Fn(Route) -> Flops,
    ) -> (Route, Reason) {
        let highest = curve.and_then(|curve| Some((curve, curve.calibration.points.last()?)));
        let Some((Curve { calibration, space }, highest)) = highest else { return (route, Reason::Fixed) };
        if self == DegradeLevel::NONE {
            return (route, Reason::Fixed);
        }
        let lowered = budget.min(highest.budget) * self.share();
        let affordable = calibration.points.iter().rev().skip_while(|point| point.budget > lowered);
        let cheaper = affordable.filter_map(|point| point.fixed_route(space)).find(|other| cost(*other) <= cost(route));
        let cheaper = cheaper.unwrap_or(space.smallest());
        match cost(cheaper) < cost(route) {
            true => (cheaper, Reason::Degraded),
            false => (route, Reason::Fixed),
        }
    }

    /// The share of its budget that a row may spend.
    fn share(self) -> f64 {
        0.5_f64.powi(self.0.cast_signed())
    }
}

impl DegradedRouter {
    /// The router's choice by `bias`, or a cheaper one: the best by the logits and the smaller budget's bias among the
    /// routes within the cap that cost no more than the router's choice.
    ///
    /// The logits are what is known of this user: they rank the affordable routes as they rank all of them. The
    /// smallest route is always affordable.
    pub fn choose(
        &self,
        space: &RouteSpace,
        logits: &[f32],
        bias: &[f32],
        cost: impl Fn(Route) -> Flops,
    ) -> (Choice, Reason) {
        let choice = choose_route(space, logits, bias);
        let (chosen, cap) = (cost(choice.route), (cost(space.full()) as f64 * self.cost_cap) as Flops);
        if self.bias.is_none() && chosen <= cap {
            return (choice, Reason::Router);
        }
        let bias = self.bias.as_deref().unwrap_or(bias);
        let cheaper = choose_route_among(space, logits, bias, |route| cost(route) <= chosen.min(cap));
        if cheaper.route == choice.route { (choice, Reason::Router) } else { (cheaper, Reason::Degraded) }
    }
}

#[cfg(test)]
mod tests {
    use canet_model::checkpoint::BudgetPoint;

    use super::*;

    /// Four routes that cost 1, 2, 4 and 8.
    fn space() -> RouteSpace {
        RouteSpace::new(vec![64], vec![1, 2, 3, 4], vec![64]).unwrap()
    }

    fn cost(route: Route) -> u64 {
        1 << route.index()
    }

    /// The choice without a calibration.
    fn choose(level: u32, logits: [f32; 4], bias: [f32; 4]) -> (usize, Reason) {
        let (choice, reason) = DegradeLevel(level).router(0.3, None).choose(&space(), &logits, &bias, cost);
        (choice.route.index(), reason)
    }

    #[test]
    fn an_affordable_choice_of_the_router_runs() {
        assert_eq!(choose(0, [0.0, 0.0, 0.0, 1.0], [0.0; 4]), (3, Reason::Router));
        assert_eq!(choose(1, [0.0, 0.0, 1.0, 0.0], [0.0; 4]), (2, Reason::Router));
        assert_eq!(choose(6, [1.0, 0.0, 0.0, 0.0], [0.0; 4]), (0, Reason::Router));
    }

    #[test]
    fn a_choice_that_costs_too_much_becomes_the_best_affordable_route_by_logit_and_bias() {
        assert_eq!(choose(1, [0.0, 2.0, 1.0, 3.0], [0.0; 4]), (1, Reason::Degraded));
        assert_eq!(choose(1, [0.0, 2.0, 1.0, 3.0], [0.0, 0.0, 1.5, 0.0]), (2, Reason::Degraded));
        // The smallest route is affordable at every level.
        assert_eq!(choose(6, [0.0, 2.0, 1.0, 3.0], [0.0; 4]), (0, Reason::Degraded));
        // The confidence is the router's probability of the route that runs, among all routes.
        let (logits, total) = ([0.0_f32, 2.0, 1.0, 3.0], 1.0 + 2.0_f32.exp() + 1.0_f32.exp() + 3.0_f32.exp());
        let (choice, _) = DegradeLevel(1).router(0.3, None).choose(&space(), &logits, &[0.0; 4], cost);
        assert!((choice.confidence - 2.0_f32.exp() / total).abs() < 1e-6);
        let chosen = choose_route(&space(), &logits, &[0.0; 4]);
        assert!((chosen.confidence - 3.0_f32.exp() / total).abs() < 1e-6);
    }

    /// Prices of 8, 2 and nothing for the full model's cost.
    fn calibration() -> Calibration {
        let point = |budget, price: f32| BudgetPoint {
            budget,
            bias: (0..4).map(|route| -price * (1 << route) as f32 / 8.0).collect(),
            route: None,
            spent: budget,
        };
        Calibration { points: vec![point(0.2, 8.0), point(0.4, 2.0), point(0.8, 0.0)] }
    }

    #[test]
    fn with_a_calibration_the_budget_falls_along_its_curve() {
        let (curve, space) = (calibration(), space());
        let by_hand = [0.0, 0.8, 1.5, 2.2];
        let (mut degraded, mut before) = (0, f64::INFINITY);
        for level in 0..=6 {
            // The budget is above the curve, so it counts as the curve's highest.
            let lowered = 0.8 / f64::from(1 << level);
            let router = DegradeLevel(level).router(1.0, Some(&curve));
            let mut spent = 0.0;
            for turn in 0..4 {
                let mut logits = by_hand;
                logits.rotate_left(turn);
                let (choice, reason) = router.choose(&space, &logits, &curve.bias(1.0), cost);
                let own = choose_route(&space, &logits, &[0.0; 4]).route;
                // Within the curve the choice is that of the smaller budget, unless it costs more.
                let smaller = choose_route(&space, &logits, &curve.bias(lowered)).route;
                if lowered >= 0.2 && cost(smaller) <= cost(own) {
                    assert_eq!(choice.route, smaller, "{level} {turn}");
                }
                assert!(cost(choice.route) <= cost(own));
                assert_eq!(reason == Reason::Degraded, choice.route != own);
                degraded += usize::from(reason == Reason::Degraded);
                spent += cost(choice.route) as f64;
            }
            assert!(spent <= before, "{level}: {spent} after {before}");
            before = spent;
        }
        assert!(degraded > 4, "{degraded}");
        // Below the curve the cap goes on falling: at last every row takes the smallest route.
        assert!((before - 4.0).abs() < 1e-9, "{before}");
    }

    #[test]
    fn no_row_costs_more_even_if_a_smaller_budget_prefers_the_most_expensive_route() {
        // No budget takes routes 0 and 2.
        let point = |budget, bias: [f32; 4]| BudgetPoint { budget, bias: bias.into(), route: None, spent: budget };
        let odd = Calibration { points: vec![point(0.1, [-1e9, -1e9, -1e9, 9.0]), point(1.0, [-1e9, 0.0, -1e9, 0.0])] };
        for (level, expected) in [(0, 1), (1, 1), (3, 1), (6, 0)] {
            let router = DegradeLevel(level).router(1.0, Some(&odd));
            let (choice, reason) = router.choose(&space(), &[0.0, 2.0, 1.0, 0.5], &odd.bias(1.0), cost);
            assert_eq!((choice.route.index(), reason == Reason::Degraded), (expected, expected != 1), "{level}");
            assert!((0.0..=1.0).contains(&choice.confidence), "{choice:?}");
        }
    }

    #[test]
    fn a_row_of_a_fixed_route_moves_along_the_routes_of_smaller_budgets() {
        let point = |budget, route: Option<&str>| BudgetPoint {
            budget,
            bias: vec![0.0; 4],
            route: route.map(str::to_owned),
            spent: budget,
        };
        let curve = Calibration {
            points: vec![
                point(0.125, Some("h64-l2-e64")),
                point(0.25, None),
                point(0.5, Some("h64-l3-e64")),
                point(1.0, Some("h64-l4-e64")),
            ],
        };
        let space = space();
        let curve = Curve { calibration: &curve, space: &space };
        let at = |level: u32, route: usize, budget: f64, curve: Option<Curve<'_>>| {
            let route = space.route(route).unwrap();
            let (route, reason) = DegradeLevel(level).fixed(route, budget, curve, cost);
            (route.index(), reason)
        };
        let found: Vec<_> = (0..=4).map(|level| at(level, 3, 2.0, Some(curve))).collect();
        let degraded = [2, 1, 1, 0].map(|route| (route, Reason::Degraded));
        assert_eq!(found, [&[(3, Reason::Fixed)], &degraded[..]].concat());
        assert_eq!(at(3, 1, 0.125, Some(curve)), (0, Reason::Degraded));
        assert_eq!(at(6, 0, 0.125, Some(curve)), (0, Reason::Fixed));
        assert_eq!(at(6, 3, 0.3, None), (3, Reason::Fixed));
    }

    /// The levels over time, one every `step`, under a pressure that depends on the time.
    fn levels(milliseconds: u64, step: u64, pressure: impl Fn(u64) -> f64) -> Vec<DegradeLevel> {
        let start = Instant::now();
        let mut degrade = Degrade::new(start);
        let at = |now: u64| start + Duration::from_millis(now);
        (0..milliseconds / step).map(|n| degrade.level(at(n * step), pressure(n * step))).collect()
    }

    fn changes(levels: &[DegradeLevel]) -> usize {
        levels.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    #[test]
    fn the_level_rises_step_by_step_up_to_the_highest() {
        let levels = levels(10_000, 1, |_| 1.0);
        assert_eq!([0, 19, 20, 39, 40].map(|at| levels[at].0), [0, 0, 1, 1, 2]);
        assert_eq!((changes(&levels), levels.last()), (6, Some(&DegradeLevel(6))));
    }

    #[test]
    fn a_moment_without_pressure_after_a_long_overload_lowers_the_level_by_one() {
        let levels = levels(12_000, 10, |now| if now == 10_000 { 0.0 } else { 1.0 });
        assert_eq!([999, 1000, 1001, 1002, 1003].map(|at| levels[at].0), [6, 5, 5, 6, 6]);
    }

    #[test]
    fn between_the_thresholds_nothing_changes() {
        assert_eq!(changes(&levels(10_000, 5, |_| 0.45)), 0);
        let after_pressure = levels(10_000, 5, |now| if now < 50 { 1.0 } else { 0.3 });
        assert_eq!(changes(&after_pressure), 2);
    }

    #[test]
    fn a_pressure_that_swings_quickly_does_not_make_the_level_flap() {
        // The pressure crosses both thresholds every 10 ms: the level rises to the highest and leaves it for one probe a
        // second.
        let levels = levels(60_000, 10, |now| if now / 10 % 2 == 0 { 0.9 } else { 0.05 });
        assert!(changes(&levels) <= 6 + 2 * 60, "{}", changes(&levels));
    }

    #[test]
    fn when_the_pressure_is_gone_every_route_may_run_again() {
        let levels = levels(30_000, 10, |now| if now < 1000 { 1.0 } else { 0.0 });
        assert!(levels[100] != DegradeLevel::NONE && levels[1000] == DegradeLevel::NONE);
        // The level also falls if nobody asks for it meanwhile.
        let start = Instant::now();
        let mut degrade = Degrade::new(start);
        for step in 1..=5 {
            degrade.level(start + Duration::from_secs(step), 1.0);
        }
        assert_eq!(degrade.level(start + Duration::from_secs(60), 0.0), DegradeLevel::NONE);
    }
}
