//! README.md and every other page: the examples under a line `<!-- runs: TEXT -->` run as they are written, against the shipped
//! model, and print TEXT. The answer that the README shows is the server's. What a page links is there, and the commands
//! that it names exist.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::server::{Process, canet};
use super::support::python;

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Pages that were written by hand, besides those of `docs/`.
const PAGES: [&str; 8] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "deploy/README.md",
    "loadtest/README.md",
    "models/README.md",
    "models/experiments/README.md",
];

/// The page of the training, whose examples need data: another test runs them.
const QUICKSTART: &str = "docs/quickstart.md";

/// The pages of `docs/`, and of `docs/notes/`.
pub(crate) fn manual() -> Vec<String> {
    let mut pages = Vec::new();
    for directory in ["docs", "docs/notes"] {
        for entry in std::fs::read_dir(Path::new(ROOT).join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(format!("{directory}/{name}"));
            }
        }
    }
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// Every page.
fn pages() -> Vec<String> {
    let architecture = "src/ARCHITECTURE.md".to_owned();
    PAGES.map(str::to_owned).into_iter().chain([architecture]).chain(manual()).collect()
}

/// A fenced block of a page.
pub(crate) struct Fence<'a> {
    /// The words that it must print, if the line before it marks it to be run.
    pub(crate) prints: Option<&'a str>,
    pub(crate) language: &'a str,
    pub(crate) code: String,
}

pub(crate) fn fences(markdown: &str) -> Vec<Fence<'_>> {
    let (mut found, mut before, mut lines) = (Vec::new(), "", markdown.lines());
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let prints = before.strip_prefix("<!-- runs:").and_then(|rest| rest.strip_suffix("-->"));
            assert_eq!(before.starts_with("<!--"), prints.is_some(), "a mark that cannot be read: {before}");
            found.push(Fence { prints: prints.map(str::trim), language, code: code.join("\n") });
        }
        before = line;
    }
    found
}

fn serve() -> Process {
    Process::serve(&Path::new(ROOT).join("models/ml-100k"), &[])
}

/// The block as it is written, except for the addresses of the server and the place of the binary.
pub(crate) fn command(fence: &Fence<'_>, directory: &Path, server: Option<&Process>) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_canet"));
    let mut code = fence.code.replace("target/release/canet", env!("CARGO_BIN_EXE_canet"));
    if let Some(server) = server {
        for (port, address) in [(8080, server.client.address), (8081, server.grpc)] {
            for host in ["localhost", "127.0.0.1"] {
                code = code.replace(&format!("{host}:{port}"), &address.to_string());
            }
        }
        // A command that names no server asks the default one.
        if code.contains("canet recommend") && !code.contains("--url") {
            code = code.replace("recommend --", &format!("recommend --url http://{} --", server.client.address));
        }
    }
    let (program, flags) = match fence.language {
        "sh" => (Path::new("bash"), &["-euo", "pipefail", "-c"][..]),
        "python" => (python(), &["-c"][..]),
        other => panic!("no way to run {other:?}:\n{code}"),
    };
    let mut path: OsString = binary.parent().unwrap().into();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(flags).arg(code).current_dir(directory).env("PATH", path);
    command
}

/// Runs it. It must print what its mark says.
pub(crate) fn assert_prints(page: &str, fence: &Fence<'_>, mut command: Command) {
    let output = command.output().unwrap();
    let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let prints = fence.prints.unwrap();
    assert!(output.status.success() && out.contains(prints), "{page}: {}\nprinted\n{out}{error}", fence.code);
}

#[test]
fn marked_examples_run_as_they_are_written() {
    let server = serve();
    let mut ran = String::new();
    for page in pages().iter().filter(|page| *page != QUICKSTART) {
        let text = read(&Path::new(ROOT).join(page));
        for fence in fences(&text).iter().filter(|fence| fence.prints.is_some()) {
            assert_prints(page, fence, command(fence, Path::new(ROOT), Some(&server)));
            ran += &fence.code;
        }
    }
    for words in ["curl ", "import requests", "import grpc", "import tritonclient", "canet recommend "] {
        assert!(ran.contains(words), "no page has an example with {words}");
    }
}

/// Interactions of users who walk through a ring of items, so that there is something to learn.
#[cfg(feature = "libtorch")]
fn interactions() -> String {
    let mut lines = "user_id,item_id,timestamp,event\n".to_owned();
    for user in 0..60_usize {
        for step in 0..8 {
            let (item, time) = ((user * 7 + step * (1 + user % 2)) % 25, 1_700_000_000 + user * 1000 + step * 60);
            lines += &format!("user-{user},sku-{item},{time},purchase\n");
        }
    }
    lines
}

/// Variables such as `CANET_EPOCHS` shorten the training of the commands, which stay as they are written.
#[cfg(feature = "libtorch")]
#[test]
fn the_quickstart_leads_from_data_to_recommendations() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("interactions.csv"), interactions()).unwrap();
    let text = read(&Path::new(ROOT).join(QUICKSTART));
    let mut server = None;
    let mut ran = 0;
    for fence in fences(&text) {
        if fence.code == "canet serve --model models/mine" {
            server = Some(Process::serve(&directory.path().join("models/mine"), &[]));
        }
        if fence.prints.is_some() {
            let mut command = command(&fence, directory.path(), server.as_ref());
            command.envs([("CANET_EPOCHS", "1"), ("CANET_SETTLE_EPOCHS", "1"), ("CANET_THREADS", "1")]);
            assert_prints(QUICKSTART, &fence, command);
            ran += 1;
        }
    }
    assert!(server.is_some() && ran > 6);
    let ranked = read(&directory.path().join("top10.jsonl"));
    assert_eq!(ranked.lines().count(), 60);
    assert!(directory.path().join("report/report.html").exists());
}

#[test]
fn the_answer_that_it_shows_is_the_servers() {
    let readme = read(&Path::new(ROOT).join("README.md"));
    let fences = fences(&readme);
    let shown = fences.iter().find(|fence| fence.language == "json").unwrap();
    let shown: Value = serde_json::from_str(&shown.code.replace(", ...]", "]")).unwrap();
    let asked = fences.iter().find(|fence| fence.code.starts_with("curl ") && fence.prints.is_some()).unwrap();
    let body: Value = serde_json::from_str(asked.code.split('\'').nth(3).unwrap()).unwrap();
    let answer = serve().client.recommend(&body).json();
    for part in ["route", "compute", "model", "history"] {
        assert_eq!(shown[part], answer[part]);
    }
    let [shown_best, best] = [&shown, &answer].map(|answer| &answer["items"][0]);
    assert_eq!(shown_best["item"], best["item"]);
    let [shown_score, score] = [shown_best, best].map(|item| item["score"].as_f64().unwrap());
    assert!((shown_score - score).abs() < 1e-3, "{shown_score} and {score}");
    // An example of a budget must show what the budget is for.
    assert!(shown["compute"]["saved"].as_f64().unwrap() > 0.5);
}

#[test]
fn a_mark_and_its_block_are_found() {
    let text = "```sh\na\n```\n<!-- runs: 288 -->\n```python\nb\n\nc\n```\n\n```\nd\n```\n";
    let found: Vec<_> = fences(text).into_iter().map(|fence| (fence.prints, fence.language, fence.code)).collect();
    let expected = [(None, "sh", "a"), (Some("288"), "python", "b\n\nc"), (None, "", "d")];
    assert_eq!(found, expected.map(|(prints, language, code)| (prints, language, code.to_owned())));
}

/// GitHub's name for a place: the heading in small letters, without signs, its spaces as dashes.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

pub(crate) fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

#[test]
fn every_picture_page_and_heading_that_is_linked_is_there() {
    let mut seen = 0;
    for page in pages() {
        let path = Path::new(ROOT).join(&page);
        let text = read(&path);
        let starts = ["](", "src=\"", "srcset=\""];
        let targets = starts.iter().flat_map(|start| text.split(start).skip(1));
        let targets = targets.filter_map(|rest| rest.split([')', '"']).next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            seen += 1;
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(linked.exists(), "{page} links {target}, which is not there");
            if !place.is_empty() {
                let text = read(&linked);
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let there = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == place);
                assert!(there, "{page} links {target}, a heading that is not there");
            }
        }
    }
    assert!(seen > 20);
}

#[test]
fn no_page_is_longer_than_one_reading() {
    for page in manual() {
        let words = read(&Path::new(ROOT).join(&page)).split_whitespace().count();
        assert!(words <= 2500, "{page} has {words} words: split it");
    }
    let lines = read(&Path::new(ROOT).join("README.md")).lines().count();
    assert!(lines <= 250, "README.md has {lines} lines");
}

#[test]
fn every_command_that_is_named_exists() {
    let help = canet(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for page in pages() {
        let text = read(&Path::new(ROOT).join(&page));
        let in_fences = fences(&text).into_iter().filter(|fence| fence.language == "sh").map(|fence| fence.code);
        let lines: Vec<String> =
            in_fences.flat_map(|code| code.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let bare = lines.iter().filter_map(|line| line.strip_prefix("canet "));
        for rest in text.split("release/canet ").skip(1).chain(bare) {
            let name = rest.split_whitespace().next().unwrap();
            let named = help.lines().any(|line| line.split_whitespace().next() == Some(name));
            assert!(named, "{page}: there is no canet {name}");
        }
    }
}
