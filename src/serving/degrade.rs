use std::time::{Duration, Instant};

use crate::domain::{Choice, Flops, Reason, Route, RouteSpace, choose_route, choose_route_among};

/// Shares of the queue limit: above the first the cap falls, below the second it rises, between them it stays.
const HIGH_WATER: f64 = 0.5;
const LOW_WATER: f64 = 0.2;

/// The cap falls by half at most this often: what was decided must show in the backlog first.
const FALL_EVERY: Duration = Duration::from_millis(20);

/// The cap doubles at most this often: under a lasting overload so often does it probe whether that is over.
const RISE_EVERY: Duration = Duration::from_secs(1);

/// Halvings of the cap: 1/64 of the full model's cost is less than any sensible route takes.
const DEEPEST: u32 = 6;

/// Caps the cost of routes under pressure instead of refusing rows.
///
/// Two thresholds and two paces keep it from flapping. Pure: the time is an argument.
#[derive(Clone, Copy, Debug)]
pub struct Degrade {
    halvings: u32,
    changed: Instant,
}

/// The largest cost that a route may have, as a share of the full model's for the same history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cap(f64);

impl Degrade {
    /// Without a cap, as of `now`.
    pub fn new(now: Instant) -> Degrade {
        Degrade { halvings: 0, changed: now }
    }

    /// The cap at `now`, where the predicted backlog is `pressure` of the queue limit.
    pub fn cap(&mut self, now: Instant, pressure: f64) -> Cap {
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
        Cap(0.5_f64.powi(self.halvings.cast_signed()))
    }
}

impl Cap {
    /// Every route may run.
    pub const NONE: Cap = Cap(1.0);

    /// The router's choice, or where that costs too much, the best affordable route by the router's own measure.
    ///
    /// The router's logits are what is known of this user: they rank the affordable routes as they rank all of them.
    /// The smallest route is always affordable.
    pub fn choose(
        self,
        space: &RouteSpace,
        (logits, bias): (&[f32], &[f32]),
        cost: impl Fn(Route) -> Flops,
    ) -> (Choice, Reason) {
        let most = (cost(space.full()) as f64 * self.0) as Flops;
        let choice = choose_route(space, logits, bias);
        if cost(choice.route) <= most || choice.route == space.smallest() {
            return (choice, Reason::Router);
        }
        (choose_route_among(space, (logits, bias), |route| cost(route) <= most), Reason::Degraded)
    }
}
