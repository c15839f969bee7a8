use std::time::{Duration, SystemTime, UNIX_EPOCH};

use canet_data::{Dataset, FileSummary};
use canet_model::checkpoint::rfc3339;

/// What was understood of the data, one label and value a line.
pub(crate) fn lines(dataset: &Dataset) -> impl Iterator<Item = String> + use<> {
    let mut lines = Vec::new();
    let mut line = |label: &str, value: String| lines.push(format!("{label:<12} {value}"));
    for group in dataset.files.chunk_by(alike) {
        let Some(first) = group.first() else { continue };
        let others = if group.len() > 1 { format!(" and {} more", group.len() - 1) } else { String::new() };
        line("file", format!("{}{others}", first.path.display()));
        line("form", first.form.clone());
        line("columns", columns(first));
        if !first.unused.is_empty() {
            line("unused", unused(first));
        }
        line("lines", read_lines(group));
    }
    line("time", dataset_time(dataset));
    line("users", dataset.users.len().to_string());
    line("items", dataset.ids.len().to_string());
    line("interactions", interactions(dataset));
    line("parsed", format!("sha256 {}", dataset.parsed_sha256));
    lines.into_iter()
}

/// Whether two files are of one form, as the parts of a directory are.
fn alike(a: &FileSummary, b: &FileSummary) -> bool {
    let kind = |file: &FileSummary| (file.form.clone(), columns(file));
    kind(a) == kind(b)
}

fn columns(file: &FileSummary) -> String {
    match (&file.user, &file.item, &file.time, file.time_unit) {
        (Some(user), Some(item), Some(time), Some(unit)) => {
            format!("user `{user}`, item `{item}`, time `{time}` ({unit})")
        }
        (Some(user), Some(item), ..) => format!("user `{user}`, item `{item}`, no time"),
        _ => "without names".to_owned(),
    }
}

/// The unused columns. One of them may say what kind of event a row is.
fn unused(file: &FileSummary) -> String {
    let names: Vec<String> = file.unused.iter().map(|name| format!("`{name}`")).collect();
    format!("{} (--where selects rows by their values)", names.join(", "))
}

fn read_lines(group: &[FileSummary]) -> String {
    let sum = |count: fn(&FileSummary) -> u64| group.iter().map(count).sum::<u64>();
    let mut text = sum(|file| file.lines).to_string();
    let bad = sum(|file| file.skipped);
    if bad > 0 {
        text += &format!(", {bad} bad ones skipped");
    }
    let unselected = sum(|file| file.unselected);
    if unselected > 0 {
        text += &format!(", {unselected} do not meet --where");
    }
    text
}

fn dataset_time(dataset: &Dataset) -> String {
    match dataset.span {
        None => "the order of the lines".to_owned(),
        Some(span) if !span.dates => "numbers that are no dates; their order counts".to_owned(),
        Some(span) => format!("{} to {}", moment(span.first), moment(span.last)),
    }
}

fn interactions(dataset: &Dataset) -> String {
    let repeats = match dataset.repeats() {
        0 => ", none repeats an item that its user had before".to_owned(),
        1 => ", 1 repeats an item that its user had before".to_owned(),
        repeats => format!(", {repeats} repeat an item that their user had before"),
    };
    let rare = match dataset.rare {
        0 => String::new(),
        rare => format!("; {rare} others dropped by --min-interactions"),
    };
    format!("{}{repeats}{rare}", dataset.interactions)
}

/// A time in UTC as RFC 3339, to the second.
pub(super) fn moment(nanoseconds: i128) -> String {
    /// The last second of the year 9999.
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(nanoseconds.max(0) / 1_000_000_000).unwrap_or(LAST).min(LAST);
    rfc3339(UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or_else(SystemTime::now))
}
