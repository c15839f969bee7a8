use super::{Route, RouteSpace};

/// A route chosen from router logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The route with the highest logit + bias; ties go to the lower (cheaper) route.
    pub route: Route,
    /// Its probability: softmax over logit + bias.
    pub confidence: f32,
}

/// Serving's choice: the argmax of logits + the budget's bias, one of each a route.
///
/// Sampling is for training only. `bias` is zero where a checkpoint brings no calibration. Missing entries
/// count as minus infinity, so that a short row can never choose a route that is not there.
pub fn choose_route(space: &RouteSpace, logits: &[f32], bias: &[f32]) -> Choice {
    choose_route_among(space, (logits, bias), |_| true)
}

/// As [`choose_route`], among the `allowed` routes alone; the smallest where none is. The confidence is still the
/// probability among all routes.
pub fn choose_route_among(
    space: &RouteSpace,
    (logits, bias): (&[f32], &[f32]),
    allowed: impl Fn(Route) -> bool,
) -> Choice {
    let biased = || space.routes().zip(logits.iter().zip(bias)).map(|(route, (logit, bias))| (route, logit + bias));
    let higher = |best: (Route, f32), candidate: (Route, f32)| if candidate.1 > best.1 { candidate } else { best };
    let lowest = (space.smallest(), f32::NEG_INFINITY);
    let (_, highest) = biased().fold(lowest, higher);
    let (route, best) = biased().filter(|(route, _)| allowed(*route)).fold(lowest, higher);
    let total: f32 = biased().map(|(_, logit)| (logit - highest).exp()).sum();
    Choice { route, confidence: (best - highest).exp() / total }
}

/// Why a request ran the route it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The router chose it.
    Router,
    /// The router chose a route that costs too much under the present load; it chose this one among the others.
    Degraded,
    /// The request named it.
    Override,
    /// There was no known item to read: ranked by popularity, no route ran.
    ColdStart,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 4] = [Reason::Router, Reason::Degraded, Reason::Override, Reason::ColdStart];

    /// The name that answers and metrics carry.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Router => "router",
            Reason::Degraded => "degraded",
            Reason::Override => "override",
            Reason::ColdStart => "cold_start",
        }
    }
}
