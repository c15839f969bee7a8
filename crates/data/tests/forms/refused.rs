//! The forms that are refused, each with its error.

use std::fs;

use super::{compare, fixture, separated, text};

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
            "FILE: line 1: this is data, not a header (u0, i0, 1700000000). Name the columns, for example --columns user,item,timestamp; check which column is the user",
        ),
        (
            "headless-ratings.csv",
            Some(text("", |u, i, t| format!("{u},{i},4.0,{t}"))),
            &[],
            "FILE: line 1: this is data, not a header (u0, i0, 4.0, 1700000000). Name the columns, for example --columns user,item,rating,timestamp; check which column is the user",
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
            "FILE: line 2: `date` is \"11/14/2023\", which is neither a number nor an ISO 8601 date such as 2023-11-14T22:50:40Z. Name its format: --time-format '%m/%d/%Y'. 400 of 400 lines (100 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "where.csv",
            Some(text("user,item,event\n", |u, i, _| format!("{u},{i},view"))),
            &[("where", "event=purchase")],
            "FILE: no row meets event=purchase; the column holds view",
        ),
        (
            "blank.csv",
            Some(text("user,item,event\n", |u, i, _| format!("{u},{i},"))),
            &[("where", "event=purchase")],
            "FILE: no row meets event=purchase; the column holds \"\"",
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
            "FILE: line 1: this is data, not a header (u0, i0, 1700000000). Name the columns, for example --columns user,item,timestamp; check which column is the user",
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
            "FILE: row 2: `user` is empty (leave such rows out: --where 'user!='). 2 of 3 rows (67 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "null.csv",
            Some(b"visitor,item\nann,1\nNULL,2\n\\N,3\nbob,NA\n".to_vec()),
            &[],
            "FILE: line 3: the user is `NULL`, which stands for a missing value (leave such rows out: --where 'visitor!=NULL'). 3 of 4 lines (75 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "null.jsonl",
            Some(b"{\"user\":\"None\",\"item\":1}\n{\"user\":null,\"item\":1}\n".to_vec()),
            &[("where", "user!=None")],
            "FILE: line 2: `user` is empty (leave such rows out: --where 'user!='). 1 of 2 lines (50 %) is bad: check that the file and its columns are the right ones",
        ),
        (
            "null.txt",
            Some(b"ann 1\nann undefined\nbob 1\n".to_vec()),
            &[],
            "FILE: line 2: the item is `undefined`, which stands for a missing value. 1 of 3 lines (33 %) is bad: check that the file and its columns are the right ones",
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
