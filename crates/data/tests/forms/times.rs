//! Columns of times in formats that a flag names, and columns that conditions compare.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use canet_data::Dataset;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

use super::{compare, options, text};

/// The log with its second of November 2023 in another form. The log covers fewer days than a month has.
fn dated(header: &str, write: impl Fn(u32) -> String) -> Vec<u8> {
    text(header, |user, item, time| format!("{user},{item},{}", write(time[5..8].parse().unwrap())))
}

#[test]
fn a_format_reads_the_column_of_times() {
    let american = || Some(dated("user,item,date\n", |day| format!("11/{}/2023 9:05", day % 30 + 1)));
    compare(vec![
        (
            "american.csv",
            american(),
            &[("format", "%m/%d/%Y %H:%M")],
            "CSV, separated by commas: user item date in dates by '%m/%d/%Y %H:%M': 40 users, 27 items, 400 interactions",
        ),
        (
            "other.csv",
            american(),
            &[("format", "%m/%d/%Y")],
            "FILE: line 2: `date` is \"11/1/2023 9:05\", which does not match --time-format '%m/%d/%Y'. 400 of 400 lines (100 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "compact.jsonl",
            Some(text("", |u, i, _| format!("{{\"user\":\"{u}\",\"item\":\"{i}\",\"ts\":20231114}}"))),
            &[("format", "%Y%m%d")],
            "JSON lines: user item ts in dates by '%Y%m%d': 40 users, 27 items, 400 interactions",
        ),
        (
            "log.inter",
            Some(text("user_id:token\titem_id:token\ttimestamp:token\n", |u, i, _| format!("{u}\t{i}\t14.11.2023"))),
            &[("format", "%d.%m.%Y")],
            "RecBole's .inter, separated by tabs: user_id item_id timestamp in dates by '%d.%m.%Y': 40 users, 27 items, 400 interactions",
        ),
        (
            "quoted.csv",
            Some(text("user,item,date,title\n", |u, i, _| format!("{u},{i},11/14/2023,\"a\nb,c,11/15,d\""))),
            &[("format", "%m/%d/%Y")],
            "CSV, separated by commas: user item date in dates by '%m/%d/%Y': 40 users, 27 items, 400 interactions",
        ),
        (
            "unnamed.csv",
            Some(dated("user,item,when\n", |_| "11/14/2023".to_owned())),
            &[("format", "%m/%d/%Y")],
            "FILE: --time-format needs a column of times (columns: user, item, when). Name it with --time-column",
        ),
        (
            "none.csv",
            american(),
            &[("format", "%m/%d/%Y"), ("time", "none")],
            "FILE: --time-format needs a column of times (columns: user, item, date). Name it with --time-column",
        ),
        (
            "pairs.txt",
            Some(b"1 2\n1 3\n".to_vec()),
            &[("format", "%m/%d/%Y")],
            "FILE: `user item` lines have no named columns, which --time-format needs",
        ),
        (
            "pandas.parquet",
            None,
            &[("format", "%m/%d/%Y")],
            "Parquet: visitorid sku event_time in dates: 40 users, 27 items, 400 interactions",
        ),
        (
            "digits.csv",
            Some(text("user,item,date\n", |u, i, _| format!("{u},{i},2023111422"))),
            &[],
            "CSV, separated by commas: user item date in dates as numbers such as 20231114: 40 users, 27 items, 400 interactions",
        ),
        (
            "null.csv",
            Some(dated("user,item,date\n", |_| "0001-01-01T00:00:00".to_owned())),
            &[],
            "FILE: line 2: `date` is \"0001-01-01T00:00:00\", a date outside the years 1677 to 2262, which often stands for a missing one. Select the others: --where 'date!=0001-01-01T00:00:00'. 400 of 400 lines (100 %) are bad: check that the file and its columns are the right ones",
        ),
        (
            "compared.csv",
            american(),
            &[("where", "date>=2023-11-14")],
            "FILE: line 2: `date` is \"11/1/2023 9:05\", but date>=2023-11-14 needs a date or a number since 1970. Leave such lines out: --where 'date!=11/1/2023 9:05'. 400 of 400 lines (100 %) are bad: check that the file and its columns are the right ones",
        ),
    ]);
}

#[test]
fn a_condition_on_the_time_reads_it_by_the_format() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.csv");
    let read = |row: &str, flags: &[(&str, &str)]| {
        let rows = (1..=28).map(|day| row.replace("DD", &format!("{day:02}"))).collect::<String>();
        fs::write(&path, format!("user,item,date\n{rows}")).unwrap();
        Dataset::read(&path, &options(flags)).map(|dataset| dataset.interactions).unwrap()
    };
    let condition = ("where", "date<2023-11-15");
    assert_eq!(read("u,i,DD.11.2023\n", &[condition, ("format", "%d.%m.%Y")]), 14);
    assert_eq!(read("u,i,202311DD\n", &[condition]), 14);
    assert_eq!(read("u,i,202311DD22\n", &[condition, ("format", "%Y%m%d%H")]), 14);
    assert_eq!(read("u,i,2023-11-DD\n", &[("where", "date=2023-11-15T00:00:00Z")]), 1);
}

fn write_column<T: DataType>(rows: &mut SerializedRowGroupWriter<'_, File>, values: &[T::T]) {
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, None, None).unwrap();
    column.close().unwrap();
}

/// Three rows with a time as a text, as digits and as a date, the last of which is a null of .NET, and ratings of 32 bits.
fn write_parquet(path: &Path) {
    let schema = "message log { required binary user (UTF8); required binary item (UTF8); required binary text (UTF8); \
                  required int64 digits; required int64 stamp (TIMESTAMP_MICROS); required float rating; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let texts = |texts: [&str; 3]| texts.map(ByteArray::from);
    write_column::<ByteArrayType>(&mut rows, &texts(["u"; 3]));
    write_column::<ByteArrayType>(&mut rows, &texts(["a", "b", "c"]));
    write_column::<ByteArrayType>(&mut rows, &texts(["3/11/2023", "2/11/2023", "1/11/2023"]));
    write_column::<Int64Type>(&mut rows, &[20_231_103, 20_231_102, 20_231_101]);
    write_column::<Int64Type>(&mut rows, &[1_698_969_600_000_000, 1_698_883_200_000_000, -62_135_596_800_000_000]);
    write_column::<FloatType>(&mut rows, &[4.1, 0.3, 5.0]);
    rows.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_columns_are_read_by_the_format_unless_their_type_is_a_time() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.parquet");
    write_parquet(&path);
    let read = |flags: &[(&str, &str)]| {
        let read = Dataset::read(&path, &options(flags));
        read.map(|dataset| {
            let items = dataset.sequences[0].iter().map(|item| &*dataset.ids[item.column() - 1]);
            (items.collect::<String>(), dataset.span.map(|span| span.first / 1_000_000_000))
        })
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    };
    // 2023-11-01 and 2023-11-02 in seconds since 1970, as Python says.
    let sorted = Ok(("cba".to_owned(), Some(1_698_796_800)));
    assert_eq!(read(&[("time", "text"), ("format", "%d/%m/%Y")]), sorted);
    assert_eq!(read(&[("time", "digits"), ("format", "%Y%m%d")]), sorted);
    assert_eq!(read(&[("time", "digits")]), sorted);
    let without_null = Ok(("ba".to_owned(), Some(1_698_883_200)));
    for flags in [("skip", "1"), ("where", "stamp!=0001-01-01"), ("where", "stamp>2000-01-01")] {
        assert_eq!(read(&[("time", "stamp"), ("format", "%d/%m/%Y"), flags]), without_null, "{flags:?}");
    }
    let null = read(&[("time", "stamp")]).unwrap_err();
    assert!(null.starts_with("FILE: row 3: `stamp` is \"0001-01-01T00:00:00Z\", a date outside the years"), "{null}");
    for (condition, items) in [("rating=4.1", "a"), ("rating>=4.1", "ca"), ("rating<=0.3", "b"), ("rating=5.0", "c")] {
        assert_eq!(read(&[("time", "digits"), ("where", condition)]).map(|read| read.0), Ok(items.to_owned()));
    }
}
