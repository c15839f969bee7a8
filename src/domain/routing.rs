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
    let biased = || space.routes().zip(logits.iter().zip(bias)).map(|(route, (logit, bias))| (route, logit + bias));
    let (route, highest) =
        biased().fold(
            (space.smallest(), f32::NEG_INFINITY),
            |best, candidate| {
                if candidate.1 > best.1 { candidate } else { best }
            },
        );
    let total: f32 = biased().map(|(_, logit)| (logit - highest).exp()).sum();
    Choice { route, confidence: 1.0 / total }
}

/// Why a request ran the route it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The router chose it.
    Router,
    /// The request named it.
    Override,
    /// There was no known item to read: ranked by popularity, no route ran.
    ColdStart,
}

impl Reason {
    /// The name that answers and metrics carry.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Router => "router",
            Reason::Override => "override",
            Reason::ColdStart => "cold_start",
        }
    }
}
