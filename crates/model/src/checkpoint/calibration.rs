use serde::{Deserialize, Serialize};

/// Router biases by budget, fitted on validation data. A bias makes the router spend its budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// At least one point. Budgets ascend.
    pub points: Vec<BudgetPoint>,
}

/// A budget and its bias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetPoint {
    /// Share of the full model's FLOPs to spend, above 0.
    pub budget: f64,
    /// The value added to each route's logit.
    pub bias: Vec<f32>,
    /// Share of the full model's FLOPs spent on the validation data, including the router.
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
    /// A bias is not finite.
    #[error("`calibration.points[{point}].bias[{route}]` is not finite")]
    NotFinite {
        /// Index of the point.
        point: usize,
        /// Index of the route.
        route: usize,
    },
}

impl Calibration {
    /// Checks the points against a model of `routes` routes.
    ///
    /// # Errors
    /// [`CalibrationError`] that names the field.
    pub fn check(&self, routes: usize) -> Result<(), CalibrationError> {
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
            if let Some(route) = values.bias.iter().position(|bias| !bias.is_finite()) {
                return Err(CalibrationError::NotFinite { point, route });
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

    /// The bias of a budget, one value a route. It is interpolated linearly between points; outside them the nearest point
    /// applies.
    pub fn bias(&self, budget: f64) -> Vec<f32> {
        let above = self.points.partition_point(|point| point.budget <= budget);
        let (Some(low), high) = (self.points.get(above.saturating_sub(1)), self.points.get(above)) else {
            return Vec::new();
        };
        let high = high.unwrap_or(low);
        let span = high.budget - low.budget;
        let weight = if span > 0.0 { ((budget - low.budget) / span).clamp(0.0, 1.0) as f32 } else { 0.0 };
        low.bias.iter().zip(&high.bias).map(|(low, high)| low + weight * (high - low)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{BudgetPoint, Calibration};

    #[test]
    fn budgets_end_where_the_router_spends_no_more() {
        let reachable = |spent: &[f64]| {
            let points = spent.iter().zip(1..).map(|(spent, tenths)| BudgetPoint {
                budget: f64::from(tenths) / 10.0,
                bias: Vec::new(),
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
        let point = |budget, bias: [f32; 2]| BudgetPoint { budget, bias: bias.to_vec(), spent: budget };
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
}
