use canet_data::{Dataset, FileSummary};
use serde_json::{Value, json};

use super::table::moment;

/// What was understood of the data, as one JSON document.
pub(super) fn document(dataset: &Dataset) -> Result<String, serde_json::Error> {
    let files: Vec<Value> = dataset.files.iter().map(file).collect();
    let span = dataset.span.filter(|span| span.dates);
    let document = json!({
        "name": dataset.name,
        "files": files,
        "time": span.map(|span| json!({ "first": moment(span.first), "last": moment(span.last) })),
        "users": dataset.users.len(),
        "items": dataset.ids.len(),
        "interactions": dataset.interactions,
        "repeats": dataset.repeats(),
        "duplicates": dataset.duplicates.found,
        "duplicates_dropped": dataset.duplicates.dropped,
        "tested_users": dataset.users_with(Dataset::TESTED),
        "dropped_as_rare": dataset.rare,
        "titles": dataset.titles.len(),
        "bad_lines": dataset.skipped.count,
        "sha256": dataset.sha256,
        "parsed_sha256": dataset.parsed_sha256,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn file(file: &FileSummary) -> Value {
    json!({
        "path": file.path.display().to_string(),
        "form": file.form,
        "columns": { "user": file.user, "item": file.item, "time": file.time, "unused": file.unused },
        "time_unit": file.time_unit.map(|unit| unit.to_string()),
        "time_format": file.time_format,
        "lines": file.lines,
        "bad_lines": file.skipped,
        "not_selected": file.unselected,
    })
}
