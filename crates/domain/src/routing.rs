use strum::{IntoStaticStr, VariantArray};

use crate::{Route, RouteSpace};

/// A route and the router's confidence in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The route with the highest logit + bias. The lower, cheaper route wins a tie.
    pub route: Route,
    /// Its probability, by softmax over logit + bias. It is NaN if a logit is NaN or plus infinity. Such a choice means
    /// nothing.
    pub confidence: f32,
}

/// The route with the highest logit + bias.
///
/// `logits` and `bias` have one value a route. The bias makes the router spend a budget; it is zero if a checkpoint has no
/// calibration. A missing value counts as minus infinity.
///
/// ```
/// use canet_domain::{RouteSpace, choose_route};
///
/// let space = RouteSpace::new(vec![32, 64, 96], vec![2], vec![32])?;
/// let choice = choose_route(&space, &[0.5, 2.0, 1.0], &[0.0, -1.8, 0.0]);
/// assert_eq!(space.name(choice.route), "h96-l2-e32");
/// assert!((choice.confidence - 0.486).abs() < 1e-3);
/// # Ok::<(), canet_domain::RouteSpaceError>(())
/// ```
pub fn choose_route(space: &RouteSpace, logits: &[f32], bias: &[f32]) -> Choice {
    choose_route_among(space, logits, bias, |_| true)
}

/// Like [`choose_route`], but among the `allowed` routes only, or the smallest route if none is allowed. The confidence is
/// still the probability among all routes.
pub fn choose_route_among(space: &RouteSpace, logits: &[f32], bias: &[f32], allowed: impl Fn(Route) -> bool) -> Choice {
    let biased = || space.routes().zip(logits.iter().zip(bias)).map(|(route, (logit, bias))| (route, logit + bias));
    let higher = |best: (Route, f32), candidate: (Route, f32)| if candidate.1 > best.1 { candidate } else { best };
    let lowest = (space.smallest(), f32::NEG_INFINITY);
    let (_, highest) = biased().fold(lowest, higher);
    let (route, best) = biased().filter(|(route, _)| allowed(*route)).fold(lowest, higher);
    let total: f32 = biased().map(|(_, logit)| (logit - highest).exp()).sum();
    Choice { route, confidence: (best - highest).exp() / total }
}

/// What decides the route of requests that name none.
#[derive(Clone, Debug, PartialEq)]
pub enum RoutePolicy {
    /// The router, with this bias on each route's logit.
    Router(Vec<f32>),
    /// This route, whatever the history. The router does not run.
    Fixed(Route),
}

impl RoutePolicy {
    /// The route of every request; `None` if the router chooses.
    pub fn fixed(&self) -> Option<Route> {
        match self {
            RoutePolicy::Router(_) => None,
            RoutePolicy::Fixed(route) => Some(*route),
        }
    }

    /// The bias on the router's logits; `None` if it does not run.
    pub fn bias(&self) -> Option<&[f32]> {
        match self {
            RoutePolicy::Router(bias) => Some(bias),
            RoutePolicy::Fixed(_) => None,
        }
    }
}

/// Why a request ran its route. Answers and metrics have the name in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The router chose it.
    Router,
    /// The router's choice was too expensive under the current load. This is its choice among the cheaper routes.
    Degraded,
    /// Every request under this budget runs it, because the router is not shown to gain there, or because the server was
    /// started with it.
    Fixed,
    /// The request named it.
    Override,
    /// Chance chose it, among all routes, so that routes are compared on comparable users.
    Explored,
    /// The request had no known item. Items were ranked by popularity, and no route ran.
    ColdStart,
}

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Reason] = Reason::VARIANTS;

    /// The reasons for which a route runs: all but a cold start.
    pub const ROUTED: [Reason; 5] =
        [Reason::Router, Reason::Degraded, Reason::Fixed, Reason::Override, Reason::Explored];

    /// The place among [`ROUTED`](Self::ROUTED); `None` for a cold start.
    pub fn routed_index(self) -> Option<usize> {
        match self {
            Reason::Router => Some(0),
            Reason::Degraded => Some(1),
            Reason::Fixed => Some(2),
            Reason::Override => Some(3),
            Reason::Explored => Some(4),
            Reason::ColdStart => None,
        }
    }

    /// The name in answers and metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> RouteSpace {
        RouteSpace::new(vec![1, 2, 3], vec![1], vec![1]).unwrap()
    }

    #[test]
    fn every_reason_with_a_route_has_its_place() {
        let places: Vec<Option<usize>> = Reason::ROUTED.map(Reason::routed_index).into();
        assert_eq!(places, (0..Reason::ROUTED.len()).map(Some).collect::<Vec<_>>());
        assert_eq!(Reason::ALL.iter().filter(|reason| reason.routed_index().is_none()).count(), 1);
    }

    #[test]
    fn the_lower_route_wins_a_tie() {
        let choice = choose_route(&space(), &[1.0, 2.0, 1.5], &[0.0, 0.0, 0.5]);
        assert_eq!(choice.route.index(), 1);
    }

    #[test]
    fn a_missing_logit_is_never_chosen() {
        assert_eq!(choose_route(&space(), &[-5.0], &[0.0; 3]), Choice { route: space().smallest(), confidence: 1.0 });
    }

    #[test]
    fn the_confidence_tells_logits_that_are_not_numbers() {
        for bad in [f32::NAN, f32::INFINITY] {
            for logits in [[bad, 1.0, 2.0], [1.0, bad, 2.0], [bad; 3]] {
                assert!(choose_route(&space(), &logits, &[0.0; 3]).confidence.is_nan(), "{logits:?}");
                let cheap = |route: Route| route.index() < 1;
                assert!(choose_route_among(&space(), &logits, &[0.0; 3], cheap).confidence.is_nan(), "{logits:?}");
            }
        }
        assert!(choose_route(&space(), &[f32::NEG_INFINITY; 3], &[0.0; 3]).confidence.is_nan());
    }

    #[test]
    fn a_choice_among_some_routes_keeps_the_probability_among_all() {
        let cheap = |route: Route| route.index() < 2;
        let choice = choose_route_among(&space(), &[0.0, 1.0, 2.0], &[0.0; 3], cheap);
        assert_eq!(choice.route.index(), 1);
        // e / (1 + e + e^2)
        assert!((choice.confidence - 0.244_73).abs() < 1e-5, "{}", choice.confidence);
        assert_eq!(choose_route_among(&space(), &[0.0, 1.0, 2.0], &[0.0; 3], |_| false).route, space().smallest());
    }
}
