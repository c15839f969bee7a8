use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use canet_data::{ItemTable, ItemTableBuilder};
use canet_domain::{Catalogue, Item};
use proptest::prelude::*;

use super::{Restriction, SetPool};
use crate::{FilterExpression, ItemIndex, MaxPer};

const ITEMS: usize = 150;

/// What a file says about an item: whether it is hidden, and its values by key.
type Row = (bool, BTreeMap<&'static str, BTreeSet<u32>>);

/// The rows of a file by item. Some items have none.
fn rows() -> impl Strategy<Value = HashMap<u32, Row>> {
    let values = |most: u32| prop::collection::btree_set(0..most, 0..3);
    let row = (prop::bool::weighted(0.1), values(3), values(40));
    let row = row.prop_map(|(hidden, a, b)| (hidden, BTreeMap::from([("a", a), ("b", b)])));
    prop::collection::hash_map(1..=ITEMS as u32, row, 0..ITEMS)
}

/// A filter of `values` under one key, and perhaps more filters.
fn filters() -> impl Strategy<Value = FilterExpression> {
    let values = prop::collection::vec(0..4_u32, 1..4);
    let term = (prop::sample::select(vec!["a", "b"]), values);
    let terms = prop::collection::btree_map(Just(()), term, 0..2);
    let leaf = terms.prop_map(|terms| {
        let terms = terms.into_values().map(|(key, values)| (key.into(), values.iter().map(text).collect()));
        FilterExpression { terms: terms.collect(), not: Vec::new() }
    });
    leaf.prop_recursive(3, 12, 3, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..3)).prop_map(|(filter, not)| FilterExpression { not, ..filter })
    })
}

fn text(value: &u32) -> Box<str> {
    format!("v{value}").into()
}

fn catalogue() -> Catalogue {
    Catalogue::new((1..=ITEMS).map(|id| format!("x{id}").into()).collect(), vec![0; ITEMS]).unwrap()
}

fn table(rows: &HashMap<u32, Row>) -> ItemTable {
    let mut builder = ItemTableBuilder::new();
    let [a, b] = ["a", "b"].map(|name| builder.key(name).unwrap());
    // Every value of a filter exists, if only in an item that the model does not know.
    (0..4).for_each(|value| [a, b].iter().for_each(|key| builder.value(*key, &text(&value)).unwrap()));
    builder.item("unknown", "", false).unwrap();
    for (item, (hidden, values)) in rows {
        for (key, name) in [(a, "a"), (b, "b")] {
            values[name].iter().for_each(|value| builder.value(key, &text(value)).unwrap());
        }
        builder.item(&format!("x{item}"), "", *hidden).unwrap();
    }
    builder.finish(String::new())
}

/// The definition of a filter.
fn keeps(filter: &FilterExpression, row: Option<&Row>) -> bool {
    let has = |(key, values): &(Box<str>, Vec<Box<str>>)| {
        row.is_some_and(|(_, of)| of[&**key].iter().any(|value| values.contains(&text(value))))
    };
    filter.terms.iter().all(has) && !filter.not.iter().any(|not| keeps(not, row))
}

proptest! {
    #[test]
    fn restrictions_allow_what_their_definition_does(rows in rows(), filter in filters()) {
        let index = Arc::new(ItemIndex::new(Arc::new(table(&rows)), &catalogue()));
        let restriction = Restriction::new(&index, Some(&filter), None).unwrap();
        let mut pool = SetPool::default();
        // Sets of the pool are used again.
        for _ in 0..2 {
            let allowed = restriction.as_ref().map(|restriction| restriction.allowed(&mut pool));
            for item in (1..=ITEMS as u32).filter_map(Item::new) {
                let row = rows.get(&item.id());
                let expected = !row.is_some_and(|(hidden, _)| *hidden) && keeps(&filter, row);
                prop_assert_eq!(restriction.as_ref().is_none_or(|restriction| restriction.allows(item)), expected);
                prop_assert_eq!(allowed.as_ref().is_none_or(|allowed| allowed.contains(item)), expected, "{:?}", item);
            }
            allowed.into_iter().for_each(|allowed| allowed.give_back(&mut pool));
        }
        prop_assert_eq!(index.missing(), ITEMS - rows.len());
        prop_assert_eq!((index.unknown(), index.hidden()), (1, rows.values().filter(|row| row.0).count()));
    }

    #[test]
    fn quotas_admit_what_their_definition_does(rows in rows(), a in 1..4_u64, b in prop::option::of(1..3_u64)) {
        let index = Arc::new(ItemIndex::new(Arc::new(table(&rows)), &catalogue()));
        let limits = [Some(("a", a)), b.map(|b| ("b", b))];
        let max_per = MaxPer::new(limits.iter().flatten().map(|(key, most)| ((*key).into(), *most)));
        let restriction = Restriction::new(&index, None, Some(&max_per)).unwrap().unwrap();
        let mut greedy = restriction.greedy().unwrap();
        let mut taken: Vec<u32> = Vec::new();
        let mut open = index.visible().clone();
        for item in (1..=ITEMS as u32).filter_map(Item::new) {
            let of = |item: &u32, key: &str| rows.get(item).map(|row| row.1[key].clone()).unwrap_or_default();
            let fits = |(key, most): &(&str, u64)| {
                of(&item.id(), key).iter().all(|value| {
                    (taken.iter().filter(|before| of(before, key).contains(value)).count() as u64) < *most
                })
            };
            let expected = limits.iter().flatten().all(fits);
            // A set without full values lacks only items that would not be taken.
            prop_assert!(open.contains(item) || !expected || !index.visible().contains(item));
            prop_assert_eq!(greedy.take(item), expected);
            taken.extend(expected.then_some(item.id()));
            greedy.remove_full(&mut open);
        }
    }
}

fn fault(filter: &str, max_per: &str) -> (String, String) {
    let mut builder = ItemTableBuilder::new();
    for (key, value) in [("category", "shoes"), ("category", "shirts"), ("colour", "red")] {
        let key = builder.key(key).unwrap();
        builder.value(key, value).unwrap();
    }
    builder.key("empty").unwrap();
    builder.item("x1", "", false).unwrap();
    let index = Arc::new(ItemIndex::new(Arc::new(builder.finish(String::new())), &catalogue()));
    let (filter, max_per) = (serde_json::from_str(filter).unwrap(), serde_json::from_str(max_per).unwrap());
    let fault = Restriction::new(&index, Some(&filter), Some(&max_per)).unwrap_err();
    (fault.field, fault.detail)
}

#[test]
fn unknown_names_are_refused_with_those_that_exist() {
    for (filter, max_per, field, detail) in [
        (
            r#"{"color": "red"}"#,
            "{}",
            "filter.color",
            r#"the catalogue file has no key "color": its keys are "colour", "category", "empty""#,
        ),
        (
            r#"{"category": ["shoes", "shoe"]}"#,
            "{}",
            "filter.category",
            r#"no item has "shoe" as "category": the values are "shoes", "shirts""#,
        ),
        (
            r#"{"not": {"category": []}}"#,
            "{}",
            "filter.not.category",
            r#"no value of "category" is named: name at least one, or leave the key out"#,
        ),
        (
            r#"{"not": [{}, {"not": {"x": 1}}]}"#,
            "{}",
            "filter.not[1].not.x",
            r#"the catalogue file has no key "x": its keys are "category", "colour", "empty""#,
        ),
        (r#"{"empty": "a"}"#, "{}", "filter.empty", r#"no item has a value of "empty""#),
        (
            "{}",
            r#"{"Category": 1}"#,
            "max_per.Category",
            r#"the catalogue file has no key "Category": its keys are "category", "colour", "empty""#,
        ),
    ] {
        assert_eq!(fault(filter, max_per), (field.to_owned(), detail.to_owned()));
    }
}

#[test]
fn nothing_is_restricted_without_need() {
    let index = Arc::new(ItemIndex::new(Arc::new(table(&HashMap::new())), &catalogue()));
    let none = |filter: &str| Restriction::new(&index, serde_json::from_str(filter).ok().as_ref(), None).unwrap();
    assert!(none("null").is_none() && none("{}").is_none() && none(r#"{"a": "v0"}"#).is_some());
    assert!(Restriction::new(&index, None, Some(&MaxPer::default())).unwrap().is_none());
}
