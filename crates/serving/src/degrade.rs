use std::time::{Duration, Instant};

use canet_domain::{Choice, Flops, Reason, Route, RouteSpace, choose_route, choose_route_among};
use canet_model::checkpoint::Calibration;

/// Shares of the queue limit: above the first the share falls, below the second it rises, between them it stays.
const HIGH_WATER: f64 = 0.5;
const LOW_WATER: f64 = 0.2;

/// The share falls by half at most this often: what was decided must show in the backlog first.
const FALL_EVERY: Duration = Duration::from_millis(20);

/// The share doubles at most this often: under a lasting overload so often does it probe whether that is over.
const RISE_EVERY: Duration = Duration::from_secs(1);

/// Halvings: 1/64 of the full model's cost is less than any sensible route takes.
const DEEPEST: u32 = 6;

/// Lets the router spend less under pressure instead of refusing rows.
///
/// Two thresholds and two paces keep it from flapping. Pure: the time is an argument.
#[derive(Clone, Copy, Debug)]
pub struct Degrade {
    halvings: u32,
    changed: Instant,
}

/// The share of what it would spend that the router may spend now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relief(f64);

/// How the router chooses under pressure.
#[derive(Clone, Debug, PartialEq)]
pub struct Eased {
    /// Added to its logits instead of its own bias, one value a route.
    bias: Option<Vec<f32>>,
    /// The largest cost that a route may have, as a share of the full model's for the same history.
    cap: f64,
}

impl Degrade {
    /// Without relief, as of `now`.
    pub fn new(now: Instant) -> Degrade {
        Degrade { halvings: 0, changed: now }
    }

    /// The relief at `now`, where the predicted backlog is `pressure` of the queue limit.
    pub fn relief(&mut self, now: Instant, pressure: f64) -> Relief {
        let since = now.saturating_duration_since(self.changed);
        if pressure > HIGH_WATER && since >= FALL_EVERY && self.halvings < DEEPEST {
            self.halvings += 1;
            self.changed = now;
        } else if pressure < LOW_WATER && since >= RISE_EVERY && self.halvings > 0 {
            // Where nobody asked for long, the time counts all the same.
            let steps = u32::try_from(since.as_secs() / RISE_EVERY.as_secs()).unwrap_or(DEEPEST);
            self.halvings = self.halvings.saturating_sub(steps);
            self.changed = now;
        }
        Relief(0.5_f64.powi(self.halvings.cast_signed()))
    }
}

impl Relief {
    /// The router chooses as it likes.
    pub const NONE: Relief = Relief(1.0);

    /// What it makes of a budget.
    ///
    /// With a calibration it goes down the calibration's own curve: it takes the bias of a smaller budget. Below the
    /// curve's lowest budget, and without one, the cost of routes is capped.
    pub fn ease(self, budget: f64, calibration: Option<&Calibration>) -> Eased {
        let curve = calibration.and_then(|curve| Some((curve, curve.points.first()?, curve.points.last()?)));
        match curve {
            Some((calibration, lowest, highest)) if self != Relief::NONE => {
                // Above the curve every budget is its highest.
                let lowered = budget.min(highest.budget) * self.0;
                Eased { bias: Some(calibration.bias(lowered)), cap: (lowered / lowest.budget).min(1.0) }
            }
            _ => Eased { bias: None, cap: self.0 },
        }
    }
}

impl Eased {
    /// The router's choice by `bias`, or a cheaper one where it is to spend less: the best by its logits and the eased
    /// bias among the routes within the cap that cost no more than its choice.
    ///
    /// The router's logits are what is known of this user: they rank the affordable routes as they rank all of them.
    /// The smallest route is always affordable.
    pub fn choose(
        &self,
        space: &RouteSpace,
        (logits, bias): (&[f32], &[f32]),
        cost: impl Fn(Route) -> Flops,
    ) -> (Choice, Reason) {
        let choice = choose_route(space, logits, bias);
        let (chosen, cap) = (cost(choice.route), (cost(space.full()) as f64 * self.cap) as Flops);
        if self.bias.is_none() && chosen <= cap {
            return (choice, Reason::Router);
        }
        let bias = self.bias.as_deref().unwrap_or(bias);
        let eased = choose_route_among(space, (logits, bias), |route| cost(route) <= chosen.min(cap));
        if eased.route == choice.route { (choice, Reason::Router) } else { (eased, Reason::Degraded) }
    }
}
