//! `canet rank` as a process, compared with a server.

use std::path::{Path, PathBuf};
use std::process::Output;

use canet_model::ModelConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::{Process, canet, numbered};
use super::support::{BrokenPart, draft, item, overflowing, small_config};

/// A model, and the path for the users' file.
struct Setting {
    _scratch: TempDir,
    model: PathBuf,
    data: PathBuf,
}

impl Setting {
    fn new(config: ModelConfig) -> Setting {
        let scratch = tempfile::tempdir().unwrap();
        let (model, data) = (scratch.path().join("m"), scratch.path().join("users.txt"));
        numbered(draft(config, 3)).write(&model).unwrap();
        Setting { _scratch: scratch, model, data }
    }
}

/// Writes 300 users, more than a batch, with 1 to 19 of the items 101 to 140. The model reads the last 12.
///
/// The first user also has an unknown item, and one more user has unknown items only.
fn users(path: &Path) -> Vec<(String, Vec<u64>)> {
    let history = |user: u64| (0..=user % 19).map(move |place| 101 + (user * 7 + place * 11) % 40).collect();
    let users: Vec<(String, Vec<u64>)> = (0..300).map(|user| (format!("u{user}"), history(user))).collect();
    let line = |(user, items): &(String, Vec<u64>)| {
        let items: Vec<String> = items.iter().map(u64::to_string).collect();
        let stranger = if user == "u0" { " stranger" } else { "" };
        format!("{user} {}{stranger}\n", items.join(" "))
    };
    std::fs::write(path, users.iter().map(line).collect::<String>() + "nobody stranger other\n").unwrap();
    users
}

fn rank(model: &Path, data: &Path, flags: &[&str]) -> Output {
    canet(&["rank", "--device", "cpu", "--model"]).arg(model).arg("--data").arg(data).args(flags).output().unwrap()
}

#[test]
fn each_user_gets_the_items_that_a_server_recommends() {
    let Setting { model, data, .. } = &Setting::new(small_config());
    let users = users(data);
    let server = Process::serve(model, &[]);
    let variants = [
        (&[][..], json!({})),
        (&["--k", "3", "--threads", "2", "--batch-size", "7"], json!({"k": 3})),
        (&["--route", "full", "--k", "40"], json!({"route": "full", "k": 40})),
        (&["--route", "h8-l2-e6", "--include-seen"], json!({"route": "h8-l2-e6", "exclude_seen": false})),
    ];
    for (flags, mut request) in variants {
        let output = rank(model, data, flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("recommended to 300 users (1 left out: the model knows none of their items)"), "{said}");
        assert!(said.contains("dropped because the model does not know their items: 3"), "{said}");
        let lines: Vec<Value> =
            output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        assert_eq!(lines.len(), users.len());
        for ((user, history), line) in users.iter().zip(&lines) {
            request["history"] = json!(history);
            let answer = server.client.recommend(&request).json();
            assert_eq!(line["user"], json!(user));
            assert_eq!(
                (&line["items"], &line["route"]),
                (&answer["items"], &answer["route"]["name"]),
                "{flags:?} {user}"
            );
        }
    }
}

#[test]
fn all_of_a_small_catalogue_is_ranked_by_default() {
    let Setting { model, data, .. } = &Setting::new(ModelConfig { items: 4, ..small_config() });
    std::fs::write(data, "u 101\n").unwrap();
    let output = rank(model, data, &["--include-seen"]);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["items"].as_array().map(Vec::len), Some(4), "{line}");
}

#[test]
fn errors_name_what_is_allowed() {
    let Setting { model, data, .. } = &Setting::new(small_config());
    users(data);
    for (flags, words) in [
        (&["--k", "41"][..], "only 40 items"),
        (&["--route", "h5-l1-e6"], "h4-l1-e6"),
        (&["--out", "top.jsonl"], "its name ends in .parquet"),
    ] {
        let output = rank(model, data, flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && output.stdout.is_empty() && said.contains(words), "{said}");
    }
    std::fs::write(data, "nobody stranger other\n").unwrap();
    assert_eq!(rank(model, data, &[]).status.code(), Some(65));
}

#[test]
fn a_closed_output_ends_the_command_silently() {
    let Setting { model, data, .. } = &Setting::new(small_config());
    users(data);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut rank = canet(&["rank", "--device", "cpu", "--model"]);
    let output = rank.arg(model).arg("--data").arg(data).stdout(writer).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(141), "{said}");
    assert!(
        !said.contains("recommended to") && !said.contains("other data") && !said.to_lowercase().contains("pipe"),
        "{said}"
    );
}

#[test]
fn a_user_whose_scores_are_not_finite_ends_the_command() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("users.txt");
    std::fs::write(&data, "ann 101 102\nbob 103 140\n").unwrap();
    for (part, words) in
        [(BrokenPart::Backbone, "user \"bob\": the scores"), (BrokenPart::Router, "the router's logits")]
    {
        let model = scratch.path().join(format!("{part:?}"));
        numbered(overflowing(draft(small_config(), 3), item(40), part)).write(&model).unwrap();
        let output = rank(&model, &data, &[]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{message}");
        assert!(message.contains(&format!("{words} are not finite")), "{message}");
    }
}

#[test]
fn a_full_disk_has_its_own_exit_code() {
    let Setting { model, data, .. } = &Setting::new(small_config());
    users(data);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = canet(&["rank", "--device", "cpu", "--model"]);
    let output = command.arg(model).arg("--data").arg(data).stdout(full).stderr(std::process::Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{message}");
    assert!(message.contains("standard output: No space left on device"), "{message}");
}
