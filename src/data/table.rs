use canet_data::{Dataset, Duplicates, FileSummary, rfc3339};

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
    line("users", users(dataset));
    line("items", dataset.ids.len().to_string());
    line("interactions", interactions(dataset));
    line("example", example(dataset));
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
            let format = file.time_format.as_ref().map_or(String::new(), |format| format!(" by '{format}'"));
            format!("user `{user}`, item `{item}`, time `{time}` ({unit}{format})")
        }
        // No row was kept that would tell the unit.
        (Some(user), Some(item), Some(time), None) => format!("user `{user}`, item `{item}`, time `{time}`"),
        (Some(user), Some(item), None, _) => format!("user `{user}`, item `{item}`, no time"),
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

fn users(dataset: &Dataset) -> String {
    let (users, tested) = (dataset.users.len(), dataset.users_with(Dataset::TESTED));
    match users == tested {
        true => users.to_string(),
        false => format!("{users}, {tested} with the three interactions that a test needs"),
    }
}

/// The ids of an interaction, as they were understood.
fn example(dataset: &Dataset) -> String {
    let item = dataset.sequences.first().and_then(|items| items.first());
    match (dataset.users.first(), item.and_then(|item| dataset.ids.get(item.column() - 1))) {
        (Some(user), Some(item)) => format!("user `{user}`, item `{item}`"),
        _ => "none".to_owned(),
    }
}

fn interactions(dataset: &Dataset) -> String {
    let Duplicates { found, dropped } = dataset.duplicates;
    let repeats = match dataset.repeats() {
        0 => ", none repeats an item that its user had before".to_owned(),
        1 => ", 1 repeats an item that its user had before".to_owned(),
        repeats => format!(", {repeats} repeat an item that their user had before"),
    };
    let duplicates = match (found, dropped) {
        (0, _) => String::new(),
        (found, false) => format!(", {found} of them at the same time"),
        (found, true) => format!("; {found} others dropped by --drop-duplicates"),
    };
    let rare = match dataset.rare {
        0 => String::new(),
        rare => format!("; {rare} others dropped by --min-interactions"),
    };
    format!("{}{repeats}{duplicates}{rare}", dataset.interactions)
}

/// A time in UTC as RFC 3339, to the second.
pub(super) fn moment(nanoseconds: i128) -> String {
    rfc3339(nanoseconds - nanoseconds.rem_euclid(1_000_000_000))
}
