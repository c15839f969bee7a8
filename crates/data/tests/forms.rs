//! What each form of input gives: the columns and counts that were understood, or the error in its words.

#![allow(clippy::unwrap_used, reason = "a failed test panics")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use canet_data::{BadLinePolicy, Dataset, ReadOptions, TimeColumn};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data").join(name)
}

/// The log of `tests/fixtures/make_data.py`: 400 rows of user, item and seconds.
fn rows() -> Vec<[String; 3]> {
    let csv = fs::read_to_string(fixture("log.csv")).unwrap();
    csv.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()).collect()
}

/// A text of the log with this first line and one line a row.
fn text(header: &str, row: impl Fn(&str, &str, &str) -> String) -> Vec<u8> {
    let mut text = header.to_owned();
    for [user, item, time] in rows() {
        writeln!(text, "{}", row(&user, &item, &time)).unwrap();
    }
    text.into_bytes()
}

fn separated(header: &str, separator: &str) -> Vec<u8> {
    text(header, |user, item, time| [user, item, time].join(separator))
}

/// The log in the order of time, without times.
fn in_order(line: impl Fn(&str, &[String]) -> String) -> Vec<u8> {
    let mut rows = rows();
    rows.sort_by(|a, b| (&a[0], &a[2]).cmp(&(&b[0], &b[2])));
    let users = rows.chunk_by(|a, b| a[0] == b[0]);
    let items = |rows: &[[String; 3]]| rows.iter().map(|row| row[1].clone()).collect::<Vec<_>>();
    users.map(|rows| line(&rows[0][0], &items(rows))).collect::<String>().into_bytes()
}

fn options(flags: &[(&str, &str)]) -> ReadOptions {
    let mut options = ReadOptions::default();
    for (flag, value) in flags {
        let value = (*value).to_owned();
        match *flag {
            "columns" => options.columns = Some(value.split(',').map(str::to_owned).collect()),
            "user" => options.user_column = Some(value),
            "item" => options.item_column = Some(value),
            "time" if value == "none" => options.time_column = TimeColumn::FileOrder,
            "time" => options.time_column = TimeColumn::Named(value),
            "where" => options.conditions.push(value.parse().unwrap()),
            "min" => options.min_interactions = value.parse().unwrap(),
            _ => options.bad_lines = BadLinePolicy::Skip { max_share: value.parse().unwrap() },
        }
    }
    options
}

/// What was understood, or the error with FILE for the path.
fn outcome(path: &Path, options: &ReadOptions) -> String {
    let read = Dataset::read(path, options).and_then(|dataset| dataset.check_size().map(|()| dataset));
    match read {
        Err(error) => error.to_string().replace(&path.display().to_string(), "FILE"),
        Ok(dataset) => {
            let file = &dataset.files[0];
            let name = |name: &Option<String>| name.clone().unwrap_or("-".to_owned());
            let unit = file.time_unit.map_or(String::new(), |unit| format!(" in {unit}"));
            format!(
                "{}: {} {} {}{unit}: {} users, {} items, {} interactions",
                file.form,
                name(&file.user),
                name(&file.item),
                name(&file.time),
                dataset.users.len(),
                dataset.ids.len(),
                dataset.interactions
            )
        }
    }
}

/// A file name, its bytes (`None`: a fixture), flags and the outcome.
type Case = (&'static str, Option<Vec<u8>>, &'static [(&'static str, &'static str)], &'static str);

fn compare(cases: Vec<Case>) {
    let folder = TempDir::new().unwrap();
    let mut wrong = String::new();
    for (name, bytes, flags, expected) in cases {
        let path = match bytes {
            None => fixture(name),
            Some(bytes) => {
                let path = folder.path().join(name);
                fs::write(&path, bytes).unwrap();
                path
            }
        };
        let found = outcome(&path, &options(flags));
        if found != expected {
            writeln!(wrong, "{name} {flags:?}\n  expected {expected}\n  found    {found}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn forms_that_are_read() {
    compare(vec![
        (
            "letters.csv",
            Some(separated("ORCID,item,ts\n", ",")),
            &[("user", "orcid")],
            "CSV, separated by commas: ORCID item ts in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "plain.csv",
            Some(separated("user,item,timestamp\n", ",")),
            &[],
            "CSV, separated by commas: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "capitals.csv",
            Some(separated("User,Item,Timestamp\n", ",")),
            &[],
            "CSV, separated by commas: User Item Timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "camel.csv",
            Some(text("userId,movieId,rating,timestamp\n", |u, i, t| format!("{u},{i},4.5,{t}"))),
            &[],
            "CSV, separated by commas: userId movieId timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "quoted.csv",
            Some(text("\"user id\",\"item\",\"ts\",\"title\"\n", |u, i, t| {
                format!("\"{u}\",\"{i}\",{t},\"a, \"\"b\"\"\nc\"")
            })),
            &[],
            "CSV, separated by commas: user id item ts in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "semicolon.csv",
            None,
            &[],
            "CSV, separated by semicolons: user_id movieId event_time in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "tab.tsv",
            Some(separated("customer_id\tproduct_id\tcreated_at\n", "\t")),
            &[],
            "CSV, separated by tabs: customer_id product_id created_at in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "tab.csv",
            Some(separated("user\titem\ttimestamp\n", "\t")),
            &[],
            "CSV, separated by tabs: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "bar.txt",
            Some(separated("session_id|sku|time\n", "|")),
            &[],
            "CSV, separated by bars: session_id sku time in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "iso.csv",
            None,
            &[],
            "CSV, separated by commas: visitorid sku event_time in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "dates.csv",
            Some(text("user,item,date\n", |u, i, t| {
                format!("{u},{i},2023-11-{}", &t[7..9].parse::<u32>().unwrap() % 20 + 10)
            })),
            &[],
            "CSV, separated by commas: user item date in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "milliseconds.csv",
            Some(text("user,asin,ts\n", |u, i, t| format!("{u},{i},{t}123"))),
            &[],
            "CSV, separated by commas: user asin ts in milliseconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "microseconds.csv",
            Some(text("user,asin,ts\n", |u, i, t| format!("{u},{i},{t}123456"))),
            &[],
            "CSV, separated by commas: user asin ts in microseconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "nanoseconds.csv",
            Some(text("user,asin,ts\n", |u, i, t| format!("{u},{i},{t}123456789"))),
            &[],
            "CSV, separated by commas: user asin ts in nanoseconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "fractions.csv",
            Some(text("user,asin,ts\n", |u, i, t| format!("{u},{i},{t}.5"))),
            &[],
            "CSV, separated by commas: user asin ts in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "mixed.csv",
            Some(text("user,asin,ts\n", |u, i, t| {
                if u.ends_with('1') { format!("{u},{i},{t}000") } else { format!("{u},{i},{t}") }
            })),
            &[],
            "CSV, separated by commas: user asin ts in numbers since 1970 in several units: 40 users, 27 items, 400 interactions",
        ),
        (
            "order.csv",
            Some(text("user,item,time\n", |u, i, t| format!("{u},{i},{}", &t[5..]))),
            &[],
            "CSV, separated by commas: user item time in numbers: 40 users, 27 items, 400 interactions",
        ),
        (
            "headless.csv",
            Some(separated("", ",")),
            &[("columns", "user,item,timestamp")],
            "CSV, separated by commas, without a header: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "headless.txt",
            Some(separated("", " ")),
            &[("columns", "user,item,timestamp")],
            "CSV, separated by blanks, without a header: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "flags.csv",
            Some(separated("who;what;when\n", ";")),
            &[("user", "who"), ("item", "What"), ("time", "when")],
            "CSV, separated by semicolons: who what when in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "untimed.csv",
            Some(text("user,item\n", |u, i, _| format!("{u},{i}"))),
            &[],
            "CSV, separated by commas: user item -: 40 users, 27 items, 400 interactions",
        ),
        (
            "none.csv",
            Some(separated("user,item,when\n", ",")),
            &[("time", "none")],
            "CSV, separated by commas: user item -: 40 users, 27 items, 400 interactions",
        ),
        (
            "log.jsonl",
            None,
            &[],
            "JSON lines: visitorid sku event_time in milliseconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        ("polars.ndjson", None, &[], "JSON lines: user item ts in dates: 40 users, 27 items, 400 interactions"),
        (
            "log.inter",
            None,
            &[],
            "RecBole's .inter, separated by tabs: user_id item_id timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "comma.inter",
            Some(separated("user_id:token,item_id:token,time:float\n", ",")),
            &[],
            "RecBole's .inter, separated by commas: user_id item_id time in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "pandas.parquet",
            None,
            &[],
            "Parquet: visitorid sku event_time in dates: 40 users, 27 items, 400 interactions",
        ),
        ("polars.parquet", None, &[], "Parquet: user item ts in dates: 40 users, 27 items, 400 interactions"),
        (
            "none.parquet",
            None,
            &[("time", "when_us")],
            "Parquet: user_id item_id when_us in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "snappy.parquet",
            None,
            &[("time", "when_us"), ("where", "rating>=2")],
            "Parquet: user_id item_id when_us in dates: 24 users, 27 items, 240 interactions",
        ),
        (
            "gzip.parquet",
            None,
            &[("time", "when_us")],
            "Parquet: user_id item_id when_us in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "lz4.parquet",
            None,
            &[("time", "when_us")],
            "Parquet: user_id item_id when_us in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "zstd.parquet",
            None,
            &[("time", "when_us")],
            "Parquet: user_id item_id when_us in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "int96.parquet",
            None,
            &[("time", "when_us")],
            "Parquet: user_id item_id when_us in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "ratings.dat",
            Some(text("", |u, i, t| format!("{u}::{i}::5::{t}"))),
            &[],
            "MovieLens ratings, separated by `::`, without a header: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "u.data",
            Some(text("", |u, i, t| format!("{u}\t{i}\t3\t{t}"))),
            &[],
            "MovieLens ratings, separated by tabs, without a header: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "pairs.txt",
            Some(in_order(|user, items| items.iter().map(|item| format!("{user} {item}\n")).collect())),
            &[],
            "`user item` lines: - - -: 40 users, 27 items, 400 interactions",
        ),
        (
            "sequences.txt",
            Some(in_order(|user, items| format!("{user} {}\n", items.join(" ")))),
            &[],
            "`user item item ...` lines: - - -: 40 users, 27 items, 400 interactions",
        ),
        (
            "log.csv.zst",
            None,
            &[],
            "CSV, separated by commas, zstd: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "mark.csv",
            Some(separated("\u{feff}user,item,timestamp\n", ",")),
            &[],
            "CSV, separated by commas: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "crlf.csv",
            Some(
                separated("user,item,timestamp\n", ",")
                    .into_iter()
                    .flat_map(|b| if b == b'\n' { vec![b'\r', b] } else { vec![b] })
                    .collect(),
            ),
            &[],
            "CSV, separated by commas: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "cr.csv",
            Some(
                separated("user,item,timestamp\n", ",")
                    .into_iter()
                    .map(|b| if b == b'\n' { b'\r' } else { b })
                    .collect(),
            ),
            &[],
            "CSV, separated by commas: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "latin1.csv",
            Some([&b"user,item,timestamp,cat\xe9gorie\n"[..], &text("", |u, i, t| format!("{u},{i},{t},x"))].concat()),
            &[],
            "CSV, separated by commas: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "core.csv",
            Some(separated("user,item,timestamp\n", ",")),
            &[("min", "8")],
            "CSV, separated by commas: user item timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "stray.csv",
            Some(
                [
                    &text("user,item,timestamp,title\n", |u, i, t| format!("{u},{i},{t},x"))[..],
                    b"u5,i1,1700005180,\"Best of\n",
                    &text("", |u, i, t| format!("{u},{i},{t},x")),
                    b"u3,i1,1700003120,12\" vinyl\n",
                ]
                .concat(),
            ),
            &[("skip", "0.01")],
            "CSV, separated by commas: user item timestamp in seconds since 1970: 40 users, 27 items, 801 interactions",
        ),
    ]);
}

#[test]
fn the_parsed_digest_is_that_of_the_log_in_every_form() {
    let digest = |name: &str| Dataset::read(&fixture(name), &ReadOptions::default()).unwrap().parsed_sha256;
    for name in
        ["iso.csv", "semicolon.csv", "log.csv.zst", "log.inter", "log.jsonl", "pandas.parquet", "polars.parquet"]
    {
        assert_eq!(digest(name), digest("log.csv"), "{name}");
    }
    let numbers = |name: &str| Dataset::read(&fixture(name), &options(&[("time", "when_us")])).unwrap().parsed_sha256;
    for name in ["snappy.parquet", "gzip.parquet", "lz4.parquet", "zstd.parquet", "int96.parquet"] {
        assert_eq!(numbers(name), numbers("none.parquet"), "{name}");
    }
}

#[test]
fn forms_that_are_refused() {
    let zip = |magic: &[u8]| Some([magic, &[0; 600]].concat());
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    compare(vec![
        (
            "log.csv.bz2",
            None,
            &[],
            "FILE: this is a bzip2 file, which canet does not read. Unpack it: bzip2 -dc FILE > interactions",
        ),
        (
            "log.csv.xz",
            None,
            &[],
            "FILE: this is an xz file, which canet does not read. Unpack it: xz -dc FILE > interactions",
        ),
        (
            "log.zip",
            None,
            &[],
            "FILE: this is a zip archive or an Excel workbook, which canet does not read. Unpack it: unzip -p FILE > interactions.csv (a workbook: save it as CSV)",
        ),
        (
            "log.arrow",
            None,
            &[],
            "FILE: this is an Arrow (Feather) file, which canet does not read. Convert it: python3 -c \"import polars; polars.read_ipc('FILE').write_parquet('interactions.parquet')\"",
        ),
        (
            "log.pkl",
            None,
            &[],
            "FILE: this is a Python pickle, which canet does not read. Convert it: python3 -c \"import pandas; pandas.read_pickle('FILE').to_parquet('interactions.parquet')\"",
        ),
        (
            "log.7z",
            zip(b"7z\xbc\xaf\x27\x1c"),
            &[],
            "FILE: this is a 7-Zip archive, which canet does not read. Unpack it: 7z x FILE",
        ),
        (
            "log.avro",
            zip(b"Obj\x01"),
            &[],
            "FILE: this is an Avro file, which canet does not read. Convert it: python3 -c \"import polars; polars.read_avro('FILE').write_parquet('interactions.parquet')\"",
        ),
        (
            "log.orc",
            zip(b"ORC"),
            &[],
            "FILE: this is an ORC file, which canet does not read. Convert it: python3 -c \"import pandas; pandas.read_orc('FILE').to_parquet('interactions.parquet')\"",
        ),
        (
            "log.sqlite",
            zip(b"SQLite format 3\0"),
            &[],
            "FILE: this is an SQLite database, which canet does not read. Export the table: sqlite3 -header -csv FILE 'select * from TABLE' > interactions.csv",
        ),
        (
            "log.tar",
            Some([&[b'a'; 257][..], b"ustar\x0000", &[0; 300]].concat()),
            &[],
            "FILE: this is a tar archive, which canet does not read. Unpack it: tar -xf FILE",
        ),
        (
            "utf16.csv",
            Some([&b"\xff\xfe"[..], &utf16("user,item\nu,i\n")].concat()),
            &[],
            "FILE: this is text in UTF-16, which canet does not read. Convert it: iconv -f UTF-16 -t UTF-8 FILE > interactions",
        ),
        (
            "utf16-without-mark.csv",
            Some(utf16("user,item\nu,i\n")),
            &[],
            "FILE: this is text in UTF-16, which canet does not read. Convert it: iconv -f UTF-16LE -t UTF-8 FILE > interactions",
        ),
        (
            "page.csv",
            Some(b"<!doctype html><p>Not found".to_vec()),
            &[],
            "FILE: this is XML or HTML, which canet does not read. Export the data as CSV, JSON lines or Parquet",
        ),
        (
            "list.json",
            Some(b"[{\"user\":1,\"item\":2},\n{\"user\":1,\"item\":3}]\n".to_vec()),
            &[],
            "FILE: line 1: this is one JSON document. JSON lines are read, with one object a line: jq -c '.[]' OLD > NEW.jsonl",
        ),
        (
            "document.json",
            Some(b"{\n  \"user\": 1,\n  \"item\": 2\n}\n".to_vec()),
            &[],
            "FILE: line 1: this is one JSON document. JSON lines are read, with one object a line: jq -c '.' OLD > NEW.jsonl",
        ),
        (
            "dictionaries.json",
            Some(b"{'user': 1, 'item': 2}\n".to_vec()),
            &[],
            "FILE: line 1: not a JSON object: key must be a string at column 2. JSON lines have one object a line, with names and texts in double quotes",
        ),
        (
            "nested.jsonl",
            Some(b"{\"user\":{\"id\":1},\"item\":2,\"ts\":1700005060}\n".to_vec()),
            &[],
            "FILE: line 1: `user` is an object or a list, not a text or a number. 1 of 1 lines (100 %) is bad: check that the file and its columns are the right ones",
        ),
        (
            "open.csv",
            Some(b"\"user,item,timestamp\nu,i,1\n".to_vec()),
            &[],
            "FILE: line 1: a quoted field opens here and is not closed. Correct the header",
        ),
        (
            "headless.csv",
            Some(separated("", ",")),
            &[],
            "FILE: line 1: this is data, not a header (u0, i0, 1700000000). Name the columns, for example --columns user,item,timestamp",
        ),
        (
            "headless-ratings.csv",
            Some(text("", |u, i, t| format!("{u},{i},4.0,{t}"))),
            &[],
            "FILE: line 1: this is data, not a header (u0, i0, 4.0, 1700000000). Name the columns, for example --columns user,item,rating,timestamp",
        ),
        (
            "columns.csv",
            Some(separated("", ",")),
            &[("columns", "user,item")],
            "FILE: line 1: --columns names 2 columns, but no separator splits this line into as many: \"u0,i0,1700000000\"",
        ),
        (
            "names.csv",
            Some(separated("who,what,when\n", ",")),
            &[],
            "FILE: no column is named like a user (columns: who, what, when). Name it with --user-column",
        ),
        (
            "time.csv",
            Some(separated("user,item,when\n", ",")),
            &[],
            "FILE: the column `when` looks like a time (1700000000) and is not used. Pass --time-column when, or --time-column none if the order of the lines is the order of time",
        ),
        (
            "unknown.csv",
            Some(separated("user,item,timestamp\n", ",")),
            &[("item", "sku")],
            "FILE: --item-column sku: there is no such column (columns: user, item, timestamp)",
        ),
        (
            "twice.csv",
            Some(separated("user_id,item,userId\n", ",")),
            &[],
            "FILE: the columns `user_id` and `userId` have the same name but for its spelling. Name one with --user-column",
        ),
        (
            "blanks.txt",
            Some(separated("user item timestamp\n", " ")),
            &[],
            "FILE: line 1: the header's columns are separated by blanks (user item timestamp). Use commas, semicolons, tabs or bars",
        ),
        (
            "american.csv",
            Some(text("user,item,date\n", |u, i, _| format!("{u},{i},11/14/2023"))),
            &[],
            "FILE: line 2: `date` is \"11/14/2023\", which is neither a number nor an ISO 8601 date such as 2023-11-14T22:50:40Z. 400 of 400 lines (100 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "where.csv",
            Some(text("user,item,event\n", |u, i, _| format!("{u},{i},view"))),
            &[("where", "event=purchase")],
            "FILE: no row meets event=purchase; the column holds view",
        ),
        (
            "where.txt",
            Some(b"1 2\n1 3\n".to_vec()),
            &[("where", "event=purchase")],
            "FILE: `user item` lines have no named columns, which --where needs",
        ),
        (
            "long.csv",
            Some(text("user,item\n", |u, i, _| format!("{u},{i}{}", "x".repeat(1024)))),
            &[],
            "FILE: line 2: `item` has 1026 bytes; a checkpoint holds ids of at most 1024 bytes. 400 of 400 lines (100 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "small.csv",
            Some(b"user,item\nu,1\nu,2\n".to_vec()),
            &[],
            "FILE: too few to train on (users: 1, items: 2): at least 2 users and 10 items are needed. Check that the columns are the right ones (read as CSV, separated by commas: user `user`, item `item`)",
        ),
        (
            "core.csv",
            Some(separated("user,item,timestamp\n", ",")),
            &[("min", "1000")],
            "no user and no item keeps 1000 interactions: lower --min-interactions",
        ),
        (
            "times.txt",
            Some(separated("", " ")),
            &[],
            "FILE: line 1: this is data, not a header (u0, i0, 1700000000). Name the columns, for example --columns user,item,timestamp",
        ),
        (
            "when.parquet",
            Some(fs::read(fixture("none.parquet")).unwrap()),
            &[],
            "FILE: the column `when_us` looks like a time (its type is a date or a timestamp) and is not used. Pass --time-column when_us, or --time-column none if the order of the lines is the order of time",
        ),
        (
            "nulls.parquet",
            None,
            &[],
            "FILE: row 2: `user` is empty. 2 of 3 rows (67 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "lists.parquet",
            None,
            &[],
            "FILE: no column is named like an item (columns: user, item.list.element). Name it with --item-column",
        ),
        (
            "brotli.parquet",
            None,
            &[("time", "when_us")],
            "FILE: the Parquet file cannot be read: its pages are compressed by brotli: write it with snappy, gzip, lz4 or zstd",
        ),
        (
            "cut.parquet",
            Some(fs::read(fixture("zstd.parquet")).unwrap()[..3000].to_vec()),
            &[],
            "FILE: the Parquet file cannot be read: Parquet error: Invalid Parquet file. Corrupt footer",
        ),
        (
            "packed.parquet.gz",
            Some({
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut gzip, &fs::read(fixture("zstd.parquet")).unwrap()).unwrap();
                gzip.finish().unwrap()
            }),
            &[],
            "FILE: this is a packed Parquet file, which canet does not read. Unpack it: gunzip or zstd -d. Parquet is compressed within",
        ),
        (
            "garbage.csv",
            Some(b"\x01\x02\x03\0\x05garbage".to_vec()),
            &[],
            "FILE: this is a binary file of an unknown format, which canet does not read. Export the data as CSV, JSON lines or Parquet",
        ),
    ]);
}
