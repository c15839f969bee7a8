use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::json_lines;
use super::super::lines::Lines;
use super::super::{DataError, LineFault, LineUnit};
use super::{ItemFault, ItemTableBuilder, ItemTableError, KeyFault, Use, boolean, id_column, in_line, special};

/// Reads a catalogue file of JSON lines.
pub(super) fn read(path: &Path, lines: &mut Lines) -> Result<ItemTableBuilder, ItemTableError> {
    let mut builder = ItemTableBuilder::new();
    let (mut first, mut id_name) = (None, None::<String>);
    while let Some((line, text)) =
        lines.next_line().map_err(|source| DataError::Read { path: path.to_owned(), source })?
    {
        let add = || -> Result<(), ItemFault> {
            let text = text?;
            if text.trim_ascii().is_empty() {
                return Ok(());
            }
            let fields = Fields::parse(text)?;
            let names: Vec<String> = fields.0.iter().map(|(name, _)| name.to_string()).collect();
            // The first object chooses. Another name in a later one would be another column.
            let named = |chosen: &String| names.iter().position(|name| name == chosen);
            let id = match (id_name.as_ref().map_or_else(|| id_column(&names), named), &id_name) {
                (Some(id), _) => id,
                (None, Some(name)) => return Err(LineFault::EmptyId(name.clone()).into()),
                (None, None) => {
                    first = Some(names.join(", "));
                    return Ok(());
                }
            };
            let chosen = id_name.get_or_insert_with(|| names[id].clone());
            let second_of = |wanted: Use| names.iter().filter(|name| special(name) == Some(wanted)).nth(1);
            let second_id = names.iter().filter(|name| *name == chosen).nth(1);
            if let Some(name) = second_of(Use::Title).or_else(|| second_of(Use::Hidden)).or(second_id) {
                return Err(ItemFault::Twice(name.clone()));
            }
            let (mut of_item, mut title, mut hidden) = (Cow::Borrowed(""), Cow::Borrowed(""), false);
            for (column, (name, value)) in fields.0.iter().enumerate() {
                match special(name) {
                    _ if column == id => of_item = one(name, value)?,
                    Some(Use::Title) => title = one(name, value)?,
                    Some(_) => hidden = boolean(&one(name, value)?)?,
                    None => {
                        let key = builder.key(name).map_err(|fault| match fault {
                            KeyFault::Reserved => ItemFault::Reserved(name.to_string()),
                            KeyFault::Name => LineFault::EmptyId(name.chars().take(40).collect()).into(),
                            _ => ItemFault::ManyKeys(name.to_string()),
                        })?;
                        each(name, value, |text| builder.value(key, text))?;
                    }
                }
            }
            builder.item(&of_item, &title, hidden)
        };
        add().map_err(|fault| in_line(path, LineUnit::Line, line, fault))?;
        if let Some(found) = first.take() {
            return Err(ItemTableError::NoId { path: path.to_owned(), found });
        }
    }
    Ok(builder)
}

/// The fields of an object, in their order.
struct Fields<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'t> Fields<'t> {
    fn parse(line: &'t [u8]) -> Result<Fields<'t>, LineFault> {
        let mut json = serde_json::Deserializer::from_slice(line);
        let fields = FieldsSeed.deserialize(&mut json).and_then(|fields| json.end().map(|()| fields));
        fields.map_err(|error| match std::str::from_utf8(line) {
            Err(_) => LineFault::NotUtf8,
            Ok(_) => LineFault::Json(json_lines::fault(&error)),
        })
    }
}

struct FieldsSeed;

impl<'t> DeserializeSeed<'t> for FieldsSeed {
    type Value = Fields<'t>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Fields<'t>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'t> Visitor<'t> for FieldsSeed {
    type Value = Fields<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'t>>(self, mut map: M) -> Result<Fields<'t>, M::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<Name<'t>>()? {
            fields.push((name.0, map.next_value()?));
        }
        Ok(Fields(fields))
    }
}

/// A key, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'t>(#[serde(borrow)] Cow<'t, str>);

/// The text of a value that is no list.
fn one<'t>(name: &str, value: &'t RawValue) -> Result<Cow<'t, str>, ItemFault> {
    if value.get().starts_with('[') {
        return Err(ItemFault::List(name.to_owned()));
    }
    scalar(name, value)
}

/// Calls `add` for a value or for each value of a list.
fn each(name: &str, value: &RawValue, mut add: impl FnMut(&str) -> Result<(), ItemFault>) -> Result<(), ItemFault> {
    if !value.get().starts_with('[') {
        return add(&scalar(name, value)?);
    }
    let values: Vec<&RawValue> =
        serde_json::from_str(value.get()).map_err(|error| LineFault::Json(json_lines::fault(&error)))?;
    values.into_iter().try_for_each(|value| add(&scalar(name, value)?))
}

fn scalar<'t>(name: &str, value: &'t RawValue) -> Result<Cow<'t, str>, ItemFault> {
    match json_lines::value::<serde_json::Error>(value) {
        Ok(json_lines::Value::Text(text)) => Ok(text),
        Ok(json_lines::Value::Nested) => Err(LineFault::Nested(name.to_owned()).into()),
        Err(error) => Err(LineFault::Json(json_lines::fault(&error)).into()),
    }
}
