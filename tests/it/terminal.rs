//! What commands print of foreign files does not control the terminal.

use super::server::canet;
use super::support::{draft, small_config};

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
