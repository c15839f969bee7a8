//! `canet data` as a process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::server::canet;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(name)
}

fn data(paths: &[PathBuf], flags: &[&str]) -> Output {
    canet(&["data", "--data"]).args(paths).args(flags).output().unwrap()
}

fn document(paths: &[PathBuf], flags: &[&str]) -> Value {
    let output = data(paths, &[&["--json"], flags].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_table_and_the_document_say_what_was_understood() {
    let file = fixture("log.csv");
    let table = data(std::slice::from_ref(&file), &[]);
    let text = String::from_utf8(table.stdout).unwrap();
    for line in [
        "form         CSV, separated by commas",
        "columns      user `user`, item `item`, time `timestamp` (seconds since 1970)",
        "lines        400",
        "time         2023-11-14T22:13:20Z to 2023-11-15T04:49:20Z",
        "users        40",
        "items        27",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
    let document = document(std::slice::from_ref(&file), &[]);
    assert_eq!(
        document["files"],
        json!([{
            "path": file.to_str().unwrap(),
            "form": "CSV, separated by commas",
            "columns": {"user": "user", "item": "item", "time": "timestamp", "unused": []},
            "time_unit": "seconds since 1970",
            "time_format": null,
            "lines": 400,
            "bad_lines": 0,
            "not_selected": 0,
        }])
    );
    assert_eq!(document["time"], json!({"first": "2023-11-14T22:13:20Z", "last": "2023-11-15T04:49:20Z"}));
    assert_eq!(document["sha256"], format!("{:x}", Sha256::digest(fs::read(&file).unwrap())));
    assert_eq!(
        (&document["users"], &document["items"], &document["interactions"]),
        (&40.into(), &27.into(), &400.into())
    );
}

#[test]
fn columns_that_are_not_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..20).map(|row| format!("{},{},{row},view,9.5\n", row % 2, row % 10)).collect();
    let json: String = (0..20)
        .map(|row| {
            json!({"user": row % 2, "item": row % 10, "ts": row, "event": "view", "price": 9.5}).to_string() + "\n"
        })
        .collect();
    for (name, text) in [("a.csv", format!("user,item,ts,event,price\n{rows}")), ("a.jsonl", json)] {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let files = std::slice::from_ref(&file);
        let table = String::from_utf8(data(files, &[]).stdout).unwrap();
        let line = "unused       `event`, `price` (--where selects rows by their values)";
        assert!(table.lines().any(|found| found == line), "{table}");
        // A column of a condition is used.
        let selected = document(files, &["--where", "event=view"]);
        assert_eq!(selected["files"][0]["columns"]["unused"], json!(["price"]));
        // A file of which no row is kept has its time column all the same.
        let other = folder.path().join(format!("other-{name}"));
        fs::write(&other, fs::read_to_string(&file).unwrap().replace("view", "buy")).unwrap();
        let both = data(&[file.clone(), other], &["--where", "event=view"]);
        let table = String::from_utf8(both.stdout).unwrap();
        assert!(table.contains("user `user`, item `item`, time `ts`\n"), "{table}");
    }
}

/// pandas, polars and pyarrow wrote the files.
#[test]
fn one_log_has_one_parsed_digest_in_every_form() {
    // The digest of the text that docs/data.md describes.
    let csv = fs::read_to_string(fixture("log.csv")).unwrap();
    let mut rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let first_seen = |column: usize| {
        let mut ids: Vec<&str> = Vec::new();
        rows.iter().map(|row| row[column]).for_each(|id| {
            if !ids.contains(&id) {
                ids.push(id);
            }
        });
        ids
    };
    let (users, items) = (first_seen(0), first_seen(1));
    rows.sort_by_key(|row| row[2].parse::<u64>().unwrap());
    let line = |user: &&str| {
        let items = rows.iter().filter(|row| row[0] == *user).map(|row| row[1]);
        format!("{user}\t{}\n", items.collect::<Vec<_>>().join("\t"))
    };
    let text = format!("{}\n{}", items.join("\t"), users.iter().map(line).collect::<String>());
    let expected = format!("{:x}", Sha256::digest(text));

    for name in [
        "log.csv",
        "iso.csv",
        "semicolon.csv",
        "log.csv.zst",
        "log.inter",
        "log.jsonl",
        "polars.ndjson",
        "pandas.parquet",
        "polars.parquet",
    ] {
        assert_eq!(document(&[fixture(name)], &[])["parsed_sha256"], expected, "{name}");
    }
}

#[test]
fn files_are_read_as_one_and_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let csv = fs::read_to_string(fixture("log.csv")).unwrap();
    let (header, rows) = csv.split_once('\n').unwrap();
    let (first, second) = rows.split_at(rows.match_indices('\n').nth(149).unwrap().0 + 1);
    let parts = [("a.csv", first), ("b.csv", second)].map(|(name, rows)| {
        let path = folder.path().join(name);
        fs::write(&path, format!("{header}\n{rows}")).unwrap();
        path
    });
    let whole = document(&[fixture("log.csv")], &[]);
    let both = document(&parts, &[]);
    assert_eq!((&both["parsed_sha256"], &both["name"]), (&whole["parsed_sha256"], &"a and 1 more".into()));
    assert_eq!(both["files"].as_array().unwrap().len(), 2);

    for name in ["log.csv.zst", "pandas.parquet"] {
        let mut command = canet(&["data", "--data", "-", "--json"]);
        let output = command.stdin(Stdio::from(File::open(fixture(name)).unwrap())).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&document["parsed_sha256"], &document["name"]), (&whole["parsed_sha256"], &"stdin".into()));
        assert_eq!(document["sha256"], format!("{:x}", Sha256::digest(fs::read(fixture(name)).unwrap())));
    }

    // A directory is all of its Parquet files.
    let table = folder.path().join("table");
    fs::create_dir_all(table.join("day=2")).unwrap();
    fs::copy(fixture("pandas.parquet"), table.join("part-0.parquet")).unwrap();
    fs::copy(fixture("pandas.parquet"), table.join("day=2/part-1.parquet")).unwrap();
    fs::write(table.join("_SUCCESS"), "").unwrap();
    let document = document(&[table], &[]);
    assert_eq!((&document["name"], &document["interactions"]), (&"table".into(), &800.into()));
}

#[test]
fn rows_and_rare_ids_are_dropped_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.csv");
    let row = |user: usize, item: usize| {
        let event = if (user + item).is_multiple_of(2) { "purchase" } else { "view" };
        format!("{user},{item},{event},{}\n", 1_700_000_000 + user * 100 + item)
    };
    let rows: String = (0..6).flat_map(|user| (0..40).map(move |item| row(user, item))).collect();
    fs::write(&path, format!("user,item,event,ts\n{rows}9,999,purchase,1700000000\n")).unwrap();
    let bought = document(std::slice::from_ref(&path), &["--where", "event=purchase"]);
    assert_eq!((&bought["interactions"], &bought["files"][0]["not_selected"]), (&121.into(), &120.into()));
    let core = document(std::slice::from_ref(&path), &["--where", "event=purchase", "--min-interactions", "3"]);
    assert_eq!((&core["interactions"], &core["users"], &core["dropped_as_rare"]), (&120.into(), &6.into(), &1.into()));
}

#[test]
fn interactions_that_are_there_twice_are_told_and_dropped_when_asked() {
    let (folder, log) = (tempfile::tempdir().unwrap(), fixture("log.csv"));
    let copy = folder.path().join("copy.csv");
    fs::copy(&log, &copy).unwrap();
    let once = document(std::slice::from_ref(&log), &[]);
    let both = [log, copy];
    let twice = document(&both, &[]);
    assert_eq!((&twice["interactions"], &twice["duplicates"]), (&800.into(), &400.into()));
    let dropped = document(&both, &["--drop-duplicates"]);
    assert_eq!((&dropped["parsed_sha256"], &dropped["duplicates_dropped"]), (&once["parsed_sha256"], &true.into()));
    let output = data(&both, &[]);
    let (table, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(table.contains(", 400 of them at the same time"), "{table}");
    assert!(said.contains("earlier one: 400. If the data hold lines twice, give --drop-duplicates"), "{said}");
    let output = data(&both, &["--drop-duplicates"]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.stderr.is_empty() && table.contains("; 400 others dropped by --drop-duplicates"), "{table}");
}

#[test]
fn the_table_has_an_example_and_the_users_of_a_test() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    let rows: String = (0..12).map(|item| format!("ann,5.{item},{item}\n")).collect();
    fs::write(&path, format!("user,item,ts\nbob,5.0,1\n{rows}")).unwrap();
    let table = String::from_utf8(data(std::slice::from_ref(&path), &[]).stdout).unwrap();
    for line in
        ["users        2, 1 with the three interactions that a test needs", "example      user `bob`, item `5.0`"]
    {
        assert!(table.lines().any(|found| found == line), "{line:?} is not in\n{table}");
    }
    assert_eq!(document(&[path], &[])["tested_users"], 1);
}

#[test]
fn data_that_are_wrong_end_with_their_code() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small.csv");
    fs::write(&small, "user,item\nu,1\nv,2\n").unwrap();
    let [singles, pairs] = [1, 2].map(|each| {
        let path = folder.path().join(format!("{each}.csv"));
        let rows = (0..20).flat_map(|user| (0..each).map(move |item| format!("u{user},i{}\n", user + item)));
        fs::write(&path, format!("user,item\n{}", rows.collect::<String>())).unwrap();
        path
    });
    let log = fixture("log.csv");
    let bad = folder.path().join("bad.csv");
    fs::write(&bad, fs::read_to_string(&log).unwrap() + &"u1\n".repeat(10)).unwrap();
    for (path, flags, code, words) in [
        (&small, &[][..], 65, "too few to train on (users: 2, items: 2): at least 2 users and 10 items"),
        (&singles, &[], 65, "nothing to learn"),
        (&pairs, &[], 65, "nobody to validate on"),
        (&bad, &[], 65, "10 of 410 lines (2.44 %) are bad: check that the file"),
        (&bad, &["--skip-bad-lines"], 65, "more than the 1 % that --max-bad-share allows"),
        (&bad, &["--skip-bad-lines", "--max-bad-share", "0.03"], 0, "10 bad lines skipped"),
        (&bad, &["--max-bad-share", "0.03"], 64, "--skip-bad-lines"),
        (&bad, &["--skip-bad-lines", "--max-bad-share", "2"], 64, "from 0 to 1"),
        (&log, &["--where", "event"], 64, "COLUMN=VALUE"),
        (
            &log,
            &["--where", "event=buy"],
            65,
            "--where event: there is no such column (columns: user, item, timestamp)",
        ),
        (&fixture("absent.csv"), &[], 65, "no such file"),
    ] {
        let output = data(std::slice::from_ref(path), flags);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {text}");
        assert!(text.contains(words), "{flags:?}: {text}");
    }
    // What was understood is printed even if it is too little.
    assert!(String::from_utf8_lossy(&data(&[small], &[]).stdout).contains("users        2"));
}
