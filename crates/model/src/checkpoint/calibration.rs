use canet_domain::{Route, RoutePolicy, RouteSpace};
use serde::{Deserialize, Serialize};

/// The largest bias. Differences of two, and sums with a logit, are finite.
const MAX_BIAS: f32 = 1e30;

/// What decides routes by budget, fitted on validation data: the router with a bias that makes it spend the budget, or
/// one route where the router is not shown to gain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// At least one point. Budgets ascend.
    pub points: Vec<BudgetPoint>,
}

/// A budget and what decides routes under it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetPoint {
    /// Share of the full model's FLOPs to spend, above 0.
    pub budget: f64,
    /// The value added to each route's logit.
    pub bias: Vec<f32>,
    /// The name of the route that every request runs under this budget, without the router; absent if the router decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Share of the full model's FLOPs spent on the validation data, including the router if it decides.
    pub spent: f64,
}

/// Why a calibration is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// There are no points.
    #[error("`calibration.points` is empty: leave `calibration` out instead")]
    Empty,
    /// A budget or a share is not a positive number.
    #[error("`calibration.points[{point}].{field}` is {value}: it must be above 0 and finite")]
    NotPositive {
        /// Index of the point.
        point: usize,
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// The budgets do not ascend.
    #[error("`calibration.points[{point}].budget` is not above the one before it")]
    NotAscending {
        /// Index of the point.
        point: usize,
    },
    /// The number of biases is not the number of routes.
    #[error("`calibration.points[{point}].bias` has {found} values for {routes} routes")]
    Length {
        /// Index of the point.
        point: usize,
        /// Number of biases.
        found: usize,
        /// Number of routes.
        routes: usize,
    },
    /// A route is not one of the model's.
    #[error("`calibration.points[{point}].route` is {name:?}, which is no route of this model")]
    NoRoute {
        /// Index of the point.
        point: usize,
        /// The name.
        name: String,
    },
    /// A bias is not finite, or so large that sums with it may not be.
    #[error("`calibration.points[{point}].bias[{route}]` is not finite or beyond ±1e30")]
    NotFinite {
        /// Index of the point.
        point: usize,
        /// Index of the route.
        route: usize,
    },
}

impl BudgetPoint {
    /// The route that every request under this budget runs; `None` if the router decides.
    pub fn fixed_route(&self, space: &RouteSpace) -> Option<Route> {
        self.route.as_ref().and_then(|name| space.parse(name))
    }
}

impl Calibration {
    /// Checks the points against a model's routes.
    ///
    /// # Errors
    /// [`CalibrationError`] that names the field.
    pub fn check(&self, space: &RouteSpace) -> Result<(), CalibrationError> {
        let routes = space.len();
        if self.points.is_empty() {
            return Err(CalibrationError::Empty);
        }
        for (point, values) in self.points.iter().enumerate() {
            for (field, value) in [("budget", values.budget), ("spent", values.spent)] {
                if !(value.is_finite() && value > 0.0) {
                    return Err(CalibrationError::NotPositive { point, field, value });
                }
            }
            if values.bias.len() != routes {
                return Err(CalibrationError::Length { point, found: values.bias.len(), routes });
            }
            // Sums of such values and logits are finite.
            let is_usable = |bias: &f32| bias.abs() <= MAX_BIAS;
            if let Some(route) = values.bias.iter().position(|bias| !is_usable(bias)) {
                return Err(CalibrationError::NotFinite { point, route });
            }
            if let Some(name) = values.route.as_ref().filter(|name| space.parse(name).is_none()) {
                return Err(CalibrationError::NoRoute { point, name: name.clone() });
            }
        }
        let descent = self.points.windows(2).position(|pair| pair[0].budget >= pair[1].budget);
        descent.map_or(Ok(()), |place| Err(CalibrationError::NotAscending { point: place + 1 }))
    }

    /// The points up to the first one that spends as much as any. Above its budget the router spends no more.
    pub fn reachable(&self) -> &[BudgetPoint] {
        // Two shares closer than this differ by rounding.
        const ROUNDING: f64 = 1e-9;
        let most = self.points.iter().map(|point| point.spent).fold(0.0, f64::max);
        let last = self.points.iter().position(|point| point.spent >= most - ROUNDING);
        &self.points[..last.map_or(self.points.len(), |last| last + 1)]
    }

    /// What decides routes under a budget.
    ///
    /// Where the [fixed route](Self::fixed_route) is none, the router decides with the budget's [bias](Self::bias), of zeros
    /// without points.
    pub fn policy(&self, space: &RouteSpace, budget: f64) -> RoutePolicy {
        match self.fixed_route(space, budget) {
            Some(route) => RoutePolicy::Fixed(route),
            None if self.points.is_empty() => RoutePolicy::Router(vec![0.0; space.len()]),
            None => RoutePolicy::Router(self.bias(budget)),
        }
    }

    /// The route that every request under a budget runs; `None` if the router decides. It is that of the point of the same or
    /// the next smaller budget, which costs less than the point above. Below all points the first one applies.
    pub fn fixed_route(&self, space: &RouteSpace, budget: f64) -> Option<Route> {
        self.around(budget)?.0.fixed_route(space)
    }

    /// The last point up to a budget and the first above it. They are one point outside the points; `None` if there are none.
    fn around(&self, budget: f64) -> Option<(&BudgetPoint, &BudgetPoint)> {
        let above = self.points.partition_point(|point| point.budget <= budget);
        let low = self.points.get(above.saturating_sub(1))?;
        Some((low, self.points.get(above).unwrap_or(low)))
    }

    /// The router's bias for a budget, one value a route, also where the router does not decide; empty without points. It is
    /// interpolated linearly between points; outside them the nearest point applies. Below a point with a fixed route the
    /// smaller budget's bias stays, because the router was not shown to be worth more.
    pub fn bias(&self, budget: f64) -> Vec<f32> {
        let Some((low, high)) = self.around(budget) else { return Vec::new() };
        if low.route.is_none() && high.route.is_some() {
            return low.bias.clone();
        }
        let span = high.budget - low.budget;
        let weight = if span > 0.0 { ((budget - low.budget) / span).clamp(0.0, 1.0) as f32 } else { 0.0 };
        low.bias.iter().zip(&high.bias).map(|(low, high)| low + weight * (high - low)).collect()
    }
}

#[cfg(test)]
mod tests {
    use canet_domain::{RoutePolicy, RouteSpace};

    use super::{BudgetPoint, Calibration};

    #[test]
    fn budgets_end_where_the_router_spends_no_more() {
        let reachable = |spent: &[f64]| {
            let points = spent.iter().zip(1..).map(|(spent, tenths)| BudgetPoint {
                budget: f64::from(tenths) / 10.0,
                bias: Vec::new(),
                route: None,
                spent: *spent,
            });
            Calibration { points: points.collect() }.reachable().len()
        };
        assert_eq!(reachable(&[0.1, 0.19, 0.28, 0.28, 0.28 - 1e-12]), 3);
        assert_eq!(reachable(&[0.1, 0.2, 0.3]), 3);
        assert_eq!(reachable(&[0.1, 0.1]), 1);
        assert_eq!(reachable(&[]), 0);
    }

    #[test]
    fn a_bias_is_linear_between_budgets_and_constant_outside() {
        let point = |budget, bias: [f32; 2]| BudgetPoint { budget, bias: bias.to_vec(), route: None, spent: budget };
        let calibration =
            Calibration { points: vec![point(0.2, [4.0, -4.0]), point(0.4, [2.0, 0.0]), point(1.0, [0.0, 3.0])] };
        for (budget, expected) in [
            (0.0, [4.0, -4.0]),
            (0.2, [4.0, -4.0]),
            (0.25, [3.5, -3.0]),
            (0.4, [2.0, 0.0]),
            (0.6, [4.0 / 3.0, 1.0]),
            (1.0, [0.0, 3.0]),
            (7.0, [0.0, 3.0]),
        ] {
            let found = calibration.bias(budget);
            let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
            assert!(found.len() == 2 && close, "{budget}: {found:?}");
        }
    }

    #[test]
    fn between_points_of_different_kind_the_cheaper_one_holds() {
        let space = RouteSpace::new(vec![4, 8], vec![1], vec![4]).unwrap();
        let point = |budget, bias: f32, route: Option<&str>| BudgetPoint {
            budget,
            bias: vec![bias; 2],
            route: route.map(str::to_owned),
            spent: budget,
        };
        let [small, large] = ["h4-l1-e4", "h8-l1-e4"].map(|name| RoutePolicy::Fixed(space.parse(name).unwrap()));
        let router = |bias: f32| RoutePolicy::Router(vec![bias; 2]);
        let calibration = Calibration {
            points: vec![
                point(0.2, 9.0, Some("h4-l1-e4")),
                point(0.4, 4.0, None),
                point(0.6, 2.0, None),
                point(0.8, 1.0, Some("h8-l1-e4")),
            ],
        };
        calibration.check(&space).unwrap();
        for (budget, expected) in [
            (0.1, &small),
            (0.3, &small),
            (0.4, &router(4.0)),
            (0.5, &router(3.0)),
            (0.7, &router(2.0)),
            (0.8, &large),
            (3.0, &large),
        ] {
            assert_eq!(calibration.policy(&space, budget), *expected, "{budget}");
            assert_eq!(calibration.fixed_route(&space, budget), expected.fixed(), "{budget}");
            // A server adds this bias, and `policy` is what evaluation measures.
            if let RoutePolicy::Router(bias) = expected {
                assert_eq!(calibration.bias(budget), *bias, "{budget}");
            }
        }
        let unknown = Calibration { points: vec![point(0.2, 0.0, Some("h5-l1-e4"))] };
        let message = unknown.check(&space).unwrap_err().to_string();
        assert_eq!(message, r#"`calibration.points[0].route` is "h5-l1-e4", which is no route of this model"#);
    }
}
