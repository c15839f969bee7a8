use super::response::{Item, RecommendResponse};
use crate::printable::printable;

/// The response as text: one line per item, then the route and its cost.
pub(super) fn of(response: &RecommendResponse<'_>) -> String {
    let mut lines = Vec::new();
    let ids: Vec<String> = response.items.iter().map(|item| printable(&item.item)).collect();
    let width = ids.iter().map(|id| id.chars().count()).chain([4]).max().unwrap_or_default();
    if response.items.is_empty() {
        lines.push("no item is left to recommend".to_owned());
    } else {
        lines.push(format!("{:>4}  {:<width$}  {:>9}  title", "rank", "item", "score"));
    }
    for ((rank, item), id) in (1..).zip(&response.items).zip(&ids) {
        let title = item.title.as_deref().map(printable).unwrap_or_default();
        lines.push(format!("{rank:>4}  {id:<width$}  {:>9}  {title}", score(item)).trim_end().to_owned());
    }
    lines.push(String::new());
    lines.push(route_and_cost(response));
    let model = &response.model;
    lines.push(format!(
        "model {} version {}, {} items of the history read",
        printable(&model.name),
        model.version,
        response.history.used
    ));
    if !response.history.unknown.is_empty() {
        let unknown: Vec<String> = response.history.unknown.iter().map(|id| printable(id)).collect();
        lines.push(format!("not in the model: {}", unknown.join(", ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Counts unchanged, the model's scores with three decimals.
fn score(item: &Item<'_>) -> String {
    match (item.score.as_u64(), item.score.as_f64()) {
        (None, Some(score)) => format!("{score:.3}"),
        _ => item.score.to_string(),
    }
}

fn route_and_cost(response: &RecommendResponse<'_>) -> String {
    let reason = printable(&response.route.reason).replace('_', " ");
    let Some(name) = &response.route.name else {
        return format!("no route ({reason}): ranked by popularity");
    };
    let confidence =
        response.route.confidence.map(|share| format!(", confidence {:.1} %", share * 100.0)).unwrap_or_default();
    let compute = &response.compute;
    let mega = |flops: u64| flops as f64 / 1e6;
    format!(
        "route {} ({reason}{confidence}): {:.3} of {:.3} MFLOPs, {:.1} % saved",
        printable(name),
        mega(compute.flops),
        mega(compute.full_flops),
        compute.saved * 100.0
    )
}
