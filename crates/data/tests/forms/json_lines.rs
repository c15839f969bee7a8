//! JSON lines whose keys are not all in the first lines.

use std::fmt::Write as _;

use canet_data::Dataset;

use super::{compare, options};

/// Objects with these fields beside a user and an item.
fn objects(count: usize, fields: &str) -> String {
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "{{\"session_id\":\"s{}\",\"sku\":\"i{}\"{fields}}}", number % 40, number % 27).unwrap();
    }
    text
}

/// Objects that fill the sample, and others behind them.
fn late(fields: &str) -> Option<Vec<u8>> {
    Some((objects(2500, "") + &objects(500, fields)).into_bytes())
}

#[test]
fn keys_that_appear_late() {
    compare(vec![
        ("plain.jsonl", late(""), &[], "JSON lines: session_id sku -: 40 users, 27 items, 3000 interactions"),
        (
            "user.jsonl",
            late(",\"user_id\":7"),
            &[],
            "FILE: line 2501: the key `user_id` appears here for the first time and is a better name of a user than `session_id`, which the lines before it have. Pass --user-column user_id, or --user-column session_id",
        ),
        (
            "user-null.jsonl",
            late(",\"user_id\":null,\"product\":{\"id\":1},\"note\":\"x\""),
            &[],
            "JSON lines: session_id sku -: 40 users, 27 items, 3000 interactions",
        ),
        (
            "user-given.jsonl",
            late(",\"user_id\":7"),
            &[("user", "session_id")],
            "JSON lines: session_id sku -: 40 users, 27 items, 3000 interactions",
        ),
        (
            "time.jsonl",
            late(",\"when\":\"2023-11-14\""),
            &[],
            "FILE: line 2501: the key `when` appears here for the first time and looks like a time, which the lines before it lack. Pass --time-column when, or --time-column none if the order of the lines is the order of time",
        ),
        (
            "time-none.jsonl",
            late(",\"when\":\"2023-11-14\""),
            &[("time", "none")],
            "JSON lines: session_id sku -: 40 users, 27 items, 3000 interactions",
        ),
        (
            "where.jsonl",
            late(",\"event\":\"purchase\""),
            &[("where", "event=purchase")],
            "JSON lines: session_id sku -: 40 users, 27 items, 500 interactions",
        ),
        (
            "where-unknown.jsonl",
            late(",\"event\":\"purchase\""),
            &[("where", "action=purchase")],
            "FILE: --where action: there is no such column (columns: session_id, sku, event)",
        ),
        (
            "user-unknown.jsonl",
            late(""),
            &[("user", "who")],
            "FILE: --user-column who: there is no such column (columns: session_id, sku)",
        ),
        (
            "user-late.jsonl",
            late(",\"who\":7"),
            &[("user", "who")],
            "FILE: line 1: `who` is empty (leave such rows out: --where 'who!='). 1001 of the first 1001 lines (100 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "user-nested.jsonl",
            late(",\"who\":{\"id\":7}"),
            &[("user", "who")],
            "FILE: line 1: `who` is empty (leave such rows out: --where 'who!='). 1001 of the first 1001 lines (100 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "user-selected.jsonl",
            late(",\"who\":\"w\""),
            &[("user", "who"), ("where", "who!=")],
            "FILE: too few to train on (users: 1, items: 27): at least 2 users and 10 items are needed. Check that the columns are the right ones (read as JSON lines: user `who`, item `sku`)",
        ),
    ]);
}

#[test]
fn a_first_line_may_be_longer_than_the_first_look() {
    let long =
        format!("{{\"user\":\"a\",\"item\":1,\"note\":\"{}\"}}\n{{\"user\":\"a\",\"item\":2}}\n", "x".repeat(3 << 20));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.jsonl");
    std::fs::write(&path, long).unwrap();
    assert_eq!(Dataset::read(&path, &options(&[])).unwrap().interactions, 2);
}
