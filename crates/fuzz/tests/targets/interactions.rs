//! Interaction files of every format.

use std::fs;
use std::path::Path;

use canet_data::{BadLinePolicy, Dataset, ReadOptions, TimeColumn};
use canet_domain::Catalogue;
use canet_fuzz::{Outcome, Target};

use super::{fuzz, target};

/// Files of the fixtures that are read as they are. The others are of formats that are refused.
fn is_read(name: &str) -> bool {
    let refused = ["brotli.parquet", "catalogue.parquet", "lists.parquet", "nulls.parquet", "log.arrow", "log.pkl"];
    let packed = [".bz2", ".xz", ".zip"];
    !refused.contains(&name) && !packed.iter().any(|extension| name.ends_with(extension))
}

/// More than any input of the corpus needs.
const MAX_BYTES: u64 = 256 << 20;

fn options(bad_lines: BadLinePolicy, time_column: &TimeColumn) -> ReadOptions {
    ReadOptions { bad_lines, time_column: time_column.clone(), max_bytes: Some(MAX_BYTES), ..ReadOptions::default() }
}

/// Reads a file as it is and with bad lines skipped.
fn check(path: &Path, time_column: &TimeColumn) -> Outcome {
    let strict = Dataset::read(path, &options(BadLinePolicy::Stop, time_column));
    let lenient = Dataset::read(path, &options(BadLinePolicy::Skip { max_share: 1.0 }, time_column));
    for dataset in strict.iter().chain(&lenient) {
        let known = Catalogue::new(dataset.ids.clone(), vec![0; dataset.ids.len()]);
        assert!(known.is_ok(), "{known:?}");
        assert_eq!(dataset.users.len(), dataset.sequences.len());
        assert!(dataset.sequences.iter().all(|sequence| !sequence.is_empty()));
        assert!(dataset.sequences.iter().flatten().all(|item| (1..=dataset.ids.len()).contains(&item.column())));
        assert_eq!(dataset.sequences.iter().map(Vec::len).sum::<usize>() as u64, dataset.interactions);
    }
    match (&strict, &lenient) {
        (Ok(strict), Ok(lenient)) => assert_eq!(strict.parsed_sha256, lenient.parsed_sha256),
        (Ok(_), Err(error)) => panic!("skipping bad lines refuses what has none: {error}"),
        (Err(error), _) => assert!(error.to_string().len() < 16 << 10, "{error}"),
    }
    if let Ok(timed) = Dataset::read_all_timed(&[path.to_owned()], &options(BadLinePolicy::Stop, time_column)) {
        for (sequence, times) in timed.dataset.sequences.iter().zip(&timed.times) {
            assert_eq!(sequence.len(), times.len());
            assert!(times.is_sorted(), "{times:?}");
        }
    }
    match strict {
        Err(error) if lenient.is_err() => Outcome::Refused(error.to_string()),
        _ => Outcome::Accepted,
    }
}

fn fuzz_files(target: &Target, cases: u32, time_column: &TimeColumn) {
    let directory = tempfile::tempdir().unwrap();
    fuzz(target, cases, |seed| {
        // The extension may tell the format.
        let path = directory.path().join(&seed.name);
        fs::write(&path, &seed.bytes).unwrap();
        let outcome = check(&path, time_column);
        fs::remove_file(path).unwrap();
        outcome
    });
}

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data")
}

#[test]
fn tables_and_lines() {
    let target = target("interactions")
        .directory(&fixtures(), |name| is_read(name) && !name.ends_with(".parquet"))
        .unwrap()
        .tokens(&[
            "\n",
            "\r\n",
            "\r",
            "\n\n",
            "\t",
            ",",
            ";",
            "|",
            "::",
            "\"",
            "\"\"",
            "'",
            " ",
            "\u{feff}",
            "\u{0}",
            "\u{a0}",
            "user",
            "item",
            "timestamp",
            "user_id:token",
            "item_id:token",
            "timestamp:float",
            "time",
            "2020-01-01",
            "2020-02-30T25:61:61Z",
            "9999-12-31T23:59:59.999999999+14:00",
            "-0001-01-01",
            "inf",
            "nan",
            "{",
            "}",
            "[",
            "]",
            "{}",
            "null",
            "{\"user\":1,\"item\":2,\"ts\":3}\n",
            "\\",
            "\\ud800",
            "#",
            "é",
            "a b\n",
            "1::2::3::978300760\n",
            "1,1,1\n",
        ]);
    fuzz_files(&target, 1200, &TimeColumn::Detect);
}

#[test]
fn parquet() {
    let target = target("parquet")
        .directory(&fixtures(), |name| is_read(name) && name.ends_with(".parquet"))
        .unwrap()
        .tokens(&["PAR1", "user", "item", "timestamp", "\u{15}\u{0}", "\u{1c}", "\u{0}\u{0}\u{0}\u{0}"]);
    // Their columns of times have no common names.
    fuzz_files(&target, 600, &TimeColumn::FileOrder);
}
