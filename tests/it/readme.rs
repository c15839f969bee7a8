//! README.md: the examples under a line `<!-- runs: TEXT -->` run as they are written, against the shipped model, and
//! print TEXT; the answer that it shows is the server's. Of every page, what it links is there, and the commands that it
//! names exist.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::server::{Process, canet};
use super::support::python;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const PAGES: [&str; 16] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "deploy/README.md",
    "docs/data.md",
    "docs/live-accuracy.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/serving.md",
    "docs/sizing.md",
    "docs/training.md",
    "loadtest/README.md",
    "models/README.md",
    "models/experiments/README.md",
    "models/experiments/rezero/README.md",
    "src/ARCHITECTURE.md",
];

/// A fenced block of the README.
struct Fence<'a> {
    /// The line before it, where one marks it to be run: the words that it must print.
    prints: Option<&'a str>,
    language: &'a str,
    code: String,
}

fn fences(markdown: &str) -> Vec<Fence<'_>> {
    let (mut found, mut before, mut lines) = (Vec::new(), "", markdown.lines());
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let prints = before.strip_prefix("<!-- runs: ").and_then(|rest| rest.strip_suffix(" -->"));
            assert_eq!(before.contains("runs"), prints.is_some(), "a mark that cannot be read: {before}");
            found.push(Fence { prints, language, code: code.join("\n") });
        }
        before = line;
    }
    found
}

fn serve() -> Process {
    Process::serve(&Path::new(ROOT).join("models/ml-100k"), &[])
}

/// The block as it is written, but for where the server and the binary are.
fn command(fence: &Fence<'_>, server: &Process) -> Command {
    let mut code = fence.code.replace("target/release/canet", env!("CARGO_BIN_EXE_canet"));
    for (port, address) in [(8080, server.client.address), (8081, server.grpc)] {
        for host in ["localhost", "127.0.0.1"] {
            code = code.replace(&format!("{host}:{port}"), &address.to_string());
        }
    }
    let (program, flags) = match fence.language {
        "sh" => (Path::new("bash"), &["-euo", "pipefail", "-c"][..]),
        "python" => (python(), &["-c"][..]),
        other => panic!("no way to run {other:?}:\n{code}"),
    };
    let mut command = Command::new(program);
    command.args(flags).arg(code).current_dir(ROOT);
    command
}

#[test]
fn marked_examples_run_as_they_are_written() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let marked: Vec<Fence<'_>> = fences(&readme).into_iter().filter(|fence| fence.prints.is_some()).collect();
    let with = |words: &str| marked.iter().any(|fence| fence.code.contains(words));
    assert!(with("curl ") && with("import requests") && with("canet recommend "));
    let server = serve();
    for fence in &marked {
        let output = command(fence, &server).output().unwrap();
        let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let prints = fence.prints.unwrap();
        assert!(output.status.success() && out.contains(prints), "{}\nprinted\n{out}{error}", fence.code);
    }
}

#[test]
fn the_answer_that_it_shows_is_the_servers() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let shown = fences(&readme).into_iter().find(|fence| fence.language == "json").unwrap();
    let shown: Value = serde_json::from_str(&shown.code.replace(", ...]", "]")).unwrap();
    let answer = serve().client.recommend(&json!({"history": ["50", "181", "258"], "k": 5})).json();
    for part in ["compute", "model", "history"] {
        assert_eq!(shown[part], answer[part]);
    }
    assert_eq!(
        (&shown["route"]["name"], &shown["route"]["reason"]),
        (&answer["route"]["name"], &answer["route"]["reason"])
    );
    assert_eq!(shown["items"][0]["item"], answer["items"][0]["item"]);
    for number in ["/route/confidence", "/items/0/score"] {
        let [shown, answer] = [&shown, &answer].map(|value| value.pointer(number).unwrap().as_f64().unwrap());
        assert!((shown - answer).abs() < 1e-3, "{number}: {shown} and {answer}");
    }
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

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

#[test]
fn every_picture_page_and_heading_that_is_linked_is_there() {
    let mut seen = 0;
    for page in PAGES {
        let path = Path::new(ROOT).join(page);
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
fn every_command_that_is_named_exists() {
    let help = canet(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for page in PAGES {
        for rest in read(&Path::new(ROOT).join(page)).split("release/canet ").skip(1) {
            let name = rest.split_whitespace().next().unwrap();
            let named = help.lines().any(|line| line.split_whitespace().next() == Some(name));
            assert!(named, "{page}: there is no canet {name}");
        }
    }
}
