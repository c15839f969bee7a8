//! The forms that are read, each with the columns and counts that were understood.

use canet_data::{Dataset, ReadOptions};

use super::{compare, fixture, in_order, options, separated, text};

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
fn a_condition_on_the_time_of_a_parquet_file_selects_rows_by_it() {
    let read = |flags: &[(&str, &str)]| Dataset::read(&fixture("snappy.parquet"), &options(flags)).unwrap();
    let by_rating = read(&[("time", "when_us"), ("where", "rating>=2")]);
    let by_time = read(&[("time", "rating"), ("where", "rating>=2")]);
    assert_eq!((by_time.interactions, by_time.users.len()), (by_rating.interactions, by_rating.users.len()));
    assert_eq!(by_time.interactions, 240);
    // The times are the same whether or not they have a condition.
    let every = read(&[("time", "rating"), ("where", "rating>=0")]);
    assert_eq!(every.parsed_sha256, read(&[("time", "rating")]).parsed_sha256);
}

#[test]
fn a_condition_may_name_a_date() {
    let read = |name: &str, flags: &[(&str, &str)]| Dataset::read(&fixture(name), &options(flags)).unwrap();
    // 2023-11-15 is 1700006400 s after 1970.
    let numbers = read("log.csv", &[("where", "timestamp>=1700006400")]);
    assert!((1..400).contains(&numbers.interactions), "{}", numbers.interactions);
    let dates = read("log.csv", &[("where", "timestamp>=2023-11-15")]);
    assert_eq!(dates.parsed_sha256, numbers.parsed_sha256);
    for (name, column) in [("pandas.parquet", "event_time"), ("polars.parquet", "ts")] {
        let condition = format!("{column}>=2023-11-15");
        let selected = read(name, &[("time", column), ("where", &condition)]);
        assert_eq!(selected.parsed_sha256, numbers.parsed_sha256, "{name}");
    }
    // The same log with other ids, in each type that holds times.
    for name in ["none.parquet", "int96.parquet"] {
        let selected = read(name, &[("time", "when_us"), ("where", "when_us>=2023-11-15")]);
        assert_eq!(selected.interactions, numbers.interactions, "{name}");
    }
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
