use serde::{Deserialize, Serialize};

/// Router biases for budgets, found on validation data: how a budget of FLOPs becomes a choice of routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// At least one, budgets ascending.
    pub points: Vec<BudgetPoint>,
}

/// The bias that makes the router spend a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetPoint {
    /// Share of the full model's FLOPs that may be spent, above 0.
    pub budget: f64,
    /// What is added to the router's logits, one value a route.
    pub bias: Vec<f32>,
    /// Share of the full model's FLOPs that was spent on the validation data, the router included.
    pub spent: f64,
}

/// Why a calibration cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// No point.
    #[error("`calibration.points` is empty: leave `calibration` out instead")]
    Empty,
    /// A budget or a share that is no positive number.
    #[error("`calibration.points[{point}].{field}` is {value}: it must be above 0 and finite")]
    NotPositive {
        /// Place of the point.
        point: usize,
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// Budgets that do not ascend.
    #[error("`calibration.points[{point}].budget` is not above the one before it")]
    NotAscending {
        /// Place of the point.
        point: usize,
    },
    /// As many biases as routes are needed.
    #[error("`calibration.points[{point}].bias` has {found} values for {routes} routes")]
    Length {
        /// Place of the point.
        point: usize,
        /// Values given.
        found: usize,
        /// Routes of the configuration.
        routes: usize,
    },
    /// A bias that is not finite.
    #[error("`calibration.points[{point}].bias[{route}]` is not finite")]
    NotFinite {
        /// Place of the point.
        point: usize,
        /// Place in the bias.
        route: usize,
    },
}

impl Calibration {
    /// Checks the points for a model of `routes` routes.
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

    /// The bias for a budget, one value a route: linear between the points' budgets, that of the nearest point
    /// outside them.
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
