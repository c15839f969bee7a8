//! The keys of a file's objects.

use std::fmt;

use hashbrown::HashMap;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Value, value};

/// The keys that were met, and those that are wanted.
///
/// Most objects of a file have the same keys in the same order. So the key that followed last time is compared first, and a
/// table is asked only if it is another.
pub(super) struct Keys {
    known: Vec<(Box<str>, Option<usize>)>,
    places: HashMap<Box<str>, usize>,
    /// Wanted keys that no object had so far.
    unseen: Vec<(Box<str>, usize)>,
    /// Keys that no earlier object had, and their values.
    pub(super) new: Vec<(String, String)>,
    /// The place in `known` of the key that is expected next.
    next: usize,
}

/// A key of an object.
pub(super) enum Key {
    /// Its place among the wanted fields.
    Wanted(usize),
    Unused,
    /// No earlier object had it. It may be wanted.
    New(Box<str>, Option<usize>),
}

impl Keys {
    /// Keys beyond this number are not remembered. Such objects have data as keys.
    const MOST: usize = 10_000;

    /// `known` are the names of the sampled lines.
    pub(super) fn new<'n>(wanted: &[(usize, &str)], known: impl Iterator<Item = &'n String>) -> Keys {
        let mut keys = Keys {
            known: Vec::new(),
            places: HashMap::new(),
            unseen: wanted.iter().enumerate().map(|(place, (_, name))| ((*name).into(), place)).collect(),
            new: Vec::new(),
            next: 0,
        };
        for name in known {
            let wanted = keys.wanted(name);
            keys.remember(name.as_str().into(), wanted);
        }
        keys
    }

    /// An object begins.
    pub(super) fn begin(&mut self) {
        self.next = 0;
    }

    /// Remembers a key. One that is not wanted is new until it has a value that is neither null nor nested.
    pub(super) fn learn(&mut self, name: Box<str>, wanted: Option<usize>, value: &Value<'_>) {
        let text = match value {
            Value::Text(text) => text.trim(),
            Value::Nested => "",
        };
        if wanted.is_some() || !text.is_empty() {
            self.new.push((name.to_string(), text.to_owned()));
            self.remember(name, wanted);
        }
    }

    /// The names that were met, in the order of appearance.
    pub(super) fn known(&self) -> String {
        self.known.iter().map(|(name, _)| &**name).take(100).collect::<Vec<_>>().join(", ")
    }

    fn remember(&mut self, name: Box<str>, wanted: Option<usize>) {
        self.unseen.retain(|(unseen, _)| *unseen != name);
        self.places.insert(name.clone(), self.known.len());
        self.known.push((name, wanted));
    }

    fn wanted(&self, name: &str) -> Option<usize> {
        self.unseen.iter().find(|(unseen, _)| **unseen == *name).map(|(_, place)| *place)
    }

    fn key(&mut self, name: &str) -> Key {
        let expected = self.known.get(self.next).is_some_and(|(expected, _)| **expected == *name);
        let place = if expected { Some(self.next) } else { self.places.get(name).copied() };
        match place {
            Some(place) => {
                self.next = place + 1;
                self.known[place].1.map_or(Key::Unused, Key::Wanted)
            }
            None => match self.wanted(name) {
                None if self.known.len() >= Keys::MOST => Key::Unused,
                wanted => Key::New(name.into(), wanted),
            },
        }
    }
}

impl<'t> DeserializeSeed<'t> for &mut Keys {
    type Value = Key;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for &mut Keys {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.key(key))
    }
}

/// The keys of the objects in a sample, in the order of appearance, and their values as text.
pub(crate) fn sample_columns<'s>(lines: impl Iterator<Item = &'s str>) -> Vec<(String, Vec<String>)> {
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in lines {
        let Ok(SampledObject(fields)) = serde_json::from_str(line) else { continue };
        for (key, text) in fields {
            match places.get(&key) {
                Some(place) => columns[*place].1.push(text),
                None => {
                    places.insert(key.clone(), columns.len());
                    columns.push((key, vec![text]));
                }
            }
        }
    }
    columns
}

/// All fields of an object, in their order. A null and what is nested are empty texts.
struct SampledObject(Vec<(String, String)>);

impl<'t> serde::Deserialize<'t> for SampledObject {
    fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<SampledObject, D::Error> {
        struct Fields;

        impl<'t> Visitor<'t> for Fields {
            type Value = SampledObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'t>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let text = match value(map.next_value::<&RawValue>()?)? {
                        Value::Text(text) => text.into_owned(),
                        Value::Nested => String::new(),
                    };
                    fields.push((key, text));
                }
                Ok(SampledObject(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}
