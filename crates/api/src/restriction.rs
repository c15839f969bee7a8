use std::sync::Arc;

use super::Problem;
use canet_catalogue::{FilterExpression, MaxPer, Restriction, UnknownName};
use canet_serving::CatalogueView;

/// What a request's filter and quotas, and the catalogue file, allow in its answer. `None` if they allow every item.
///
/// # Errors
/// 422 if the server has no catalogue file, or if the file lacks a key or a value that the request names.
pub(crate) fn restriction(
    filter: Option<&FilterExpression>,
    max_per: Option<&MaxPer>,
    view: Option<&Arc<CatalogueView>>,
) -> Result<Option<Restriction>, Problem> {
    if let Some(view) = view {
        let restriction = Restriction::new(&view.index, filter, max_per);
        return restriction.map_err(|UnknownName { field, detail }| Problem::invalid(field, detail));
    }
    let named = if keeps_fewer(filter) {
        "filter"
    } else if has_quotas(max_per) {
        "max_per"
    } else {
        return Ok(None);
    };
    let detail =
        format!("`{named}` needs a catalogue file, which this server does not have: start it with --catalogue");
    Err(Problem::invalid(named, detail))
}

/// Whether a filter may leave out items. An empty one keeps every item.
pub(crate) fn keeps_fewer(filter: Option<&FilterExpression>) -> bool {
    filter.is_some_and(|filter| !filter.is_empty())
}

/// Whether quotas limit anything. Empty ones do not.
pub(crate) fn has_quotas(max_per: Option<&MaxPer>) -> bool {
    max_per.is_some_and(|max_per| !max_per.is_empty())
}

/// Reads a filter that is the text of a message or of a parameter. `field` names it.
///
/// # Errors
/// 422 if it is not a filter in JSON.
pub(crate) fn read_filter(field: &'static str, json: &str) -> Result<FilterExpression, Problem> {
    super::exact::from_slice(json.as_bytes())
        .map_err(|error| Problem::invalid(field, format!("`filter` is not a filter in JSON: {error}")))
}

/// Reads quotas likewise.
///
/// # Errors
/// 422 if they are not an object of numbers in JSON.
pub(crate) fn read_max_per(field: &'static str, json: &str) -> Result<MaxPer, Problem> {
    serde_json::from_str(json)
        .map_err(|error| Problem::invalid(field, format!("`max_per` is not an object of numbers in JSON: {error}")))
}
