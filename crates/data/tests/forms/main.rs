//! What each form of input gives: the columns and counts that were understood, or the error in its words.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

mod accepted;
mod directories;
mod headers;
mod json_lines;
mod quotes;
mod refused;
mod time_columns;
mod times;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use canet_data::{BadLinePolicy, Dataset, ReadOptions, TimeColumn};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data").join(name)
}

/// The log of `tests/fixtures/make_data.py`: 400 rows of user, item and seconds.
fn rows() -> Vec<[String; 3]> {
    let csv = fs::read_to_string(fixture("log.csv")).unwrap();
    csv.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()).collect()
}

/// A text of the log with this first line and one line a row.
fn text(header: &str, row: impl Fn(&str, &str, &str) -> String) -> Vec<u8> {
    let mut text = header.to_owned();
    for [user, item, time] in rows() {
        writeln!(text, "{}", row(&user, &item, &time)).unwrap();
    }
    text.into_bytes()
}

fn separated(header: &str, separator: &str) -> Vec<u8> {
    text(header, |user, item, time| [user, item, time].join(separator))
}

/// The log in the order of time, without times.
fn in_order(line: impl Fn(&str, &[String]) -> String) -> Vec<u8> {
    let mut rows = rows();
    rows.sort_by(|a, b| (&a[0], &a[2]).cmp(&(&b[0], &b[2])));
    let users = rows.chunk_by(|a, b| a[0] == b[0]);
    let items = |rows: &[[String; 3]]| rows.iter().map(|row| row[1].clone()).collect::<Vec<_>>();
    users.map(|rows| line(&rows[0][0], &items(rows))).collect::<String>().into_bytes()
}

fn options(flags: &[(&str, &str)]) -> ReadOptions {
    let mut options = ReadOptions::default();
    for (flag, value) in flags {
        let value = (*value).to_owned();
        match *flag {
            "columns" => options.columns = Some(value.split(',').map(str::to_owned).collect()),
            "user" => options.user_column = Some(value),
            "item" => options.item_column = Some(value),
            "time" if value == "none" => options.time_column = TimeColumn::FileOrder,
            "time" => options.time_column = TimeColumn::Named(value),
            "format" => options.time_format = Some(value.parse().unwrap()),
            "where" => options.conditions.push(value.parse().unwrap()),
            "min" => options.min_interactions = value.parse().unwrap(),
            _ => options.bad_lines = BadLinePolicy::Skip { max_share: value.parse().unwrap() },
        }
    }
    options
}

/// What was understood, or the error with FILE for the path.
fn outcome(path: &Path, options: &ReadOptions) -> String {
    let read = Dataset::read(path, options).and_then(|dataset| dataset.check_size().map(|()| dataset));
    match read {
        Err(error) => error.to_string().replace(&path.display().to_string(), "FILE"),
        Ok(dataset) => {
            let file = &dataset.files[0];
            let name = |name: &Option<String>| name.clone().unwrap_or("-".to_owned());
            let format = file.time_format.as_ref().map_or(String::new(), |format| format!(" by '{format}'"));
            let unit = file.time_unit.map_or(String::new(), |unit| format!(" in {unit}{format}"));
            format!(
                "{}: {} {} {}{unit}: {} users, {} items, {} interactions",
                file.form,
                name(&file.user),
                name(&file.item),
                name(&file.time),
                dataset.users.len(),
                dataset.ids.len(),
                dataset.interactions
            )
        }
    }
}

/// A file name, its bytes (`None`: a fixture), flags and the outcome.
type Case = (&'static str, Option<Vec<u8>>, &'static [(&'static str, &'static str)], &'static str);

fn compare(cases: Vec<Case>) {
    let folder = TempDir::new().unwrap();
    let mut wrong = String::new();
    for (name, bytes, flags, expected) in cases {
        let path = match bytes {
            None => fixture(name),
            Some(bytes) => {
                let path = folder.path().join(name);
                fs::write(&path, bytes).unwrap();
                path
            }
        };
        let found = outcome(&path, &options(flags));
        if found != expected {
            writeln!(wrong, "{name} {flags:?}\n  expected {expected}\n  found    {found}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
