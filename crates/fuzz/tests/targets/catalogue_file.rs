//! Catalogue files of every format, and filters over their keys.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use canet_catalogue::{FilterExpression, ItemIndex, Restriction};
use canet_data::ItemTable;
use canet_domain::Item;
use canet_fuzz::Outcome;
use canet_testing::catalogue;
use serde_json::json;

use super::{fuzz, target};

#[test]
fn catalogue_file() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data");
    let directory = tempfile::tempdir().unwrap();
    let items = catalogue(20);
    let target = target("catalogue-file").directory(&fixtures, |name| name == "catalogue.parquet").unwrap().tokens(&[
        "\n",
        ",",
        "|",
        "\t",
        "\"",
        "id",
        "title",
        "hidden",
        "not",
        "category",
        "true",
        "x1001",
        "x1002",
        "{\"id\":\"x1003\"}\n",
        "[\"a\",\"b\"]",
        "null",
        "\u{feff}",
        "\u{0}",
        "PAR1",
        ":token_seq",
        "a|a|a",
        ",,,",
    ]);
    fuzz(&target, 1000, |seed| {
        let path = directory.path().join(&seed.name);
        fs::write(&path, &seed.bytes).unwrap();
        let table = ItemTable::read(&path);
        fs::remove_file(&path).unwrap();
        let table = match table {
            Ok(table) => Arc::new(table),
            Err(error) => {
                assert!(error.to_string().len() < 16 << 10, "{error}");
                return Outcome::Refused(error.to_string());
            }
        };
        assert!(!table.is_empty());
        let index = Arc::new(ItemIndex::new(Arc::clone(&table), &items));
        let all = (1..=items.len() as u32).filter_map(Item::new);
        for key in table.keys() {
            assert!(key.values().is_sorted(), "{key:?}");
            for (place, value) in key.values().iter().enumerate().take(4) {
                let filter: FilterExpression = serde_json::from_value(json!({key.name(): [value]})).unwrap();
                let restriction = Restriction::new(&index, Some(&filter), None).unwrap().unwrap();
                // By the table alone: the line of the item, if there is one.
                let has_value = |item: Item| {
                    let line = (0..table.len()).find(|line| table.id(*line) == items.id(item));
                    line.is_some_and(|line| !table.is_hidden(line) && key.values_of(line).contains(&(place as u32)))
                };
                assert!(all.clone().all(|item| restriction.allows(item) == has_value(item)), "{key:?}, {value:?}");
            }
        }
        Outcome::Accepted
    });
}
