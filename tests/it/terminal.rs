//! What commands print fits a terminal, and does not control it.

use std::path::Path;

use super::server::canet;
use super::support::{draft, small_config};

/// Asserts that each line of a text for people has at most 100 columns. A command to copy may be longer.
pub(crate) fn assert_fits_a_terminal(text: &str) {
    for line in text.lines().filter(|line| !line.starts_with("Next: ")) {
        assert!(line.chars().count() <= 100, "{} columns: {line}\nin\n{text}", line.chars().count());
    }
}

#[test]
fn inspect_leads_with_the_accuracy_and_fits() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/ml-100k");
    let output = canet(&["inspect", "--version", "5", "--model"]).arg(model).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // The numbers of `canet.json`.
    let lead = "ml-100k, version 5, passes every check and has 8 slices. NDCG@10 is .1119 ±.0078 on the test split, the full \
                model .1084 ±.0078. h32-l2-e32 serves everybody and saves 93 % of the compute.";
    assert_eq!(text.split("\n\n").next().unwrap().replace('\n', " "), lead);
    let full = text.lines().find(|line| line.starts_with("full ")).unwrap();
    let cells: Vec<&str> = full.split_whitespace().collect();
    assert_eq!(cells, ["full", ".2078", "±.0132", ".0952", "±.0067", ".1084", "±.0078", "0.0", "%"]);
    assert_fits_a_terminal(&text);
}

#[test]
fn inspect_prints_no_control_character_of_a_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let mut draft = draft(small_config(), 3);
    draft.data.name = "movies\u{1b}]0;owned\u{7}\u{9b}31m".to_owned();
    draft.write(directory.path()).unwrap();
    let output = canet(&["inspect", "--model"]).arg(directory.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("movies\u{fffd}]0;owned"), "{text}");
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
}

#[test]
fn a_refusal_prints_no_control_character_of_a_path() {
    let output = canet(&["inspect", "--model", "no\u{1b}[2Jmodel"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
}
