//! JSON lines: one object a line.

mod keys;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use self::keys::sample_columns;

use self::keys::{Key, Keys};
use super::bad_line::BadLines;
use super::collector::Collector;
use super::error::ColumnFault;
use super::lines::Lines;
use super::records::{Record, Records};
use super::{DataError, LineFault, ReadOptions};

/// How to read a file of JSON lines.
pub(crate) struct JsonLines<'a> {
    pub(crate) path: &'a Path,
    pub(crate) options: &'a ReadOptions,
    /// Keys that flags name and no sampled line has, with the flags. Later lines may have them.
    pub(crate) unseen: Vec<(&'static str, String)>,
}

impl JsonLines<'_> {
    /// Reads one object after the other.
    pub(crate) fn read(
        mut self,
        lines: &mut Lines,
        records: &mut Records,
        collector: &mut Collector,
        bad_lines: &mut BadLines,
    ) -> Result<(), DataError> {
        let names = records.names().to_vec();
        let roles = records.roles();
        let used = names.iter().enumerate().filter(|(column, _)| roles.uses(*column));
        let wanted: Vec<(usize, &str)> = used.map(|(column, name)| (column, &**name)).collect();
        let is_known = |name: &&String| !self.unseen.iter().any(|(_, unseen)| unseen == *name);
        let mut keys = Keys::new(&wanted, names.iter().filter(is_known));
        let unreadable = |source| DataError::Read { path: self.path.to_owned(), source };
        let mut hopeless = None;
        while let Some((line, text)) = lines.next_line().map_err(unreadable)? {
            let text = match text {
                Ok(text) if text.trim_ascii().is_empty() => continue,
                text => text,
            };
            let object = text.and_then(|text| Object::parse(text, &wanted, &mut keys));
            while let Some((key, value)) = keys.new.pop() {
                if let Some(place) = self.unseen.iter().position(|(_, name)| *name == key) {
                    self.unseen.swap_remove(place);
                } else {
                    let checked = records.roles().check_late(&names, self.options, line, &key, &value);
                    checked.map_err(|fault| DataError::Columns { path: self.path.to_owned(), fault })?;
                }
            }
            if hopeless.is_some() {
                // The rest shows whether a key is missing in the whole file.
                match self.unseen.is_empty() {
                    true => break,
                    false => continue,
                }
            }
            bad_lines.lines += 1;
            if let Err(fault) = object.and_then(|object| records.add(&object, collector)) {
                hopeless = bad_lines.report(line, fault).err();
            }
            collector.check_size(self.path)?;
        }
        match (self.unseen.pop(), hopeless) {
            (Some((flag, name)), _) => {
                let fault = ColumnFault::Unknown { flag, name, found: keys.known() };
                Err(DataError::Columns { path: self.path.to_owned(), fault })
            }
            (None, Some(hopeless)) => Err(hopeless),
            (None, None) => Ok(()),
        }
    }
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
    fn parse(line: &'t [u8], wanted: &'n [(usize, &'n str)], keys: &mut Keys) -> Result<Object<'t, 'n>, LineFault> {
        let mut json = serde_json::Deserializer::from_slice(line);
        let values =
            Fields { wanted: wanted.len(), keys }.deserialize(&mut json).and_then(|values| json.end().map(|()| values));
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
struct Fields<'k> {
    /// Their number.
    wanted: usize,
    keys: &'k mut Keys,
}

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
        let mut values = vec![Value::Text(Cow::Borrowed("")); self.wanted];
        self.keys.begin();
        while let Some(key) = map.next_key_seed(&mut *self.keys)? {
            let value = match key {
                Key::Unused => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Key::Wanted(_) | Key::New(_, _) => value(map.next_value::<&RawValue>()?)?,
            };
            match key {
                Key::New(name, wanted) => {
                    self.keys.learn(name, wanted, &value);
                    if let Some(place) = wanted {
                        values[place] = value;
                    }
                }
                Key::Wanted(place) => values[place] = value,
                Key::Unused => {}
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

/// What is wrong with a line, without its number within itself.
pub(crate) fn fault(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_fields_of_an_object_are_texts() {
        let wanted = [(0, "user"), (2, "item"), (3, "time")];
        let line = r#" {"x":{"user":1},"user":"a\u00e9 \"b\"","item":18446744073709551616, "time":null} "#;
        let mut keys = Keys::new(&wanted, [].into_iter());
        let object = Object::parse(line.as_bytes(), &wanted, &mut keys).unwrap();
        assert_eq!([0, 2, 3].map(|column| object.text(column)), [Ok("aé \"b\""), Ok("18446744073709551616"), Ok("")]);
        let object = Object::parse(br#"{"item":[1],"time":1.50}"#, &wanted, &mut keys).unwrap();
        assert_eq!(object.text(2), Err(LineFault::Nested("item".to_owned())));
        assert_eq!((object.text(0), object.text(3)), (Ok(""), Ok("1.50")));
    }

    #[test]
    fn other_lines_are_faults() {
        let wanted = [(0, "user")];
        let mut keys = Keys::new(&wanted, [].into_iter());
        let mut parse = |line: &[u8]| Object::parse(line, &wanted, &mut keys).map(drop);
        for line in ["[1]", "{\"user\":1", "{\"user\":1} x", "user", "{'user': 1}"] {
            assert!(matches!(parse(line.as_bytes()), Err(LineFault::Json(_))), "{line}");
        }
        assert!(matches!(parse(b"{\"user\":\"\xff\"}"), Err(LineFault::NotUtf8)));
    }
}
