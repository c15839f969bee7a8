use crate::Problem;
use crate::restriction::{read_filter, read_max_per};
use crate::wire::RecommendRequest;
use canet_catalogue::{FilterExpression, MaxPer};

/// A request's settings for all its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parameters {
    route: Option<String>,
    exclude_seen: Option<bool>,
    budget: Option<f64>,
    timeout_ms: Option<u64>,
    filter: Option<FilterExpression>,
    max_per: Option<MaxPer>,
}

/// A parameter's value over either transport.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Parameter {
    Bool(bool),
    Text(String),
    Number(f64),
}

impl Parameters {
    /// Sets a parameter. `None` is a value whose type no parameter has.
    ///
    /// # Errors
    /// 422 if the parameter is unknown or has another type.
    pub(super) fn set(&mut self, name: &str, value: Option<Parameter>) -> Result<(), Problem> {
        match (name, value) {
            ("route", Some(Parameter::Text(route))) => self.route = Some(route),
            ("exclude_seen", Some(Parameter::Bool(exclude))) => self.exclude_seen = Some(exclude),
            ("budget", Some(Parameter::Number(budget))) => self.budget = Some(budget),
            ("timeout_ms", Some(Parameter::Number(timeout))) if timeout >= 0.0 && timeout.fract() == 0.0 => {
                self.timeout_ms = Some(timeout as u64);
            }
            ("filter", Some(Parameter::Text(filter))) => self.filter = Some(read_filter("parameters.filter", &filter)?),
            ("max_per", Some(Parameter::Text(limits))) => {
                self.max_per = Some(read_max_per("parameters.max_per", &limits)?);
            }
            ("timeout", _) => {
                let detail = "`timeout` counts microseconds, and is unknown here: send `timeout_ms`, in milliseconds";
                return Err(Problem::invalid("parameters.timeout", detail.to_owned()));
            }
            _ => {
                let known = "`route` (string), `exclude_seen` (bool), `budget` and `timeout_ms` (numbers), `filter` and \
                             `max_per` (strings of JSON)";
                let detail = format!("parameter {name:?} is unknown or has a wrong value: use {known}");
                return Err(Problem::invalid(format!("parameters.{name}"), detail));
            }
        }
        Ok(())
    }

    /// Applies the settings to a row.
    pub(super) fn apply(&self, row: &mut RecommendRequest) {
        let Parameters { route, exclude_seen, budget, timeout_ms, filter, max_per } = self;
        if let Some(route) = route {
            row.route.clone_from(route);
        }
        row.exclude_seen = exclude_seen.or(row.exclude_seen);
        row.budget = budget.or(row.budget);
        row.timeout_ms = timeout_ms.unwrap_or(row.timeout_ms);
        row.filter.clone_from(filter);
        row.max_per.clone_from(max_per);
    }
}
