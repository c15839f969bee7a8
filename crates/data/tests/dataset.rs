//! Interaction files of every format, valid and invalid, through `Dataset::read`.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use canet_data::{BadLinePolicy, Case, DataError, Dataset, Form, ReadOptions, Split, TimeColumn};
use canet_domain::{Catalogue, Item};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn strict() -> ReadOptions {
    ReadOptions::default()
}

fn lenient() -> ReadOptions {
    ReadOptions { bad_lines: BadLinePolicy::Skip { max_share: 1.0 }, ..ReadOptions::default() }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn read(name: &str, bytes: impl AsRef<[u8]>) -> Result<Dataset, DataError> {
    Dataset::read(&Folder::new().write(name, bytes), &strict())
}

/// Each user's sequence in external ids.
fn readable(dataset: &Dataset) -> Vec<(String, Vec<String>)> {
    let ids = |sequence: &Vec<Item>| sequence.iter().map(|item| dataset.ids[item.column() - 1].to_string()).collect();
    dataset.users.iter().map(ToString::to_string).zip(dataset.sequences.iter().map(ids)).collect()
}

fn expected(users: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let strings = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
    users.iter().map(|(user, items)| ((*user).to_owned(), strings(items))).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn items(ids: &[u32]) -> Vec<Item> {
    ids.iter().map(|id| Item::new(*id).unwrap()).collect()
}

#[test]
fn recbole_columns_are_found_by_name_and_rows_are_sorted_by_time() {
    let text = "rating:float\ttimestamp:float\titem_id:token\tuser_id:token\n\
                3\t30\tc\tu1\n5\t10\ta\tu1\n1\t5\tb\tu2\n4\t20.5\tb\tu1\n2\t20.5\ta\tu1\n";
    let dataset = read("tiny.inter", text).unwrap();
    assert_eq!(readable(&dataset), expected(&[("u1", &["a", "b", "a", "c"]), ("u2", &["b"])]));
    assert_eq!((dataset.name.as_str(), dataset.interactions), ("tiny", 5));
    // The header suffices for the detection.
    assert_eq!(readable(&read("tiny.data", text).unwrap()), readable(&dataset));
}

/// float64 rounds each pair of these nanoseconds to one number. Zeros of either sign are one time.
#[test]
fn whole_timestamps_are_told_apart_however_large() {
    let nanoseconds = "user,item,timestamp\nu,d,1600000000000000103\nu,c,1600000000000000102\nu,b,1600000000000000001\n\
                       u,a,1600000000000000000\nv,b,-9223372036854775807\nv,a,-9223372036854775808\n";
    let expected_order: &[(&str, &[&str])] = &[("u", &["a", "b", "c", "d"]), ("v", &["a", "b"])];
    assert_eq!(readable(&read("n.csv", nanoseconds).unwrap()), expected(expected_order));
    let zeros = "user,item,timestamp\nu,a,0\nu,b,-0\nu,c,0.0\nu,d,-0.0\nu,e,1e-18\n";
    assert_eq!(readable(&read("z.csv", zeros).unwrap()), expected(&[("u", &["a", "b", "c", "d", "e"])]));
}

#[test]
fn recbole_without_timestamps_keeps_the_order_of_the_file() {
    let dataset = read("tiny.inter", "user_id:token\titem_id:token\nu\tb\nu\t\"a\nu\tc d\n").unwrap();
    let remark = "no time column (found: user_id, item_id): the order of lines is taken as time";
    assert_eq!(dataset.untimed.as_ref().map(ToString::to_string), Some(remark.to_owned()));
    let text = "user_id:token\titem_id:token\ttimestamp:float\nu\tb\t1\n";
    assert_eq!(read("tiny.inter", text).unwrap().untimed, None);
    assert_eq!(readable(&dataset), expected(&[("u", &["b", "\"a", "c d"])]));
}

#[test]
fn titles_come_from_the_item_file_beside() {
    let folder = Folder::new();
    folder.write("tiny.inter", "user_id:token\titem_id:token\nu\t1\n");
    let header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n";
    folder
        .write("tiny.item", format!("{header}1\tToy Story\t1995\tComedy\n2\tUntimed\t\t\n3\t\t1990\t\n4\tOdd\tV\t\n"));
    let dataset = Dataset::read(folder.path(), &strict()).unwrap();
    let titles = [("1", "Toy Story (1995)"), ("2", "Untimed"), ("4", "Odd")];
    assert_eq!(dataset.titles, titles.map(|(id, title)| (id.into(), title.into())));
    folder.write("tiny.item", format!("{header}1\tToy Story\n"));
    let message = Dataset::read(folder.path(), &strict()).unwrap_err().to_string();
    assert!(message.contains("tiny.item: line 2: 2 columns instead of 4"), "{message}");
    assert_eq!(Dataset::read(folder.path(), &lenient()).unwrap().skipped.count, 1);
}

#[test]
fn csv_may_be_quoted_and_has_further_columns() {
    let text = "\"item\",note,user,timestamp\n\"x, \"\"the\"\" first\",a,u,2\ny,\"b\nc\",u,1\n";
    let dataset = read("tiny.csv", text).unwrap();
    assert_eq!(readable(&dataset), expected(&[("u", &["y", "x, \"the\" first"])]));
    assert_eq!(readable(&read("tiny.txt", text).unwrap()), readable(&dataset));
    let untimed = read("tiny.csv", "user,item\nu,y\nu,x\n").unwrap();
    assert!(untimed.untimed.is_some() && dataset.untimed.is_none());
    assert_eq!(readable(&untimed), expected(&[("u", &["y", "x"])]));
}

#[test]
fn pairs_are_read_in_the_order_of_the_file() {
    let dataset = read("pairs.txt", "1 7\n1 9\n2\t7\n1 7\n").unwrap();
    // Pairs are in the order of time by definition.
    assert_eq!(dataset.untimed, None);
    assert_eq!(readable(&dataset), expected(&[("1", &["7", "9", "7"]), ("2", &["7"])]));
    assert_eq!(readable(&read("pairs.txt", "1 7\n2 9\n").unwrap()), expected(&[("1", &["7"]), ("2", &["9"])]));
}

#[test]
fn sequences_may_begin_with_users_of_one_item() {
    let dataset = read("sequences.txt", "1 7\n2 9\n3 7 8 9\n4 1\n").unwrap();
    assert_eq!(readable(&dataset), expected(&[("1", &["7"]), ("2", &["9"]), ("3", &["7", "8", "9"]), ("4", &["1"])]));
}

#[test]
fn the_kind_of_lines_may_show_after_the_sampled_start_of_the_file() {
    let start: String = (1..20_000).map(|user| format!("{user} 5\n")).collect();
    assert!(start.len() > 2 * 64 * 1024);
    assert_eq!(read("long.txt", format!("{start}20000 1 2 3\n")).unwrap().interactions, 20_002);
    assert_eq!(read("long.txt", format!("{start}7 1\n7 2\n")).unwrap().interactions, 20_001);
    let message = read("long.txt", format!("{start}7 1\n20000 1 2 3\n")).unwrap_err().to_string();
    assert!(message.contains("line 20001: 3 items, but line 20000 repeats a user"), "{message}");
    let message = read("long.txt", format!("{start}20000 1 2 3\n7 1\n")).unwrap_err().to_string();
    assert!(message.contains("line 20001: user \"7\" stands in an earlier line too, but line 20000 has"), "{message}");
}

#[test]
fn one_broken_line_does_not_change_the_kind_of_a_file() {
    let folder = Folder::new();
    let pairs = folder.write("pairs.txt", "1 7 8\n1 7\n1 8\n2 7\n2 9\n");
    let dataset = Dataset::read(&pairs, &lenient()).unwrap();
    assert_eq!(readable(&dataset), expected(&[("1", &["7", "8"]), ("2", &["7", "9"])]));
    let sequences = folder.write("sequences.txt", "1 7\n1 8\n2 7 9\n3 7 9\n4 8 7\n");
    let dataset = Dataset::read(&sequences, &lenient()).unwrap();
    assert_eq!(dataset.skipped.count, 1);
    assert_eq!(dataset.skipped.first[0].line, 2);
}

#[test]
fn gzip_marks_and_line_ends_change_nothing() {
    let plain = "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t2\nu\tb\t1\n";
    let dos = format!("\u{feff}{}\r\n", plain.replace('\n', "\r\n"));
    let packed = gzip(dos.as_bytes());
    let datasets = [
        read("tiny.inter", plain).unwrap(),
        read("tiny.inter", &dos).unwrap(),
        read("tiny.inter.gz", &packed).unwrap(),
        // gzip is detected by the bytes, not by the name.
        read("tiny.inter", &packed).unwrap(),
    ];
    for dataset in &datasets {
        assert_eq!(readable(dataset), expected(&[("u", &["b", "a"])]));
        assert_eq!(dataset.name, "tiny");
    }
    for (dataset, bytes) in datasets.iter().zip([plain.as_bytes(), dos.as_bytes(), &packed, &packed]) {
        assert_eq!(dataset.sha256, format!("{:x}", Sha256::digest(bytes)));
    }
    let lines = read("tiny.txt", "\u{feff}1 5\r\n1 6\r\n\r\n").unwrap();
    assert_eq!(readable(&lines), expected(&[("1", &["5", "6"])]));
}

#[test]
fn concatenated_gzip_members_are_one_file() {
    let packed = [gzip(b"1 5\n"), gzip(b"1 6\n")].concat();
    assert_eq!(readable(&read("tiny.txt.gz", packed).unwrap()), expected(&[("1", &["5", "6"])]));
}

#[test]
fn items_are_in_numeric_order_or_else_in_that_of_appearance() {
    let ids = |text: &str| read("tiny.txt", text).unwrap().ids.join(" ");
    assert_eq!(ids("1 10 9 100 9\n"), "9 10 100");
    assert_eq!(ids("1 10 x 9\n"), "10 x 9");
    // "09" and "9" are different ids, so numbers cannot order them.
    assert_eq!(ids("1 10 9 09\n"), "10 9 09");
    let dataset = read("tiny.txt", "1 10 9 100 9\n").unwrap();
    assert_eq!(dataset.sequences, [items(&[2, 1, 3, 1])]);
}

#[test]
fn the_items_of_a_checkpoint_are_used_and_others_dropped() {
    let folder = Folder::new();
    let path = folder.write("tiny.txt", "1 c x a\n2 x\n3 b b\n");
    let catalogue = Catalogue::new(["a", "b", "c"].map(Into::into).to_vec(), vec![0; 3]).unwrap();
    let dataset = Dataset::read_known(&path, &catalogue, &strict()).unwrap();
    assert_eq!(readable(&dataset), expected(&[("1", &["c", "a"]), ("3", &["b", "b"])]));
    assert_eq!(dataset.sequences[0], items(&[3, 1]));
    assert_eq!((dataset.interactions, dataset.unknown), (4, 2));
    let strangers = folder.write("strangers.txt", "1 x y\n");
    let error = Dataset::read_known(&strangers, &catalogue, &strict()).unwrap_err();
    assert!(error.to_string().contains("not one of its 2 interactions"), "{error}");
}

#[test]
fn a_bad_line_is_reported_with_its_number_and_stops_the_run() {
    let table = "user_id:token\titem_id:token\ttimestamp:float\n";
    let time = "neither a number nor an ISO 8601 date";
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("a.inter", format!("{table}u\ta\t1\nu\tb\n").into(), "line 3: 2 columns instead of 3"),
        ("a.inter", format!("{table}\nu\ta\tx1\n").into(), &format!("line 3: `timestamp` is \"x1\", which is {time}")),
        ("a.inter", format!("{table}u\ta\tNaN\n").into(), &format!("line 2: `timestamp` is \"NaN\", which is {time}")),
        ("a.inter", format!("{table}u\t\t1\n").into(), "line 2: `item_id` is empty"),
        ("a.inter", [table.as_bytes(), b"u\ta\t1\r\n\xff\ta\t1\r\n"].concat(), "line 3: not UTF-8 text"),
        ("a.csv", b"user,item\nu,a\n,b\n".to_vec(), "line 3: `user` is empty"),
        ("a.csv", b"user,item\nu,\"a\nb\"\n".to_vec(), "line 2: `item` holds a tab or a line break"),
        ("a.csv", b"user,item,x\nu,a,\"1\r\n2\"\r\nv,,b\r\n".to_vec(), "line 4: `item` is empty"),
        ("a.csv", b"user,item\nu,a\rb\nu,c\n".to_vec(), "line 2: `item` holds a tab or a line break"),
        ("a.csv", b"user,item\nu,a\nu,\"b\nu,c\n".to_vec(), "line 3: a quoted field opens here"),
        ("a.csv", b"user,item,date\nu,a,2023-11-14\nu,b,5\n".to_vec(), "line 3: the time is a number, but those"),
        ("a.txt", b"1 2\n\n3\n".to_vec(), "line 3: one column \"3\", where a user and at least one item"),
        ("a.txt", b"1 2\n1 \xff\n".to_vec(), "line 2: not UTF-8 text"),
    ];
    for (name, bytes, expected) in cases {
        let folder = Folder::new();
        let path = folder.write(name, &bytes);
        let message = Dataset::read(&path, &strict()).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(name), "{message:?} lacks {expected:?}");
        // With so many bad lines, the file is likely to be the wrong one.
        assert!(message.contains("check that the file") && !message.contains("--skip-bad-lines"), "{message}");
    }
}

/// One user and `good` items, and `bad` lines.
fn partly_bad(good: usize, bad: usize) -> String {
    (0..good).map(|item| format!("u,{item}\n")).chain((0..bad).map(|_| "u\n".to_owned())).collect()
}

#[test]
fn more_than_one_percent_of_bad_lines_stops_the_run_unless_more_is_allowed() {
    let folder = Folder::new();
    let skip = |max_share| ReadOptions { bad_lines: BadLinePolicy::Skip { max_share }, ..ReadOptions::default() };
    let usual = skip(BadLinePolicy::MAX_SHARE);
    let few = folder.write("few.csv", format!("user,item\n{}", partly_bad(198, 2)));
    let many = folder.write("many.csv", format!("user,item\n{}", partly_bad(197, 3)));
    assert_eq!(Dataset::read(&few, &usual).unwrap().skipped.count, 2);
    assert_eq!(Dataset::read(&many, &skip(0.015)).unwrap().skipped.count, 3);
    let message = |path: &Path, options: &ReadOptions| Dataset::read(path, options).unwrap_err().to_string();
    let told = message(&few, &strict());
    let expected = "few.csv: line 200: 1 columns instead of 2. 2 of 200 lines (1 %) are bad: correct them, or pass --skip-bad-lines";
    assert!(told.ends_with(expected), "{told}");
    let told = message(&many, &usual);
    assert!(told.contains("3 of 200 lines (1.50 %) are bad, more than the 1 % that --max-bad-share allows"), "{told}");
    assert!(!message(&many, &strict()).contains("--skip-bad-lines"));
}

#[test]
fn a_hopeless_file_is_not_read_to_its_end() {
    let path = Folder::new();
    let path = path.write("garbage.csv", format!("user,item\n{}", "x\n".repeat(5000)));
    let message = Dataset::read(&path, &strict()).unwrap_err().to_string();
    assert!(message.contains("1001 of the first 1001 lines (100 %)"), "{message}");
}

#[test]
fn bad_lines_are_skipped_and_counted_when_told() {
    let bad: String = (0..7).map(|_| "u\n").collect();
    let path = Folder::new();
    let path = path.write("tiny.txt", format!("u a\n{bad}u b\n"));
    let dataset = Dataset::read(&path, &lenient()).unwrap();
    assert_eq!(readable(&dataset), expected(&[("u", &["a", "b"])]));
    assert_eq!(dataset.skipped.count, 7);
    assert_eq!(dataset.skipped.first.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert!(dataset.skipped.to_string().starts_with("7 bad lines skipped: "), "{}", dataset.skipped);
}

/// The quote of line 2 stays open, and so does that of line 3.
#[test]
fn a_line_that_is_too_long_counts_behind_an_open_quote_too() {
    let long = "x".repeat((16 << 20) + 1);
    let text = format!("user,item\nu,\"a\nu,\"b\nu,c\n{long}\nu,d\nu\nu,\"e\n{long}\nu,f\nu\n");
    let dataset = Dataset::read(&Folder::new().write("a.csv", text), &lenient()).unwrap();
    assert_eq!(readable(&dataset), expected(&[("u", &["c", "d", "f"])]));
    let bad: Vec<(u64, String)> =
        dataset.skipped.first.iter().map(|bad| (bad.line, bad.fault.to_string().chars().take(8).collect())).collect();
    let bad: Vec<(u64, &str)> = bad.iter().map(|(line, fault)| (*line, fault.as_str())).collect();
    assert_eq!(bad, [(2, "a quoted"), (3, "a quoted"), (5, "longer t"), (7, "1 column"), (8, "a quoted")]);
    // Those of lines 9 and 11 are counted and not kept.
    assert_eq!(dataset.skipped.count, 7);
}

#[test]
fn unusable_files_are_named_with_the_reason() {
    let folder = Folder::new();
    let refusals = [
        ("empty.txt", "", "the file is empty"),
        ("blank.inter", "\n\r\n", "the file is empty"),
        ("header.inter", "user_id:token\titem_id:token\n", "no interactions"),
        (
            "column.inter",
            "user_id:token\twhat:token\nu\ta\n",
            "no column is named like an item (columns: user_id, what)",
        ),
        (
            "column.csv",
            "who,item\nu,a\n",
            "no column is named like a user (columns: who, item). Name it with --user-column",
        ),
        ("headless.csv", "1,2,3\n", "line 1: this is data, not a header (1, 2, 3). Name the columns"),
        ("blanks.csv", "\n \r\n1,2,3\n", "line 3: this is data, not a header (1, 2, 3). Name the columns"),
        ("object.jsonl", "\n{\"user\": 1,\n\"item\": 2}\n", "line 2: this is one JSON document"),
    ];
    for (name, text, expected) in refusals {
        let message = Dataset::read(&folder.write(name, text), &strict()).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(name), "{message:?} lacks {expected:?}");
    }
    let missing = Dataset::read(&folder.path().join("absent.txt"), &strict()).unwrap_err().to_string();
    assert!(missing.contains("absent.txt: no such file"), "{missing}");
    let whole = gzip(b"1 2\n1 3\n");
    let cut = Dataset::read(&folder.write("cut.txt.gz", &whole[..whole.len() - 9]), &strict()).unwrap_err().to_string();
    assert!(cut.contains("cut.txt.gz: cannot be read"), "{cut}");
}

#[test]
fn a_file_without_a_selected_row_is_read_beside_others() {
    let folder = Folder::new();
    let monday = folder.write("monday.csv", "user,item,event\na,1,purchase\na,2,view\nb,3,purchase\n");
    let tuesday = folder.write("tuesday.csv", "user,item,event\na,4,view\n");
    let options = |condition: &str| ReadOptions { conditions: vec![condition.parse().unwrap()], ..strict() };
    let both = [tuesday.clone(), monday];
    let dataset = Dataset::read_all(&both, &options("event=purchase")).unwrap();
    assert_eq!((dataset.interactions, dataset.files[0].unselected, dataset.files[1].unselected), (2, 1, 1));
    let error = Dataset::read_all(&both, &options("event=refund")).unwrap_err().to_string();
    assert!(error.contains("tuesday.csv: no row meets event=refund; the column holds view"), "{error}");
}

#[test]
fn a_directory_stands_for_its_one_data_file() {
    let folder = Folder::new();
    let message = Dataset::read(folder.path(), &strict()).unwrap_err().to_string();
    assert!(message.contains("holds no interaction file (.inter, .csv, "), "{message}");
    folder.write("tiny.item", "item_id:token\n");
    folder.write("tiny.inter.gz", gzip(b"user_id:token\titem_id:token\nu\ta\n"));
    assert_eq!(Dataset::read(folder.path(), &strict()).unwrap().name, "tiny");
    folder.write("other.csv", "user,item\nu,a\n");
    let message = Dataset::read(folder.path(), &strict()).unwrap_err().to_string();
    assert!(message.contains("several data files (other.csv, tiny.inter.gz)"), "{message}");
}

#[test]
fn the_last_item_tests_the_one_before_validates_and_short_users_only_train() {
    let dataset = read("tiny.txt", "a 1 2 3 4 5\nb 3\nc 5 4\nd 1 1 2\n").unwrap();
    let parts = |split| -> Vec<(usize, Vec<u32>, u32)> {
        let ids = |history: &[Item]| history.iter().map(|item| item.id()).collect();
        let case = |case: Case<'_>| (case.user, ids(case.history), case.target.id());
        dataset.cases(split).into_iter().map(case).collect()
    };
    assert_eq!(parts(Split::Test), [(0, vec![1, 2, 3, 4], 5), (3, vec![1, 1], 2)]);
    assert_eq!(parts(Split::Validation), [(0, vec![1, 2, 3], 4), (3, vec![1], 1)]);
    assert_eq!(parts(Split::Train), [(0, vec![1, 2], 3), (2, vec![5], 4)]);
    assert_eq!(dataset.training_sequences(), [items(&[1, 2, 3]), items(&[3]), items(&[5, 4]), items(&[1])]);
    assert_eq!(dataset.popularity(), [2, 1, 2, 1, 1]);
}

#[test]
fn held_out_positions_end_with_the_splits_own_and_each_has_its_own_history() {
    let dataset = read("tiny.txt", "a 1 2 3 4 5\nb 3\nc 5 4\nd 1 1 2\n").unwrap();
    let targets = |split, positions| -> Vec<(usize, usize, u32)> {
        let cases = dataset.held_out(split, positions).into_iter();
        cases.map(|case| (case.user, case.history.len(), case.target.id())).collect()
    };
    assert_eq!(targets(Split::Test, 2), [(0, 3, 4), (0, 4, 5), (3, 1, 1), (3, 2, 2)]);
    // A first item has no history, so it is never a target.
    assert_eq!(targets(Split::Test, 9), [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 5), (3, 1, 1), (3, 2, 2)]);
    assert_eq!(targets(Split::Validation, 2), [(0, 2, 3), (0, 3, 4), (3, 1, 1)]);
    for split in [Split::Train, Split::Validation, Split::Test] {
        assert_eq!(dataset.held_out(split, 1), dataset.cases(split));
    }
}

#[test]
fn bytes_in_parquet_that_are_no_text_are_named_by_their_column() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data");
    let mut file = fs::read(fixtures.join("pandas.parquet")).unwrap();
    let place = file.windows(3).position(|bytes| bytes == b"u33").unwrap();
    file[place] = 0xff;
    let message = read("binary.parquet", file).unwrap_err().to_string();
    assert!(message.contains("row 40: `visitorid` holds bytes that are no UTF-8 text"), "{message}");
}

/// Bytes of the footer, of page headers and of pages of every version and compression.
#[test]
fn no_damage_to_parquet_makes_the_reader_panic() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data");
    let folder = Folder::new();
    let options = ReadOptions { time_column: TimeColumn::FileOrder, ..lenient() };
    for name in ["none", "snappy", "gzip", "lz4", "zstd", "int96", "polars", "pandas"] {
        let whole = fs::read(fixtures.join(format!("{name}.parquet"))).unwrap();
        for place in (4..whole.len()).step_by(101) {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] ^= flip;
                let path = folder.write("damaged.parquet", &damaged);
                // Damage to a page may go unnoticed, because pages have no checksum.
                if let Ok(dataset) = Dataset::read(&path, &options) {
                    assert!(dataset.interactions <= 400, "{name}, byte {place} ^ {flip:#x}");
                }
            }
        }
        let cut = folder.write("cut.parquet", &whole[..whole.len() / 2]);
        assert!(Dataset::read(&cut, &options).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        // Names with each known extension, and without one.
        name in prop::option::of(prop::sample::select(Form::EXTENSIONS.to_vec()))
            .prop_map(|known| known.map_or("a".to_owned(), |extension| format!("a.{extension}"))),
        header in prop::sample::select(vec![
            "user,item\n", "user;item;date\n", "user_id:token\titem_id:token\n", "1::2::3::978300760\n", "", "\u{feff}",
            "{\"user\":1,\"item\":2,\"ts\":3}\n", "PAR1",
        ]),
        // Many separators, quotes and line ends.
        body in prop::collection::vec(prop_oneof![prop::sample::select(b" \t,;\"\r\n1a:{}-".to_vec()), any::<u8>()], 0..200),
    ) {
        let folder = Folder::new();
        let path = folder.write(&name, [header.as_bytes(), &body].concat());
        for options in [strict(), lenient()] {
            if let Ok(dataset) = Dataset::read(&path, &options) {
                let known = Catalogue::new(dataset.ids.clone(), dataset.popularity());
                prop_assert!(known.is_ok());
                prop_assert!(dataset.sequences.iter().all(|sequence| !sequence.is_empty()));
                prop_assert_eq!(dataset.sequences.iter().map(Vec::len).sum::<usize>() as u64, dataset.interactions);
            }
        }
    }

    #[test]
    fn quoted_fields_come_back_as_they_were(
        rows in prop::collection::vec(("[a-c]{1,2}", "[a-z0-9,\"'; é]{0,6}[a-z]", "[ -~\r\n]{0,12}"), 1..20),
    ) {
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let lines = rows.iter().map(|(user, item, note)| format!("{},{},{}\n", quote(note), quote(item), user));
        let dataset = read("tiny.csv", format!("note,item,user\n{}", lines.collect::<String>())).unwrap();
        for (user, sequence) in readable(&dataset) {
            let expected: Vec<_> =
                rows.iter().filter(|row| row.0 == user).map(|row| row.1.trim().to_owned()).collect();
            prop_assert_eq!(sequence, expected);
        }
    }
}

/// The bound counts what is kept, not the bytes of a file, which may be compressed a thousandfold.
#[test]
fn a_file_that_takes_too_much_memory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bomb.txt.gz");
    let mut packed = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::best());
    for _ in 0..200_000 {
        packed.write_all(b"ann 7\n").unwrap();
    }
    packed.finish().unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 10_000);
    let read = |max_bytes| Dataset::read(&path, &ReadOptions { max_bytes, ..strict() });
    let error = read(Some(1_000_000)).unwrap_err().to_string();
    assert!(error.contains("bomb.txt.gz: it is too large for the memory") && error.contains("1.0 MB"), "{error}");
    assert!(error.contains("split the file by users"), "{error}");
    for enough in [None, Some(20_000_000)] {
        assert_eq!(read(enough).unwrap().interactions, 200_000);
    }
    // Many users take memory too.
    let users: String = (0..5000).map(|user| format!("u{user} i{user}\n")).collect();
    let path = directory.path().join("users.txt");
    fs::write(&path, users).unwrap();
    assert!(Dataset::read(&path, &ReadOptions { max_bytes: Some(1_000_000), ..strict() }).is_err());
}

#[test]
fn the_order_of_appearance_is_known_beside_the_order_of_numbers() {
    let folder = Folder::new();
    let read = |name: &str, text: &str, min_interactions| {
        let options = ReadOptions { min_interactions, ..strict() };
        Dataset::read_all_ordered(&[folder.write(name, text)], &options).unwrap()
    };
    // By appearance 9, 100, 10. The times do not matter.
    let lines = "user,item,time\nann,9,3\nann,100,2\nbob,10,1\nbob,9,0\n";
    let ordered = read("a.csv", lines, 0);
    assert_eq!(ordered.dataset.ids.join(" "), "9 10 100");
    assert_eq!(ordered.order, items(&[1, 3, 2]));
    assert_eq!(ordered.dataset.sequences, [items(&[3, 1]), items(&[1, 2])]);
    assert_eq!(read("b.csv", "user,item,time\nann,b,3\nann,a,2\n", 0).order, items(&[1, 2]));
    // The first interaction is dropped with its user.
    let lines = "user,item,time\nbob,1,3\nann,2,3\ncid,1,2\nann,1,2\ncid,2,0\n";
    assert_eq!(read("c.csv", lines, 2).order, items(&[2, 1]));
}

#[test]
fn each_interaction_has_its_time_beside_it() {
    let folder = Folder::new();
    let dated =
        folder.write("a.csv", "user,item,time\nann,2,2020-01-02\nbob,1,2020-01-01T00:00:01.5Z\nann,1,2020-01-01\n");
    let seconds = folder.write("b.csv", "user,item,time\nann,3,1577923200.25\n");
    let read = |paths: &[PathBuf]| Dataset::read_all_timed(paths, &strict());
    let timed = read(&[dated.clone(), seconds]).unwrap();
    // 2020-01-01 is 1577836800 s after 1970.
    let second = 1_000_000_000;
    let day = 1_577_836_800 * second;
    let items: Vec<Vec<u32>> =
        timed.dataset.sequences.iter().map(|items| items.iter().map(|item| item.id()).collect()).collect();
    assert_eq!(items, [vec![1, 2, 3], vec![1]]);
    assert_eq!(timed.times[0], [day, day + 86_400 * second, day + 86_400 * second + second / 4]);
    assert_eq!(timed.times[1], [day + 3 * second / 2]);
    for undated in ["user,item\nann,1\n", "user,item,time\nann,1,1\nann,2,2\n"] {
        let path = folder.write("c.csv", undated);
        let error = read(&[path]).unwrap_err();
        assert!(matches!(&error, DataError::Undated(_)) && error.to_string().contains("--time-column"), "{error}");
    }
    let rare = ReadOptions { min_interactions: 2, ..strict() };
    let timed = Dataset::read_all_timed(
        &[folder.write("d.csv", "user,item,time\nann,1,2020-01-01\nann,1,2020-01-03\nbob,2,2020-01-02\n")],
        &rare,
    );
    let timed = timed.unwrap();
    assert_eq!((timed.dataset.users.len(), timed.times), (1, vec![vec![day, day + 2 * 86_400 * second]]));
}
