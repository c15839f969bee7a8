//! Catalogue files: what a shop knows about its items.

mod error;
mod json;
#[cfg(test)]
mod tests;

use std::path::Path;

use canet_domain::Catalogue;
use hashbrown::HashMap;

pub use self::error::{ItemFault, ItemTableError, KeyFault};
use super::contained::{Panicked, contained};
use super::dense_ids::DenseIds;
use super::detect::{self, Sample};
use super::interaction::Id;
use super::lines::Lines;
use super::parquet_file::{self, ParquetFile};
use super::records::Record;
use super::roles::Roles;
use super::source::Opened;
use super::syntax::{Separator, Syntax};
use super::table::{self, Table};
use super::{DataError, Foreign, LineFault, LineUnit};

/// Separates the values of a field in a table.
const VALUE_SEPARATOR: char = '|';

/// The contents of a catalogue file: for each item its external id, perhaps a title, whether it is hidden, and the values of
/// any number of keys.
///
/// The file is a table with a header, JSON lines or Parquet, each perhaps packed by gzip or zstd.
///
/// - `id` names the item. Where no column has this name, one with a common name of items does, such as `item_id` or `sku`.
/// - `title` is optional, and so is `movie_title`.
/// - `hidden` is optional: `true`, `yes` or `1`, and `false`, `no`, `0` or nothing.
/// - Every other column is a key. An item may have no value, one, or several: a list in JSON and Parquet, values separated by
///   `|` in a table. RecBole's `token_seq` columns separate them by blanks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemTable {
    ids: Texts,
    /// An empty text is no title.
    titles: Texts,
    hidden: Vec<bool>,
    keys: Vec<ItemKey>,
    sha256: String,
}

/// A key of a catalogue file, and the values that its items have.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemKey {
    name: String,
    /// Distinct values, ascending.
    values: Vec<Box<str>>,
    /// The places in `values` of every item's values, item after item.
    places: Vec<u32>,
    /// Where each item's places end.
    ends: Vec<u32>,
}

impl ItemTable {
    /// Limit on the number of keys.
    pub const MAX_KEYS: usize = 64;

    /// Limit on the length of a key's name in bytes.
    pub const MAX_KEY_BYTES: usize = 64;

    /// Limit on the length of a value in bytes.
    pub const MAX_VALUE_BYTES: usize = 256;

    /// Limit on the number of values that an item has of one key.
    pub const MAX_VALUES_OF_ITEM: usize = 256;

    /// The name that no key may have, because it negates in filters.
    pub const NOT: &'static str = "not";

    /// Reads a catalogue file.
    ///
    /// # Errors
    /// [`ItemTableError`]. One wrong line refuses the whole file, because a catalogue that lacks items hides a mistake.
    pub fn read(path: &Path) -> Result<ItemTable, ItemTableError> {
        let unreadable = |source| DataError::Read { path: path.to_owned(), source };
        let foreign = |foreign| DataError::Foreign { path: path.to_owned(), foreign };
        let opened = Opened::open(path).map_err(unreadable)?;
        let table = if opened.start().starts_with(parquet_file::MAGIC) {
            // The decoder panics on some damaged files.
            contained(|| read_parquet(path, opened)).unwrap_or_else(|Panicked| {
                let reason = "it is damaged".to_owned();
                Err(DataError::Parquet { path: path.to_owned(), reason }.into())
            })?
        } else {
            let source = opened.unpack().map_err(unreadable)?;
            let mut lines = Lines::new(source).map_err(unreadable)?;
            if lines.sample().starts_with(parquet_file::MAGIC) {
                let remedy = "Unpack it: gunzip or zstd -d. Parquet is compressed within";
                return Err(foreign(Foreign::new(path, "a packed Parquet file", remedy)).into());
            }
            if let Some(format) = Foreign::of(path, lines.sample()) {
                return Err(foreign(format).into());
            }
            let sample = Sample::of(&lines);
            let builder = match sample.first_line() {
                None => return Err(DataError::Empty(path.to_owned()).into()),
                Some((line, first)) => match detect::json(first.trim()) {
                    Some(Err(fault)) => return Err(DataError::Header { path: path.to_owned(), line, fault }.into()),
                    Some(Ok(_)) => json::read(path, &mut lines)?,
                    None => read_table(path, first, &mut lines)?,
                },
            };
            let sha256 = lines.digest().map_err(unreadable)?;
            builder.finish(sha256)
        };
        if table.is_empty() { Err(ItemTableError::NoItems(path.to_owned())) } else { Ok(table) }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The external id of the item at a place of the file.
    pub fn id(&self, place: usize) -> &str {
        self.ids.get(place)
    }

    /// The title of the item at a place, if it has one.
    pub fn title(&self, place: usize) -> Option<&str> {
        Some(self.titles.get(place)).filter(|title| !title.is_empty())
    }

    /// Whether the item at a place is hidden.
    pub fn is_hidden(&self, place: usize) -> bool {
        self.hidden[place]
    }

    /// The keys, in the order of the columns.
    pub fn keys(&self) -> &[ItemKey] {
        &self.keys
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl ItemKey {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The distinct values of all items, ascending.
    pub fn values(&self) -> &[Box<str>] {
        &self.values
    }

    /// The places in [`values`](Self::values) of the values of the item at a place of the file, ascending.
    pub fn values_of(&self, place: usize) -> &[u32] {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.places[start as usize..self.ends[place] as usize]
    }
}

/// Texts in one allocation.
#[derive(Clone, Debug, Default, PartialEq)]
struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, place: usize) -> &str {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.text[start..self.ends[place]]
    }
}

/// Collects the items of a table one after another.
#[derive(Default)]
pub struct ItemTableBuilder {
    seen: DenseIds,
    table: ItemTable,
    /// The places of each key's values.
    interned: Vec<HashMap<Box<str>, u32>>,
    /// The values of the item that is being added, by key.
    row: Vec<Vec<u32>>,
}

impl ItemTableBuilder {
    /// A table without items.
    pub fn new() -> ItemTableBuilder {
        ItemTableBuilder::default()
    }

    /// The place of a key, which is added if it is new.
    ///
    /// # Errors
    /// [`KeyFault`] if there are too many keys or the name cannot be used.
    pub fn key(&mut self, name: &str) -> Result<usize, KeyFault> {
        if let Some(known) = self.table.keys.iter().position(|key| key.name == name) {
            return Ok(known);
        }
        if name == ItemTable::NOT {
            return Err(KeyFault::Reserved);
        }
        if name.is_empty() || name.len() > ItemTable::MAX_KEY_BYTES {
            return Err(KeyFault::Name);
        }
        if self.table.keys.len() == ItemTable::MAX_KEYS {
            return Err(KeyFault::TooMany);
        }
        let ends = vec![0; self.table.len()];
        self.table.keys.push(ItemKey { name: name.to_owned(), values: Vec::new(), places: Vec::new(), ends });
        self.interned.push(HashMap::new());
        self.row.push(Vec::new());
        Ok(self.table.keys.len() - 1)
    }

    /// Gives the next item a value of a key. A blank text is no value.
    ///
    /// # Errors
    /// [`ItemFault::LongValue`].
    pub fn value(&mut self, key: usize, value: &str) -> Result<(), ItemFault> {
        let value = value.trim();
        if value.is_empty() {
            return Ok(());
        }
        let ItemKey { name, values, .. } = &mut self.table.keys[key];
        if value.len() > ItemTable::MAX_VALUE_BYTES {
            return Err(ItemFault::LongValue { key: name.clone(), bytes: value.len() });
        }
        let place = match self.interned[key].get(value) {
            Some(place) => *place,
            None => {
                let place = u32::try_from(values.len()).map_err(|_| ItemFault::TooMany)?;
                values.push(value.into());
                self.interned[key].insert(value.into(), place);
                place
            }
        };
        self.row[key].push(place);
        Ok(())
    }

    /// Adds the item with the values that were given since the item before.
    ///
    /// # Errors
    /// [`ItemFault`] if the id cannot be used or repeats, or if the item has too many values or too long a title.
    pub fn item(&mut self, id: &str, title: &str, hidden: bool) -> Result<(), ItemFault> {
        let id = Id::new("id", id)?.as_str();
        let (before, title) = (self.seen.len(), title.trim());
        let place = self.seen.get(id).ok_or(ItemFault::TooMany)?;
        if (place as usize) < before {
            return Err(ItemFault::Repeated(id.to_owned()));
        }
        if title.len() > Catalogue::MAX_TITLE_BYTES {
            return Err(LineFault::LongTitle(title.len()).into());
        }
        for (key, row) in self.table.keys.iter_mut().zip(&mut self.row) {
            row.sort_unstable();
            row.dedup();
            if row.len() > ItemTable::MAX_VALUES_OF_ITEM {
                return Err(ItemFault::ManyValues { key: key.name.clone(), count: row.len() });
            }
            key.places.append(row);
            key.ends.push(u32::try_from(key.places.len()).map_err(|_| ItemFault::TooMany)?);
        }
        self.table.ids.push(id);
        self.table.titles.push(title);
        self.table.hidden.push(hidden);
        Ok(())
    }

    /// The table of a file with this digest.
    pub fn finish(self, sha256: String) -> ItemTable {
        let mut table = ItemTable { sha256, ..self.table };
        for key in &mut table.keys {
            let mut order: Vec<u32> = (0..key.values.len() as u32).collect();
            order.sort_unstable_by(|a, b| key.values[*a as usize].cmp(&key.values[*b as usize]));
            let mut places = vec![0; order.len()];
            for (place, before) in (0..).zip(&order) {
                places[*before as usize] = place;
            }
            key.values.sort_unstable();
            key.places.iter_mut().for_each(|place| *place = places[*place as usize]);
            let mut start = 0;
            for end in &key.ends {
                key.places[start..*end as usize].sort_unstable();
                start = *end as usize;
            }
        }
        table
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    Id,
    Title,
    Hidden,
    Key(usize),
}

/// What the columns hold, in their order.
fn uses(path: &Path, names: &[String], builder: &mut ItemTableBuilder) -> Result<Vec<Use>, ItemTableError> {
    let fault =
        |column: &str, fault| ItemTableError::Column { path: path.to_owned(), column: column.to_owned(), fault };
    let id = id_column(names).ok_or_else(|| {
        let found = names.iter().take(20).map(|name| name.chars().take(40).collect::<String>());
        ItemTableError::NoId { path: path.to_owned(), found: found.collect::<Vec<_>>().join(", ") }
    })?;
    let mut uses: Vec<Use> = Vec::new();
    for (column, name) in names.iter().enumerate() {
        let used = match special(name) {
            _ if column == id => Use::Id,
            Some(special) => special,
            None => Use::Key(builder.key(name).map_err(|key| fault(name, key))?),
        };
        if uses.contains(&used) {
            return Err(fault(name, KeyFault::Twice));
        }
        uses.push(used);
    }
    Ok(uses)
}

/// The column of ids: the one named `id`, else the one with the best common name of an item.
fn id_column(names: &[String]) -> Option<usize> {
    let named = names.iter().position(|name| name.trim().eq_ignore_ascii_case("id"));
    named.or_else(|| Roles::item_column(names))
}

/// The use of a name that is no key.
fn special(name: &str) -> Option<Use> {
    match name.trim().to_ascii_lowercase().as_str() {
        "title" | "movie_title" => Some(Use::Title),
        "hidden" => Some(Use::Hidden),
        _ => None,
    }
}

/// Reads `hidden`.
fn boolean(text: &str) -> Result<bool, ItemFault> {
    let is = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match text {
        _ if is(&["", "false", "no", "0", "0.0"]) => Ok(false),
        _ if is(&["true", "yes", "1", "1.0"]) => Ok(true),
        _ => Err(ItemFault::Hidden(text.chars().take(40).collect())),
    }
}

/// Reads a table with a header.
fn read_table(path: &Path, first: &str, lines: &mut Lines) -> Result<ItemTableBuilder, ItemTableError> {
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    let Header { syntax, names, lists } = Header::read(first);
    let mut builder = ItemTableBuilder::new();
    let uses = uses(path, &names, &mut builder)?;
    table::skip_header(lines, path)?;
    let mut rows = Table::new(lines, syntax, names.len());
    while let Some((line, row)) = rows.next_row().map_err(unreadable)? {
        let add = |builder: &mut ItemTableBuilder| -> Result<(), ItemFault> {
            let row = row?;
            let (mut id, mut title, mut hidden) = ("", "", false);
            for (column, used) in uses.iter().enumerate() {
                let text = row.text(column)?;
                match used {
                    Use::Id => id = text,
                    Use::Title => title = text,
                    Use::Hidden => hidden = boolean(text)?,
                    Use::Key(key) => {
                        let mut add = |value| builder.value(*key, value);
                        match lists[column] {
                            Values::Bars => text.split(VALUE_SEPARATOR).try_for_each(&mut add)?,
                            Values::Blanks => text.split_whitespace().try_for_each(&mut add)?,
                        }
                    }
                }
            }
            builder.item(id, title, hidden)
        };
        add(&mut builder).map_err(|fault| in_line(path, LineUnit::Line, line, fault))?;
    }
    Ok(builder)
}

fn in_line(path: &Path, unit: LineUnit, line: u64, fault: ItemFault) -> ItemTableError {
    ItemTableError::Line { path: path.to_owned(), unit, line, fault }
}

/// What separates the values of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    Bars,
    Blanks,
}

/// The header of a table.
struct Header {
    syntax: Syntax,
    names: Vec<String>,
    /// By column.
    lists: Vec<Values>,
}

impl Header {
    /// The separator is the first one that shows an `id`, else the one with the most columns.
    fn read(first: &str) -> Header {
        let first = first.trim_end_matches('\r');
        for separator in [b'\t', b','] {
            let fields: Vec<&str> = first.split(char::from(separator)).collect();
            if fields.iter().all(|field| detect::is_recbole_field(field)) {
                let values = |field: &&str| if field.ends_with("_seq") { Values::Blanks } else { Values::Bars };
                return Header {
                    syntax: Syntax { separator: Separator::Byte(separator), quoting: false },
                    names: table::recbole_names(first, separator),
                    lists: fields.iter().map(values).collect(),
                };
            }
        }
        let names = |separator: &Separator| Syntax::quoted(*separator).fields(first).unwrap_or_default();
        let separators = Syntax::TABLES;
        let shows_id = separators.iter().find(|separator| id_column(&names(separator)).is_some());
        let separator = shows_id.or_else(|| separators.iter().max_by_key(|separator| names(separator).len()));
        let separator = separator.copied().unwrap_or(Separator::Byte(b','));
        let names = names(&separator);
        Header { syntax: Syntax::quoted(separator), lists: vec![Values::Bars; names.len()], names }
    }
}

/// Reads a Parquet file.
fn read_parquet(path: &Path, opened: Opened) -> Result<ItemTable, ItemTableError> {
    let file = ParquetFile::open(path, opened)?;
    let mut builder = ItemTableBuilder::new();
    let names = file.short_names();
    let uses = uses(path, &names, &mut builder)?;
    for (column, used) in uses.iter().enumerate() {
        let kind = match (file.unusable_as_text(column), used) {
            (None, Use::Id | Use::Title | Use::Hidden) if file.is_list(column) => "a list",
            (None, _) => continue,
            (Some(kind), _) => kind,
        };
        let (path, column) = (path.to_owned(), names[column].clone());
        return Err(ItemTableError::Column { path, column, fault: KeyFault::Type(kind) });
    }
    let mut fault = None;
    file.read_texts(path, |row, line| {
        let mut add = || -> Result<(), ItemFault> {
            let (mut id, mut title, mut hidden) = ("", "", false);
            for (column, used) in uses.iter().enumerate() {
                let mut values = row.texts(column)?;
                match used {
                    Use::Id => id = values.next().unwrap_or_default(),
                    Use::Title => title = values.next().unwrap_or_default(),
                    Use::Hidden => hidden = boolean(values.next().unwrap_or_default().trim())?,
                    Use::Key(key) => values.try_for_each(|value| builder.value(*key, value))?,
                }
            }
            builder.item(id, title, hidden)
        };
        match add() {
            Ok(()) => true,
            Err(found) => {
                fault = Some(in_line(path, LineUnit::Row, line, found));
                false
            }
        }
    })?;
    match fault {
        Some(fault) => Err(fault),
        None => Ok(builder.finish(file.sha256)),
    }
}
