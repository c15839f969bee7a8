use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{ItemTable, ItemTableError};

/// An item's title, whether it is hidden, and its values by key.
type Entry = (Option<String>, bool, BTreeMap<String, Vec<String>>);

/// The items by id.
fn entries(table: &ItemTable) -> BTreeMap<String, Entry> {
    let values = |place: usize| {
        let of_key = |key: &super::ItemKey| {
            let values = key.values_of(place).iter().map(|value| key.values()[*value as usize].to_string());
            (key.name().to_owned(), values.collect::<Vec<_>>())
        };
        table.keys().iter().map(of_key).filter(|(_, values)| !values.is_empty()).collect()
    };
    let entry = |place: usize| (table.title(place).map(str::to_owned), table.is_hidden(place), values(place));
    (0..table.len()).map(|place| (table.id(place).to_owned(), entry(place))).collect()
}

fn entry(title: Option<&str>, hidden: bool, values: &[(&str, &[&str])]) -> Entry {
    let values =
        values.iter().map(|(key, values)| ((*key).to_owned(), values.iter().map(ToString::to_string).collect()));
    (title.map(str::to_owned), hidden, values.collect())
}

fn read(text: impl AsRef<[u8]>) -> Result<ItemTable, ItemTableError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue");
    std::fs::write(&path, text).unwrap();
    ItemTable::read(&path)
}

fn refused(text: impl AsRef<[u8]>) -> String {
    let message = read(text).unwrap_err().to_string();
    let (path, message) = message.split_once("catalogue: ").unwrap();
    assert!(path.starts_with('/'), "{path}");
    message.to_owned()
}

fn expected() -> BTreeMap<String, Entry> {
    BTreeMap::from([
        (
            "1".to_owned(),
            entry(Some("Toy, \"Story\""), false, &[("category", &["kids", "toys"]), ("price", &["3.50"])]),
        ),
        ("2".to_owned(), entry(None, true, &[("category", &["kids"])])),
        ("x3".to_owned(), entry(Some("Été"), false, &[])),
    ])
}

#[test]
fn tables_of_every_separator_and_json_lines_hold_the_same() {
    let rows = [
        "id,title,hidden,category,price",
        "1,\"Toy, \"\"Story\"\"\",false,toys|kids|toys,3.50",
        "2,,TRUE, kids |,",
        "x3,Été,0,,",
    ];
    let csv = rows.join("\n");
    let json = concat!(
        r#"{"id": 1, "title": "Toy, \"Story\"", "hidden": false, "category": ["toys", "kids", "toys"], "price": 3.50}"#,
        "\n\n",
        r#"{"category": "kids", "hidden": true, "id": "2", "title": null, "price": []}"#,
        "\r\n",
        r#"{"id": "x3", "title": "\u00c9t\u00e9", "category": [null]}"#,
    );
    let tabs = "id\ttitle\thidden\tcategory\tprice\n1\t\"Toy, \"\"Story\"\"\"\tno\tkids|toys\t3.50\n2\t\tyes\tkids\t\nx3\tÉté\t\t\t\n";
    // In a table of bars, quotes hold several values together.
    let bars = "id|title|hidden|category|price\n1|\"Toy, \"\"Story\"\"\"|0|\"kids|toys\"|3.50\n2||1|kids|\nx3|Été|||\n";
    for text in [&csv, &csv.replace('\n', "\r\n"), &format!("\u{feff}{csv}\n"), json, tabs, bars] {
        let table = read(text).unwrap();
        assert_eq!(entries(&table), expected(), "{text}");
        assert_eq!(table.keys()[0].values(), ["kids", "toys"].map(Box::from));
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, csv.as_bytes()).unwrap();
    assert_eq!(entries(&read(packed.finish().unwrap()).unwrap()), expected());
}

#[test]
fn recbole_lists_are_separated_by_blanks() {
    let text = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n\
                1\tToy Story\t1995\tAnimation Comedy\n2\tHeat\t\tAction\n";
    let toy = entry(Some("Toy Story"), false, &[("class", &["Animation", "Comedy"]), ("release_year", &["1995"])]);
    let heat = entry(Some("Heat"), false, &[("class", &["Action"])]);
    let expected = BTreeMap::from([("1".to_owned(), toy), ("2".to_owned(), heat)]);
    assert_eq!(entries(&read(text).unwrap()), expected);
}

#[test]
fn parquet_holds_lists_and_nulls() {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data/catalogue.parquet");
    let table = ItemTable::read(&path).unwrap();
    // As `make_data.py` writes it.
    let of_place = |place: usize| {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let category: Vec<String> = match place {
            _ if place.is_multiple_of(11) => Vec::new(),
            _ => (0..place % 3).map(|step| format!("c{}", (place + step) % 4)).collect(),
        };
        values.insert("category".to_owned(), category);
        let price = if place.is_multiple_of(13) { Vec::new() } else { vec![(place as f64 / 2.0).to_string()] };
        values.insert("price".to_owned(), price);
        values.insert("brand".to_owned(), vec![format!("b{}", place % 9)]);
        values.insert("tags".to_owned(), vec![(place % 10).to_string(), (place % 3).to_string()]);
        values.values_mut().for_each(|values| {
            values.sort();
            values.dedup();
        });
        values.retain(|_, values| !values.is_empty());
        let title = (!place.is_multiple_of(5)).then(|| format!("Title {place}"));
        ((place + 1).to_string(), (title, place.is_multiple_of(7), values))
    };
    assert_eq!(entries(&table), (0..300).map(of_place).collect());
    let names: Vec<&str> = table.keys().iter().map(super::ItemKey::name).collect();
    assert_eq!(names, ["category", "price", "brand", "tags"]);
}

#[test]
fn common_names_of_items_stand_for_id() {
    for header in ["ID,colour", "item_id,colour", "Product-ID,colour", "colour,sku", "sku,id"] {
        assert_eq!(read(format!("{header}\na,b\n")).unwrap().len(), 1, "{header}");
    }
    let table = read("sku,id\na,b\n").unwrap();
    assert_eq!((table.id(0), table.keys()[0].name()), ("b", "sku"));
}

#[test]
fn wrong_files_are_refused_with_their_line() {
    let long = "v".repeat(ItemTable::MAX_VALUE_BYTES + 1);
    let many: String = (0..=ItemTable::MAX_VALUES_OF_ITEM).map(|value| format!("{value}|")).collect();
    let keys: Vec<String> = (0..=ItemTable::MAX_KEYS).map(|key| format!("k{key}")).collect();
    for (text, expected) in [
        ("", "the file is empty"),
        ("id,category\n", "the file has no item"),
        ("name,category\na,b\n", "no column is named `id` (columns: name, category)"),
        ("{\"name\": 1}\n", "no column is named `id` (columns: name)"),
        ("{\"id\": 1}\n{\"name\": 1}\n", "line 2: `id` is empty"),
        ("id,a\n1,x\n2\n", "line 3: 1 columns instead of 2"),
        ("id,a\n1,x\n\n1,y\n", "line 4: the item \"1\" stands in an earlier line too"),
        ("id,a\n,x\n", "line 2: `id` is empty"),
        ("id,hidden\n1,maybe\n", "line 2: `hidden` is \"maybe\", which is neither true nor false"),
        ("{\"id\": 1, \"hidden\": [true]}", "line 1: `hidden` is a list, where one value is needed"),
        ("{\"id\": 1, \"a\": {\"b\": 1}}", "line 1: `a` is an object or a list, not a text or a number"),
        ("{\"id\": 1, \"a\": [[1]]}", "line 1: `a` is an object or a list, not a text or a number"),
        ("{\"id\": 1\n", "line 1: this is one JSON document"),
        ("\n \n{\"id\": 1\n", "line 3: this is one JSON document"),
        ("{\"id\": 1}\nnothing\n", "line 2: not a JSON object"),
        ("{\"id\": 1}\n{\"sku\": 2, \"hidden\": true}\n", "line 2: `id` is empty"),
        (
            "{\"id\": 1, \"hidden\": true, \"Hidden\": false}",
            "line 1: `Hidden` stands in the object twice: leave one out",
        ),
        ("{\"id\": 1, \"hidden\": true, \"hidden\": false}", "line 1: `hidden` stands in the object twice"),
        ("{\"id\": 1, \"title\": \"a\", \"title\": \"b\"}", "line 1: `title` stands in the object twice"),
        ("{\"id\": 1, \"id\": 2}", "line 1: `id` stands in the object twice"),
        ("{\"id\": 1, \"not\": 1}", "line 1: the key `not` has a name that means the opposite of a filter"),
        ("id,not\n1,2\n", "the column `not` has a name that means the opposite of a filter: rename it"),
        ("id,a,a\n1,2,3\n", "the column `a` stands in the header twice: rename one"),
        ("id,a,\n1,2,3\n", "the column `` needs a name of 1 to 64 bytes"),
        (&format!("id,a\n1,{long}\n"), "line 2: a value of `a` has 257 bytes, more than 256: leave the column out"),
        (&format!("id,a\n1,{many}\n"), "line 2: the item has 257 values of `a`, more than 256"),
        (&format!("id,{}\n", keys.join(",")), "the column `k64` is one key more than 64: leave out columns"),
    ] {
        let message = refused(text);
        assert!(message.starts_with(expected), "{text}: {message}");
    }
    assert!(refused(b"id,a\n1,\xe9\n").starts_with("line 2: not UTF-8"));
    assert!(refused(b"PAR1 and nothing").contains("the Parquet file cannot be read"));
    assert!(refused(b"PK\x03\x04\xff").contains("a zip archive"));
    assert!(ItemTable::read(Path::new("/none")).unwrap_err().is_io());
}

#[test]
fn later_keys_have_no_values_before() {
    let table = read("{\"id\": 1}\n{\"id\": 2, \"a\": \"x\"}\n{\"id\": 3, \"b\": [2, 1]}\n").unwrap();
    let places = |key: usize| (0..3).map(|place| table.keys()[key].values_of(place).len()).collect::<Vec<_>>();
    assert_eq!((places(0), places(1)), (vec![0, 1, 0], vec![0, 0, 2]));
}
