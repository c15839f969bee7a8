//! Directories of several files that are one table.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use canet_data::{Dataset, ReadOptions, TimeColumn};
use tempfile::TempDir;

use super::{fixture, options, outcome};

/// Copies a Parquet fixture with `user_id`, `item_id` and `when_us`.
fn copy(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::copy(fixture("none.parquet"), folder.join("part-0.parquet")).unwrap();
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn the_names_of_folders_are_columns_of_the_files_below() {
    let root = TempDir::new().unwrap();
    for folder in ["event=view/day=14", "event=big%20purchase/day=15", "event=__HIVE_DEFAULT_PARTITION__/day=15"] {
        copy(&root.path().join(folder));
    }
    let read = |flags: &[(&str, &str)]| Dataset::read(root.path(), &options(flags));
    let when = ("time", "when_us");
    assert_eq!(read(&[when]).unwrap().interactions, 1200);
    for (condition, interactions) in
        [("event=view", 400), ("event=big purchase", 400), ("event=", 400), ("day>=15", 800), ("event!=view", 800)]
    {
        assert_eq!(read(&[when, ("where", condition)]).unwrap().interactions, interactions, "{condition}");
    }
    let summary = read(&[when, ("item", "event"), ("where", "event!=")]).unwrap();
    assert_eq!(
        (summary.ids.join(" "), summary.files[0].item.as_deref()),
        ("big purchase view".to_owned(), Some("event"))
    );
    let missing = read(&[when, ("item", "event")]).unwrap_err().to_string();
    assert!(missing.contains("`event` is empty"), "{missing}");
    // A number of the day is not the time, although its column has a common name.
    let unused = read(&[]).unwrap_err().to_string();
    assert!(unused.contains("`when_us` looks like a time"), "{unused}");
}

#[test]
fn a_date_in_the_name_of_a_folder_is_a_time_unless_the_file_has_the_column() {
    let root = TempDir::new().unwrap();
    for day in ["14", "15"] {
        copy(&root.path().join(format!("date=2023-11-{day}/item_id=7")));
    }
    let dataset = Dataset::read(root.path(), &ReadOptions::default()).unwrap();
    assert_eq!((dataset.files[0].time.as_deref(), dataset.ids.len()), (Some("date"), 27));
    let remark = dataset.coarse.unwrap().to_string();
    assert!(remark.contains("the times of `date` are dates without a time of day, but `when_us` looks"), "{remark}");
}

#[test]
fn links_are_followed_and_nothing_is_read_twice() {
    let root = TempDir::new().unwrap();
    let (table, store) = (root.path().join("table"), root.path().join("store"));
    copy(&store);
    copy(&table.join("z"));
    symlink(&store, table.join("stored")).unwrap();
    // A link to what is read anyway, one back to the directory, and one that leads nowhere.
    symlink(table.join("z"), table.join("a")).unwrap();
    symlink(&table, table.join("z/loop")).unwrap();
    symlink(table.join("z/part-0.parquet"), table.join("newest.parquet")).unwrap();
    symlink(root.path().join("nowhere"), table.join("gone")).unwrap();
    let dataset = Dataset::read(&table, &options(&[("time", "when_us")])).unwrap();
    let files: Vec<&Path> = dataset.files.iter().map(|file| file.path.strip_prefix(&table).unwrap()).collect();
    assert_eq!(files, [Path::new("stored/part-0.parquet"), Path::new("z/part-0.parquet")]);
}

#[test]
fn the_text_files_that_spark_writes_are_one_table() {
    let root = TempDir::new().unwrap();
    let csv = root.path().join("csv");
    write(&csv, "_SUCCESS", "");
    write(&csv, "part-00000-a.csv", "user,item,ts\nann,1,2023-11-14\n");
    write(&csv, "part-00001-a.csv", "user,item,ts\nann,2,2023-11-13\nbob,1,2023-11-13\n");
    write(&csv, "part-00002-a.csv", "");
    let dataset = Dataset::read(&csv, &ReadOptions::default()).unwrap();
    assert_eq!((dataset.interactions, dataset.files.len(), dataset.name.as_str()), (3, 2, "csv"));
    write(&csv, "other.csv", "user,item,ts\nann,1,2023-11-14\n");
    assert!(outcome(&csv, &ReadOptions::default()).contains("holds several data files (other.csv, part-00000-a.csv"));

    let json = root.path().join("json");
    write(&json, "part-00000.json", "{\"session_id\":1,\"user_id\":\"ann\",\"item\":1}\n");
    write(&json, "part-00001.json", "{\"session_id\":2,\"item\":1}\n");
    let untimed = ReadOptions { time_column: TimeColumn::FileOrder, ..ReadOptions::default() };
    let message = outcome(&json, &untimed);
    let expected = "part-00001.json: this part would be read by its column `session_id`, but";
    assert!(message.contains(expected) && message.ends_with("name the column with --user-column"), "{message}");
    let sessions = ReadOptions { user_column: Some("session_id".to_owned()), ..untimed.clone() };
    assert_eq!(Dataset::read(&json, &sessions).unwrap().interactions, 2);

    let empty = root.path().join("empty");
    write(&empty, "part-00000.csv", "");
    write(&empty, "part-00001.csv", "\n");
    assert!(outcome(&empty, &untimed).ends_with("no interactions"));
}
