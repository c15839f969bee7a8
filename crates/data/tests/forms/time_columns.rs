//! Which column is the time if several could be, and which columns stop a file that has none.

use canet_data::Dataset;

use super::{compare, options, text};

#[test]
fn a_column_that_looks_like_a_better_time_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let remark = |name: &str, header: &str, row: &dyn Fn(&str) -> String, flags: &[(&str, &str)]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text(header, |user, item, time| format!("{user},{item},{}", row(time)))).unwrap();
        Dataset::read(&path, &options(flags)).unwrap().coarse.map(|coarse| coarse.to_string())
    };
    let finer = |time: &str| format!("2023-11-14,{time}");
    let found = remark("a.csv", "user,item,date,logged\n", &finer, &[]);
    assert_eq!(
        found.as_deref(),
        Some(
            "the times of `date` are dates without a time of day, but `logged` looks like a finer time (1700000000): pass \
             --time-column logged to use it, or --time-column date to confirm the dates"
        )
    );
    assert_eq!(remark("b.csv", "user,item,date,logged\n", &finer, &[("time", "date")]), None);
    assert_eq!(remark("c.csv", "user,item,date,born\n", &|_| "2023-11-14,1980-01-01".to_owned(), &[]), None);
    assert_eq!(remark("d.csv", "user,item,timestamp,date\n", &|time| format!("{time},2023-11-14"), &[]), None);
}

#[test]
fn a_column_that_is_named_like_a_time_stops_a_file_without_times() {
    let with =
        |name: &str, value: &str| Some(text(&format!("user,item,{name}\n"), |u, i, _| format!("{u},{i},{value}")));
    compare(vec![
        (
            "clock.csv",
            Some(text("user,item,time,day_of\n", |u, i, _| format!("{u},{i},221320,2023-11-14"))),
            &[],
            "FILE: the column `day_of` looks like a time (2023-11-14) and is not used, because `time` has a common name of times. Its values (221320) are no times since 1970. Pass --time-column day_of, or --time-column time to sort by these numbers",
        ),
        (
            "clock-given.csv",
            Some(text("user,item,time,day_of\n", |u, i, _| format!("{u},{i},221320,2023-11-14"))),
            &[("time", "time")],
            "CSV, separated by commas: user item time in numbers: 40 users, 27 items, 400 interactions",
        ),
        (
            "compact.csv",
            with("purchase_dt", "20231114"),
            &[],
            "FILE: the column `purchase_dt` may hold times (20231114). Pass --time-column purchase_dt, with --time-format if they are dates of another form, or --time-column none if the order of the lines is the order of time",
        ),
        (
            "when.csv",
            with("when", "11/14/2023 22:50"),
            &[],
            "FILE: the column `when` may hold times (11/14/2023 22:50). Pass --time-column when, with --time-format if they are dates of another form, or --time-column none if the order of the lines is the order of time",
        ),
        (
            "version.csv",
            with("version", "1.12.103"),
            &[],
            "CSV, separated by commas: user item -: 40 users, 27 items, 400 interactions",
        ),
        (
            "american.csv",
            with("Rating Date", "11/14/2023"),
            &[("time", "none")],
            "CSV, separated by commas: user item -: 40 users, 27 items, 400 interactions",
        ),
        (
            "update_count.csv",
            with("update_count", "17"),
            &[],
            "CSV, separated by commas: user item -: 40 users, 27 items, 400 interactions",
        ),
        (
            "watch_time.csv",
            with("watch_time", "00:12:35"),
            &[],
            "CSV, separated by commas: user item -: 40 users, 27 items, 400 interactions",
        ),
    ]);
}
