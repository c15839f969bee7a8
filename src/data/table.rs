use std::time::{Duration, UNIX_EPOCH};

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

/// A time in UTC as RFC 3339, to the second. Years outside 0 to 9999 become the nearest of these.
pub(super) fn moment(nanoseconds: i128) -> String {
    const FIRST: i128 = -62_167_219_200;
    const LAST: i128 = 253_402_300_799;
    /// Seconds of the 400 years after which the calendar repeats.
    const CYCLE: i64 = 146_097 * 86_400;
    let seconds = nanoseconds.div_euclid(1_000_000_000).clamp(FIRST, LAST) as i64;
    // `rfc3339` begins in 1970, so an earlier time is written as a later one of the same calendar.
    let cycles = if seconds < 0 { -seconds.div_euclid(CYCLE) } else { 0 };
    let text = rfc3339(UNIX_EPOCH + Duration::from_secs((seconds + cycles * CYCLE).unsigned_abs()));
    match (cycles, text[..4].parse::<i64>()) {
        (1.., Ok(year)) => format!("{:04}{}", year - 400 * cycles, &text[4..]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds are those of Python's `datetime`.
    #[test]
    fn times_before_1970_have_their_own_date() {
        for (seconds, expected) in [
            (-446_751_900, "1955-11-05T06:15:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (-11_670_955_200, "1600-02-29T12:00:00Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
            (-99_999_999_999, "0000-01-01T00:00:00Z"),
            (999_999_999_999, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(moment(seconds * 1_000_000_000), expected);
        }
        // Half a second before 1970.
        assert_eq!(moment(-500_000_000), "1969-12-31T23:59:59Z");
    }
}
