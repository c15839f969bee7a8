use super::answer::{Answer, Item};

/// The answer for the eye: a line an item, then what ran and what that cost.
pub(super) fn of(answer: &Answer<'_>) -> String {
    let mut lines = Vec::new();
    let ids: Vec<String> = answer.items.iter().map(|item| printable(&item.item)).collect();
    let width = ids.iter().map(|id| id.chars().count()).chain([4]).max().unwrap_or_default();
    if answer.items.is_empty() {
        lines.push("no item is left to recommend".to_owned());
    } else {
        lines.push(format!("{:>4}  {:<width$}  {:>9}  title", "rank", "item", "score"));
    }
    for ((rank, item), id) in (1..).zip(&answer.items).zip(&ids) {
        let title = item.title.as_deref().map(printable).unwrap_or_default();
        lines.push(format!("{rank:>4}  {id:<width$}  {:>9}  {title}", score(item)).trim_end().to_owned());
    }
    lines.push(String::new());
    lines.push(ran(answer));
    let model = &answer.model;
    lines.push(format!(
        "model {} version {}, {} items of the history read",
        printable(&model.name),
        model.version,
        answer.history.used
    ));
    if !answer.history.unknown.is_empty() {
        let unknown: Vec<String> = answer.history.unknown.iter().map(|id| printable(id)).collect();
        lines.push(format!("not in the model: {}", unknown.join(", ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Counts as they are, the model's scores with three decimals.
fn score(item: &Item<'_>) -> String {
    match (item.score.as_u64(), item.score.as_f64()) {
        (None, Some(score)) => format!("{score:.3}"),
        _ => item.score.to_string(),
    }
}

fn ran(answer: &Answer<'_>) -> String {
    let reason = printable(&answer.route.reason).replace('_', " ");
    let Some(name) = &answer.route.name else {
        return format!("no route ({reason}): ranked by popularity");
    };
    let confidence =
        answer.route.confidence.map(|share| format!(", confidence {:.1} %", share * 100.0)).unwrap_or_default();
    let compute = &answer.compute;
    let mega = |flops: u64| flops as f64 / 1e6;
    format!(
        "route {} ({reason}{confidence}): {:.3} of {:.3} MFLOPs, {:.1} % saved",
        printable(name),
        mega(compute.flops),
        mega(compute.full_flops),
        compute.saved * 100.0
    )
}

/// Without what would steer the terminal: the server's catalogue comes from a file of somebody's.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}
