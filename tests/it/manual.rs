//! The tables of `docs/` against the code: every flag, metric, request field and error is named there, and what is named exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use canet_api::Code;
use serde_json::Value;

use super::readme::{ROOT, fences, manual, read};
#[cfg(feature = "libtorch")]
use super::server::canet;
use super::server::{Process, Server, numbered};
use super::support::{draft, small_config};

/// Flags of other programs.
#[cfg(feature = "libtorch")]
const FOREIGN_FLAGS: [&str; 4] = ["--bench", "--model-control-mode", "--reuse-values", "--set"];

/// Pages of `docs/` and the README, by name.
fn texts() -> Vec<(String, String)> {
    let pages = manual().into_iter().chain(["README.md".to_owned()]);
    pages.map(|page| (read(&Path::new(ROOT).join(&page)), page)).map(|(text, page)| (page, text)).collect()
}

/// What is named in the text and begins with `prefix`: runs of `letters`, digits and lower-case letters.
fn names<'a>(text: &'a str, prefix: &str, letters: char) -> BTreeSet<&'a str> {
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == letters;
    let words = text.split(|c: char| !part(c));
    words.filter(|word| word.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(char::is_alphabetic))).collect()
}

/// The rows of all tables of a page, a list of cells each.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// What a cell has in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(feature = "libtorch")]
#[test]
fn every_flag_is_documented_and_every_documented_flag_exists() {
    let help = |arguments: &[&str]| String::from_utf8(canet(arguments).output().unwrap().stdout).unwrap();
    let listed = help(&["--help"]);
    let commands = listed.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let commands: Vec<&str> = commands.into_iter().filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(commands.len() >= 10, "{commands:?}");
    let mut flags = BTreeMap::new();
    for command in commands {
        let text = help(&[command, "--help"]);
        for line in text.lines().map(str::trim_start).filter(|line| line.starts_with("--")) {
            // A wrapped sentence may begin with a flag and a sign.
            let end = line.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-');
            let (flag, rest) = line.split_at(end.unwrap_or(line.len()));
            if rest.is_empty() || rest.starts_with([' ', '[']) {
                flags.entry(flag.to_owned()).or_insert(command);
            }
        }
    }
    assert!(flags.len() > 100, "{flags:?}");
    let pages = texts();
    let documented: BTreeSet<&str> = pages.iter().flat_map(|(_, text)| names(text, "--", '-')).collect();
    for (flag, command) in &flags {
        assert!(documented.contains(flag.as_str()), "no page of docs/ names {flag} of canet {command}");
    }
    for (page, text) in &pages {
        for name in names(text, "--", '-') {
            let known =
                flags.contains_key(name) || FOREIGN_FLAGS.contains(&name) || ["--help", "--version"].contains(&name);
            assert!(known, "{page} names {name}, which no command has");
        }
    }
}

/// The families of a scrape with the names of their labels.
fn families(scrape: &str) -> BTreeMap<String, BTreeSet<String>> {
    let types = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: Vec<(&str, &str)> = types.collect();
    let labels = |name: &str, kind: &str| {
        let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let line = scrape.lines().find_map(|line| line.strip_prefix(&sample)?.strip_prefix('{'));
        let labels = line.and_then(|line| line.split_once('}')).map_or("", |(labels, _)| labels);
        labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned()).collect()
    };
    types.into_iter().map(|(name, kind)| (name.to_owned(), labels(name, kind))).collect()
}

#[test]
fn every_metric_is_documented_with_its_labels() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("small");
    for seed in [1, 2] {
        numbered(draft(small_config(), seed)).write(&model).unwrap();
    }
    let catalogue = root.path().join("catalogue.csv");
    std::fs::write(&catalogue, "id,title\n101,A\n").unwrap();
    let flags = ["--version", "1", "--candidate", "2", "--catalogue", catalogue.to_str().unwrap()];
    let scrape = Process::serve(&model, &flags).client.get("/metrics").text;
    let exist = families(&scrape);

    let page = read(&Path::new(ROOT).join("docs/metrics.md"));
    let mut documented = BTreeMap::new();
    for row in rows(&page) {
        let names = quoted(row[0]).filter(|name| name.starts_with("canet_") || name.starts_with("process_"));
        for name in names {
            let labels: BTreeSet<String> = quoted(row[1]).map(str::to_owned).collect();
            assert!(documented.insert(name.to_owned(), labels).is_none(), "{name} is documented twice");
        }
    }
    assert_eq!(documented, exist);

    for (page, text) in texts() {
        for name in names(&text, "canet_", '_').into_iter().filter(|name| *name != "canet_grpc") {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let known = exist.contains_key(name) || family.is_some_and(|family| exist.contains_key(family));
            assert!(known || name.ends_with('_'), "{page} names {name}, which is no metric");
        }
    }
}

#[test]
fn every_error_stands_in_the_table_of_errors() {
    let page = read(&Path::new(ROOT).join("docs/api.md"));
    let documented: BTreeSet<(String, String, String)> = rows(&page)
        .filter(|row| row.len() == 5 && row[0].parse::<u16>().is_ok())
        .map(|row| (row[0].to_owned(), quoted(row[1]).collect(), row[2].to_owned()))
        .collect();
    let exist = Code::ALL.iter().map(|code| {
        let mapping = code.mapping();
        // `InvalidArgument` is written INVALID_ARGUMENT.
        let grpc = format!("{:?}", mapping.grpc);
        let words: String = grpc.chars().flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain([c])).collect();
        let grpc = words.trim_start_matches('_').to_uppercase();
        (mapping.status.as_u16().to_string(), mapping.name.to_owned(), grpc)
    });
    assert_eq!(documented, exist.collect());
}

#[test]
fn every_field_of_a_request_and_of_an_answer_is_documented() {
    let document = Server::start().client.get("/openapi.json").json();
    let fields = |schema: &str| -> Vec<String> {
        let properties = document.pointer(&format!("/components/schemas/{schema}/properties")).unwrap();
        properties.as_object().unwrap().keys().cloned().collect()
    };
    let page = read(&Path::new(ROOT).join("docs/api.md"));
    let named: BTreeSet<&str> = rows(&page).flat_map(|row| quoted(row[0]).collect::<Vec<_>>()).collect();
    for field in fields("RecommendRequest") {
        assert!(named.contains(field.as_str()), "docs/api.md has no row for the field `{field}` of a request");
    }
    let parts =
        [("items[].", "RankedItem"), ("route.", "RouteTaken"), ("compute.", "Compute"), ("history.", "HistoryUsed")];
    for (prefix, schema) in parts {
        for field in fields(schema).iter().filter(|field| *field != "item") {
            let name = format!("{prefix}{field}");
            assert!(named.contains(name.as_str()), "docs/api.md has no row for `{name}` of an answer");
        }
    }
    let endpoints = document["paths"].as_object().unwrap();
    for path in endpoints.keys().filter(|path| !path.starts_with("/v2") && !path.starts_with("/admin")) {
        assert!(page.contains(path.as_str()), "docs/api.md does not name {path}");
    }
}

#[test]
fn every_json_document_that_is_shown_is_json() {
    for (page, text) in texts() {
        for fence in fences(&text).iter().filter(|fence| fence.language == "json") {
            let shown = fence.code.replace(", ...]", "]");
            let read: Result<Value, _> = serde_json::from_str(&shown);
            assert!(read.is_ok(), "{page}: {read:?} in\n{shown}");
        }
    }
}
