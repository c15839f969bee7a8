//! JSON lines: one object a line.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::bad_line::BadLines;
use super::collector::Collector;
use super::lines::Lines;
use super::records::{Record, Records};
use super::{DataError, LineFault};

/// Reads one object after the other.
pub(crate) fn read(
    lines: &mut Lines,
    records: &mut Records,
    collector: &mut Collector,
    bad_lines: &mut BadLines,
    path: &Path,
) -> Result<(), DataError> {
    let names = records.names().to_vec();
    let roles = records.roles();
    let used = names.iter().enumerate().filter(|(column, _)| roles.uses(*column));
    let wanted: Vec<(usize, &str)> = used.map(|(column, name)| (column, &**name)).collect();
    while let Some((line, text)) =
        lines.next_line().map_err(|source| DataError::Read { path: path.to_owned(), source })?
    {
        let added = match text {
            Ok(text) if text.trim_ascii().is_empty() => continue,
            Ok(text) => Object::parse(text, &wanted).and_then(|object| records.add(&object, collector)),
            Err(fault) => Err(fault),
        };
        bad_lines.lines += 1;
        if let Err(fault) = added {
            bad_lines.report(line, fault)?;
        }
        collector.check_size(path)?;
    }
    Ok(())
}

/// The wanted fields of an object.
struct Object<'t, 'n> {
    wanted: &'n [(usize, &'n str)],
    /// As many as are wanted.
    values: Vec<Value<'t>>,
}

/// A field's value.
#[derive(Clone)]
pub(crate) enum Value<'t> {
    /// A text, a number's digits, `true` or `false`. Empty if the field is missing or null.
    Text(Cow<'t, str>),
    /// An object or a list.
    Nested,
}

impl<'t, 'n> Object<'t, 'n> {
    fn parse(line: &'t [u8], wanted: &'n [(usize, &'n str)]) -> Result<Object<'t, 'n>, LineFault> {
        let mut json = serde_json::Deserializer::from_slice(line);
        let values = Fields(wanted).deserialize(&mut json).and_then(|values| json.end().map(|()| values));
        match values {
            Ok(values) => Ok(Object { wanted, values }),
            Err(_) if std::str::from_utf8(line).is_err() => Err(LineFault::NotUtf8),
            Err(error) => Err(LineFault::Json(fault(&error))),
        }
    }
}

impl Record for Object<'_, '_> {
    fn text(&self, column: usize) -> Result<&str, LineFault> {
        let field = self.wanted.iter().zip(&self.values).find(|((wanted, _), _)| *wanted == column);
        match field {
            Some((_, Value::Text(text))) => Ok(text.trim()),
            Some(((_, name), Value::Nested)) => Err(LineFault::Nested((*name).to_owned())),
            None => Ok(""),
        }
    }
}

/// Deserializes the wanted fields of an object.
struct Fields<'n>(&'n [(usize, &'n str)]);

impl<'t> DeserializeSeed<'t> for Fields<'_> {
    type Value = Vec<Value<'t>>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'t> Visitor<'t> for Fields<'_> {
    type Value = Vec<Value<'t>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'t>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values = vec![Value::Text(Cow::Borrowed("")); self.0.len()];
        while let Some(wanted) = map.next_key_seed(Key(self.0))? {
            match wanted {
                Some(place) => values[place] = value(map.next_value::<&RawValue>()?)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(values)
    }
}

/// The value of a field.
pub(crate) fn value<'t, E: serde::de::Error>(raw: &'t RawValue) -> Result<Value<'t>, E> {
    let text = raw.get();
    Ok(match text.as_bytes().first() {
        Some(b'{' | b'[') => Value::Nested,
        Some(b'n') => Value::Text(Cow::Borrowed("")),
        Some(b'"') if !text.contains('\\') => Value::Text(Cow::Borrowed(&text[1..text.len() - 1])),
        Some(b'"') => Value::Text(Cow::Owned(serde_json::from_str(text).map_err(E::custom)?)),
        _ => Value::Text(Cow::Borrowed(text)),
    })
}

/// A key's place among the wanted fields.
struct Key<'n>(&'n [(usize, &'n str)]);

impl<'t> DeserializeSeed<'t> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|(_, wanted)| *wanted == key))
    }
}

/// What is wrong with a line, without its number within itself.
pub(crate) fn fault(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// The keys of the objects in a sample, in the order of appearance, and their values as text.
pub(crate) fn sample_columns<'s>(lines: impl Iterator<Item = &'s str>) -> Vec<(String, Vec<String>)> {
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines {
        let Ok(object) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line) else { continue };
        // The map sorts its keys, so the text decides on their order.
        let mut fields: Vec<(String, serde_json::Value)> = object.into_iter().collect();
        fields.sort_by_cached_key(|(key, _)| line.find(&format!("\"{key}\"")));
        for (key, value) in fields {
            let text = match value {
                serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => String::new(),
                serde_json::Value::String(text) => text,
                value => value.to_string(),
            };
            match columns.iter_mut().find(|(name, _)| *name == key) {
                Some((_, values)) => values.push(text),
                None => columns.push((key, vec![text])),
            }
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_fields_of_an_object_are_texts() {
        let wanted = [(0, "user"), (2, "item"), (3, "time")];
        let line = r#" {"x":{"user":1},"user":"a\u00e9 \"b\"","item":18446744073709551616, "time":null} "#;
        let object = Object::parse(line.as_bytes(), &wanted).unwrap();
        assert_eq!([0, 2, 3].map(|column| object.text(column)), [Ok("aé \"b\""), Ok("18446744073709551616"), Ok("")]);
        let object = Object::parse(br#"{"item":[1],"time":1.50}"#, &wanted).unwrap();
        assert_eq!(object.text(2), Err(LineFault::Nested("item".to_owned())));
        assert_eq!((object.text(0), object.text(3)), (Ok(""), Ok("1.50")));
    }

    #[test]
    fn other_lines_are_faults() {
        for line in ["[1]", "{\"user\":1", "{\"user\":1} x", "user", "{'user': 1}"] {
            assert!(matches!(Object::parse(line.as_bytes(), &[(0, "user")]), Err(LineFault::Json(_))), "{line}");
        }
        assert!(matches!(Object::parse(b"{\"user\":\"\xff\"}", &[(0, "user")]), Err(LineFault::NotUtf8)));
    }
}
