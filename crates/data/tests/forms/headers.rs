//! Headers where rows are expected.

use std::io::Write;

use canet_data::{Dataset, ReadOptions};

use super::{compare, separated, text};

#[test]
fn a_header_is_never_an_interaction() {
    let untimed = |header: &str| text(header, |user, item, _| format!("{user},{item}"));
    let joined = |first: &str, second: &str| Some([untimed(first), untimed(second)].concat());
    compare(vec![
        (
            "named.csv",
            Some(separated("user_id,item_id,ts\n", ",")),
            &[("columns", "user, item,time")],
            "FILE: line 1: this is a header (user_id, item_id, ts), and --columns is for tables without one. Leave out --columns; --user-column, --item-column and --time-column name columns of the header",
        ),
        (
            "blanks.csv",
            Some(separated("", ",")),
            &[("columns", "user, item, time")],
            "CSV, separated by commas, without a header: user item time in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "joined.csv",
            joined("user,item\n", "user,item\n"),
            &[],
            "CSV, separated by commas: user item -: 40 users, 27 items, 800 interactions",
        ),
        (
            "marks.csv",
            joined("\u{feff}user,item\r\n", "\u{feff}user,item\r\n"),
            &[],
            "CSV, separated by commas: user item -: 40 users, 27 items, 800 interactions",
        ),
        (
            "swapped.csv",
            joined("user,item\n", "Item,User\n"),
            &[("skip", "1")],
            "FILE: line 402: a second header, with other columns than the first. Split the file here",
        ),
        (
            "excel.csv",
            Some(separated("sep=;\r\nuser;item;ts\n", ";")),
            &[],
            "CSV, separated by semicolons: user item ts in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "excel-bad.csv",
            Some(b"sep=;\nuser;item\nann;\n".to_vec()),
            &[],
            "FILE: line 3: `item` is empty (leave such rows out: --where 'item!='). 1 of 1 lines (100 %) is bad: check that the file and its columns are the right ones",
        ),
        (
            "types.inter",
            Some(separated("user_id:token\titem_id:token\ttimestamp:int\n", "\t")),
            &[],
            "RecBole's .inter, separated by tabs: user_id item_id timestamp in seconds since 1970: 40 users, 27 items, 400 interactions",
        ),
        (
            "words.txt",
            Some(text("", |u, i, t| {
                format!(
                    "{u}\t{i}\t2023-11-14 22:{:02}:{:02}",
                    &t[6..8].parse::<u8>().unwrap() % 60,
                    &t[8..10].parse::<u8>().unwrap() % 60
                )
            })),
            &[],
            "FILE: line 1: this is data, not a header (u0, i0, 2023-11-14 22:00:00). Name the columns, for example --columns user,item,timestamp; check which column is the user",
        ),
    ]);
}

#[test]
fn packed_files_that_are_joined_have_a_header_each() {
    let packed = |text: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        gzip.finish().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv.gz");
    let parts = [packed(b"user,item,ts\nann,1,1700000000\n"), packed(b"user,item,ts\nann,2,1700000001\n")];
    std::fs::write(&path, parts.concat()).unwrap();
    let dataset = Dataset::read(&path, &ReadOptions::default()).unwrap();
    assert_eq!((dataset.interactions, dataset.files[0].lines, dataset.skipped.count), (2, 2, 0));
}
