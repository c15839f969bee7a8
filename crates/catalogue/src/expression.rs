use std::fmt;

use canet_data::ItemTable;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};

/// A filter as a client writes it, not yet checked against a catalogue file.
///
/// `{"category": ["a", "b"], "brand": "c", "not": {"size": "xl"}}` keeps the items that have any of the values of every key,
/// and that the filter under `not` does not keep. `not` may be a list: then none of its filters may keep the item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterExpression {
    /// Each key with its values.
    pub(crate) terms: Vec<(Box<str>, Vec<Box<str>>)>,
    pub(crate) not: Vec<FilterExpression>,
}

/// The most items that an answer may have of each value of a key, by key, as a client writes it: `{"category": 2}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaxPer {
    pub(crate) limits: Vec<(Box<str>, u64)>,
}

impl FilterExpression {
    /// The most values of a filter together.
    pub const MAX_VALUES: usize = 1000;

    /// The most filters under `not`, together.
    pub const MAX_NOT: usize = 64;

    /// How deep filters under `not` may nest.
    pub const MAX_DEPTH: usize = 4;

    /// Whether it keeps every item.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.not.is_empty()
    }
}

impl MaxPer {
    /// The most keys with a limit: as many as a file has.
    pub const MAX_KEYS: usize = ItemTable::MAX_KEYS;

    /// A limit for each key.
    pub fn new(limits: impl IntoIterator<Item = (Box<str>, u64)>) -> MaxPer {
        MaxPer { limits: limits.into_iter().collect() }
    }

    /// Number of limits.
    pub fn len(&self) -> usize {
        self.limits.len()
    }

    /// Whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }
}

impl<'de> Deserialize<'de> for FilterExpression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FilterExpression, D::Error> {
        let mut room = Room { values: FilterExpression::MAX_VALUES, filters: FilterExpression::MAX_NOT };
        FilterSeed { room: &mut room, depth: FilterExpression::MAX_DEPTH }.deserialize(deserializer)
    }
}

/// What a filter may still have. It is counted while the filter is read, so that a small body costs little memory.
struct Room {
    values: usize,
    filters: usize,
}

impl Room {
    fn take<E: Error>(room: &mut usize, most: usize, what: &str) -> Result<(), E> {
        *room = room.checked_sub(1).ok_or_else(|| E::custom(format!("a filter has at most {most} {what}")))?;
        Ok(())
    }

    fn value<E: Error>(&mut self) -> Result<(), E> {
        Room::take(&mut self.values, FilterExpression::MAX_VALUES, "values")
    }

    fn filter<E: Error>(&mut self) -> Result<(), E> {
        Room::take(&mut self.filters, FilterExpression::MAX_NOT, "filters under `not`")
    }
}

struct FilterSeed<'a> {
    room: &'a mut Room,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for FilterSeed<'_> {
    type Value = FilterExpression;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FilterExpression, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FilterSeed<'_> {
    type Value = FilterExpression;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with keys of the catalogue file, such as {\"category\": [\"a\", \"b\"]}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FilterExpression, A::Error> {
        let FilterSeed { room, depth } = self;
        let mut filter = FilterExpression::default();
        let mut negated = false;
        while let Some(key) = map.next_key::<Box<str>>()? {
            if *key == *ItemTable::NOT {
                if std::mem::replace(&mut negated, true) {
                    return Err(A::Error::custom("`not` stands twice: give it a list of filters"));
                }
                if depth == 0 {
                    let most = FilterExpression::MAX_DEPTH;
                    return Err(A::Error::custom(format!("`not` nests deeper than {most} times")));
                }
                filter.not = map.next_value_seed(NotSeed { room: &mut *room, depth: depth - 1 })?;
                continue;
            }
            if filter.terms.len() == ItemTable::MAX_KEYS {
                return Err(A::Error::custom(format!("a filter has at most {} keys", ItemTable::MAX_KEYS)));
            }
            if filter.terms.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom("a key stands twice: give it a list of values"));
            }
            // Keys count too, because one without values has a place in memory.
            room.value()?;
            let mut values = Vec::new();
            map.next_value_seed(ValuesSeed { values: &mut values, room: Some(&mut *room) })?;
            filter.terms.push((key, values));
        }
        Ok(filter)
    }
}

/// The filters under `not`: one, or a list.
struct NotSeed<'a> {
    room: &'a mut Room,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for NotSeed<'_> {
    type Value = Vec<FilterExpression>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NotSeed<'_> {
    type Value = Vec<FilterExpression>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a filter, or a list of filters")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.room.filter()?;
        Ok(vec![FilterSeed { room: self.room, depth: self.depth }.visit_map(map)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut filters = Vec::new();
        while let Some(filter) = sequence.next_element_seed(FilterSeed { room: &mut *self.room, depth: self.depth })? {
            self.room.filter()?;
            filters.push(filter);
        }
        if filters.is_empty() {
            return Err(A::Error::custom("`not` has no filter: leave it out"));
        }
        Ok(filters)
    }
}

/// Reads the values of a key into `values`: one, or a list. A value is a text, or the digits or the word that it is.
struct ValuesSeed<'a> {
    values: &'a mut Vec<Box<str>>,
    /// What counts the values of a list. `None` for a value in a list: that is no list itself.
    room: Option<&'a mut Room>,
}

impl ValuesSeed<'_> {
    fn add<E>(self, value: impl Into<Box<str>>) -> Result<(), E> {
        self.values.push(value.into());
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for ValuesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValuesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.room {
            Some(_) => "a value (a string, an integer or a boolean), or a list of values",
            None => "a string, an integer or a boolean",
        })
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.add(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.add(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.add(value.to_string())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.add(value.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        match self.room {
            Some(room) => {
                while sequence.next_element_seed(ValuesSeed { values: &mut *self.values, room: None })?.is_some() {
                    room.value()?;
                }
                Ok(())
            }
            None => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
        }
    }
}

impl<'de> Deserialize<'de> for MaxPer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MaxPer, D::Error> {
        deserializer.deserialize_map(MaxPerVisitor)
    }
}

struct MaxPerVisitor;

impl<'de> Visitor<'de> for MaxPerVisitor {
    type Value = MaxPer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a number for a key of the catalogue file, such as {\"category\": 2}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MaxPer, A::Error> {
        let mut limits: Vec<(Box<str>, u64)> = Vec::new();
        while let Some((key, limit)) = map.next_entry::<Box<str>, Limit>()? {
            if limits.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom("a key stands twice"));
            }
            if limits.len() == ItemTable::MAX_KEYS {
                return Err(A::Error::custom(format!("at most {} keys have a limit", ItemTable::MAX_KEYS)));
            }
            limits.push((key, limit.0));
        }
        Ok(MaxPer { limits })
    }
}

/// A whole number. In JSON `2` and `2.0` are the same number.
struct Limit(u64);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 1 up")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Limit, E> {
        if number == 0 { Err(E::invalid_value(Unexpected::Unsigned(0), &self)) } else { Ok(Limit(number)) }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Limit, E> {
        let whole = number.fract() == 0.0 && (1.0..u64::MAX as f64).contains(&number);
        if whole { Ok(Limit(number as u64)) } else { Err(E::invalid_value(Unexpected::Float(number), &self)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{FilterExpression, MaxPer};

    fn filter(json: &str) -> Result<FilterExpression, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn expression(terms: &[(&str, &[&str])], not: Vec<FilterExpression>) -> FilterExpression {
        let values = |values: &[&str]| values.iter().map(|value| (*value).into()).collect();
        FilterExpression { terms: terms.iter().map(|(key, of)| ((*key).into(), values(of))).collect(), not }
    }

    #[test]
    fn filters_have_many_spellings() {
        let not = || vec![expression(&[("size", &["xl"])], Vec::new())];
        for (json, expected) in [
            ("{}", expression(&[], Vec::new())),
            (r#"{"a": "x"}"#, expression(&[("a", &["x"])], Vec::new())),
            (
                r#"{"a": ["x", 5, -5, true], "b": 7}"#,
                expression(&[("a", &["x", "5", "-5", "true"]), ("b", &["7"])], Vec::new()),
            ),
            (r#"{"not": {"size": "xl"}}"#, expression(&[], not())),
            (
                r#"{"a": [], "not": [{"size": ["xl"]}, {}]}"#,
                expression(&[("a", &[])], [not(), vec![expression(&[], vec![])]].concat()),
            ),
        ] {
            assert_eq!(filter(json), Ok(expected), "{json}");
        }
    }

    #[test]
    fn a_value_alone_and_a_value_in_a_list_are_the_same() {
        for value in ["\"x\"", "\"\"", "5", "18446744073709551615", "-5", "true", "false", "0.5", "1e3", "null", "{}"] {
            let (alone, listed) = (filter(&format!("{{\"a\": {value}}}")), filter(&format!("{{\"a\": [{value}]}}")));
            assert_eq!(alone.ok(), listed.ok(), "{value}");
        }
    }

    #[test]
    fn wrong_and_large_filters_are_refused_while_they_are_read() {
        let many = |part: &str, count: usize| vec![part; count].join(",");
        for (json, words) in [
            ("[]", "an object with keys of the catalogue file"),
            (r#"{"a": {"b": 1}}"#, "a value (a string"),
            (r#"{"a": [[1]]}"#, "a string, an integer or a boolean"),
            (r#"{"a": 0.5}"#, "a value (a string"),
            (r#"{"a": null}"#, "a value (a string"),
            (r#"{"not": null}"#, "a filter, or a list of filters"),
            (r#"{"not": []}"#, "`not` has no filter"),
            (r#"{"a": [null]}"#, "a string, an integer or a boolean"),
            (r#"{"a": 1, "a": 2}"#, "a key stands twice"),
            (r#"{"not": {}, "not": {}}"#, "`not` stands twice"),
            (r#"{"not": 1}"#, "a filter, or a list of filters"),
            (r#"{"not": {"not": {"not": {"not": {"not": {}}}}}}"#, "`not` nests deeper than 4 times"),
            (&format!(r#"{{"a": [{}]}}"#, many("1", 1001)), "at most 1000 values"),
            (&format!(r#"{{"not": [{}]}}"#, many("{}", 65)), "at most 64 filters under `not`"),
        ] {
            let error = filter(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
        assert!(filter(&format!(r#"{{"a": [{}]}}"#, many("1", 999))).is_ok());
    }

    #[test]
    fn limits_are_whole_numbers() {
        let read = |json: &str| serde_json::from_str::<MaxPer>(json).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"a": 2, "b": 1.0}"#), Ok(MaxPer::new([("a".into(), 2), ("b".into(), 1)])));
        for wrong in [
            "[]",
            r#"{"a": null}"#,
            r#"{"a": 0}"#,
            r#"{"a": -1}"#,
            r#"{"a": 0.5}"#,
            r#"{"a": "1"}"#,
            r#"{"a": 1, "a": 1}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..65).map(|key| format!("\"{key}\": 1")).collect();
        assert!(read(&format!("{{{}}}", many.join(","))).unwrap_err().contains("at most 64 keys"));
    }
}
