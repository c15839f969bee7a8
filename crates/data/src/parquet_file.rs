//! Parquet files, read column by column.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use parquet::basic::{Compression, ConvertedType, LogicalType, TimeUnit as ParquetUnit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use super::bad_line::BadLines;
use super::collector::Collector;
use super::error::ColumnFault;
use super::records::{Record, Records};
use super::roles::Roles;
use super::source::Opened;
use super::time::{SECOND, Time};
use super::times::looks_like_time;
use super::{DataError, LineFault, ReadOptions};

/// The first bytes of a Parquet file.
pub(crate) const MAGIC: &[u8] = b"PAR1";

/// Rows that are decoded at a time.
const BATCH: usize = 8192;

/// Rows that show whether a column is a time.
const SAMPLE: usize = 100;

/// A Parquet file and its columns.
pub(crate) struct ParquetFile {
    reader: Box<dyn FileReader>,
    /// The dotted path of each leaf column.
    pub(crate) names: Vec<String>,
    kinds: Vec<Kind>,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: String,
}

/// How a column's values are used.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Text,
    Signed,
    Unsigned,
    Float,
    Bool,
    Uuid,
    /// Whole decimal numbers in big-endian bytes.
    Decimal,
    /// Nanoseconds in the unit.
    Timestamp(i64),
    /// Days since 1970.
    Date,
    /// Spark's and Hive's former timestamps.
    Int96,
    /// Neither an id nor a time.
    Unusable(&'static str),
}

impl Kind {
    fn of(column: &ColumnDescriptor) -> Kind {
        if column.max_rep_level() > 0 { Kind::Unusable("a list") } else { Kind::of_values(column) }
    }

    /// The kind of a column's values, which may be those of lists.
    fn of_values(column: &ColumnDescriptor) -> Kind {
        let unit = |unit: &ParquetUnit| match unit {
            ParquetUnit::MILLIS => 1_000_000,
            ParquetUnit::MICROS => 1_000,
            ParquetUnit::NANOS => 1,
        };
        match (column.physical_type(), column.logical_type_ref(), column.converted_type()) {
            (Type::INT64, Some(LogicalType::Timestamp(timestamp)), _) => Kind::Timestamp(unit(&timestamp.unit)),
            (Type::INT64, None, ConvertedType::TIMESTAMP_MILLIS) => Kind::Timestamp(1_000_000),
            (Type::INT64, None, ConvertedType::TIMESTAMP_MICROS) => Kind::Timestamp(1_000),
            (Type::INT32, Some(LogicalType::Date), _) | (Type::INT32, None, ConvertedType::DATE) => Kind::Date,
            (_, Some(LogicalType::Time(_)), _) | (_, _, ConvertedType::TIME_MILLIS | ConvertedType::TIME_MICROS) => {
                Kind::Unusable("a time of day")
            }
            (kind, Some(LogicalType::Decimal(_)), _) | (kind, _, ConvertedType::DECIMAL) => {
                match (column.type_scale(), kind) {
                    (0, Type::INT32 | Type::INT64) => Kind::Signed,
                    (0, _) if kind == Type::BYTE_ARRAY || column.type_length() <= 16 => Kind::Decimal,
                    _ => Kind::Unusable("a decimal number with a fraction"),
                }
            }
            (Type::INT32 | Type::INT64, Some(LogicalType::Integer(integer)), _) if !integer.is_signed => Kind::Unsigned,
            (Type::INT32 | Type::INT64, None, ConvertedType::UINT_8 | ConvertedType::UINT_16) => Kind::Unsigned,
            (Type::INT32 | Type::INT64, None, ConvertedType::UINT_32 | ConvertedType::UINT_64) => Kind::Unsigned,
            (Type::INT32 | Type::INT64, _, _) => Kind::Signed,
            (Type::INT96, _, _) => Kind::Int96,
            (Type::FLOAT | Type::DOUBLE, _, _) => Kind::Float,
            (Type::BOOLEAN, _, _) => Kind::Bool,
            (Type::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Uuid), _) => Kind::Uuid,
            (Type::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16), _) => Kind::Unusable("a 16-bit float"),
            (Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY, _, _) => Kind::Text,
        }
    }

    fn is_time(&self) -> bool {
        matches!(self, Kind::Timestamp(_) | Kind::Date | Kind::Int96)
    }
}

impl ParquetFile {
    /// Opens a file by its first bytes, which were read. What cannot be read at any place is read into memory.
    pub(crate) fn open(path: &Path, opened: Opened) -> Result<ParquetFile, DataError> {
        let unreadable = |source| DataError::Read { path: path.to_owned(), source };
        let regular = path.metadata().is_ok_and(|metadata| metadata.is_file());
        let (reader, sha256): (Result<Box<dyn FileReader>, ParquetError>, String) = if regular {
            let sha256 = opened.into_digest().map_err(unreadable)?;
            let file = File::open(path).map_err(unreadable)?;
            (SerializedFileReader::new(file).map(|reader| Box::new(reader) as _), sha256)
        } else {
            let (bytes, sha256) = opened.into_bytes().map_err(unreadable)?;
            (SerializedFileReader::new(Bytes::from(bytes)).map(|reader| Box::new(reader) as _), sha256)
        };
        let reader = reader.map_err(damaged(path))?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let names = schema.columns().iter().map(|column| column.path().string()).collect();
        let kinds = schema.columns().iter().map(|column| Kind::of(column)).collect();
        Ok(ParquetFile { reader, names, kinds, sha256 })
    }

    /// The columns' names. A list that is a column itself has the name of that column, without those of its levels.
    pub(crate) fn short_names(&self) -> Vec<String> {
        let columns = self.reader.metadata().file_metadata().schema_descr().columns();
        let root = |column: &ColumnDescriptor| column.path().parts().first().cloned().unwrap_or_default();
        let is_alone = |name: &String| columns.iter().filter(|column| root(column) == *name).count() == 1;
        let name = |(column, dotted): (&ColumnDescPtr, &String)| {
            let root = root(column);
            if column.max_rep_level() > 0 && is_alone(&root) { root } else { dotted.clone() }
        };
        columns.iter().zip(&self.names).map(name).collect()
    }

    fn descriptor(&self, column: usize) -> ColumnDescPtr {
        self.reader.metadata().file_metadata().schema_descr().column(column)
    }

    /// Whether a column's values are lists.
    pub(crate) fn is_list(&self, column: usize) -> bool {
        self.descriptor(column).max_rep_level() > 0
    }

    /// What a column holds if [`read_texts`](Self::read_texts) cannot read it.
    pub(crate) fn unusable_as_text(&self, column: usize) -> Option<&'static str> {
        let descriptor = self.descriptor(column);
        match Kind::of_values(&descriptor) {
            _ if descriptor.max_rep_level() > 1 => Some("a list of lists"),
            Kind::Unusable(kind) => Some(kind),
            kind if kind.is_time() => Some("a date or a time"),
            _ => None,
        }
    }

    /// Reads all columns as texts. `take` gets each row and its number, from 1, and says whether to read on.
    pub(crate) fn read_texts(
        &self,
        path: &Path,
        mut take: impl FnMut(&TextRow<'_>, u64) -> bool,
    ) -> Result<(), DataError> {
        let all: Vec<usize> = (0..self.names.len()).collect();
        self.check_compression(path, &all)?;
        let mut columns: Vec<Column> = all.iter().map(|column| Column::of_texts(*column, self)).collect();
        self.read_batches(path, &all, &mut columns, |columns, row, number| Ok(take(&TextRow { columns, row }, number)))
    }

    /// Reads columns in batches of rows. `take` gets each row of a batch and its number, from 1, and says whether to read on.
    fn read_batches(
        &self,
        path: &Path,
        used: &[usize],
        columns: &mut [Column],
        mut take: impl FnMut(&[Column], usize, u64) -> Result<bool, DataError>,
    ) -> Result<(), DataError> {
        let mut first = 1;
        for group in 0..self.reader.num_row_groups() {
            let group = self.reader.get_row_group(group).map_err(damaged(path))?;
            let readers = used.iter().map(|column| group.get_column_reader(*column)).collect();
            let mut readers: Vec<ColumnReader> = Result::map_err(readers, damaged(path))?;
            loop {
                let mut rows = None;
                for (column, reader) in columns.iter_mut().zip(&mut readers) {
                    let read = column.read(reader, BATCH).map_err(damaged(path))?;
                    if *rows.get_or_insert(read) != read {
                        let reason = "its columns have different lengths".to_owned();
                        return Err(DataError::Parquet { path: path.to_owned(), reason });
                    }
                }
                let rows = rows.unwrap_or_default();
                if rows == 0 {
                    break;
                }
                for row in 0..rows {
                    if !take(columns, row, first + row as u64)? {
                        return Ok(());
                    }
                }
                first += rows as u64;
            }
        }
        Ok(())
    }

    /// Finds the columns of users, items and times.
    pub(crate) fn roles(&self, path: &Path, options: &ReadOptions) -> Result<Roles, DataError> {
        let mut failed = None;
        let time_value = |column| {
            self.time_value(column).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                None
            })
        };
        let roles = Roles::find(&self.names, options, time_value);
        if let Some(error) = failed {
            return Err(damaged(path)(error));
        }
        let columns = |fault| DataError::Columns { path: path.to_owned(), fault };
        let roles = roles.map_err(columns)?;
        let used = [(roles.user, "a user"), (roles.item, "an item")];
        let tested = roles.tests.iter().map(|test| (test.column, "a condition"));
        for (column, role) in used.into_iter().chain(roles.time.map(|time| (time, "a time"))).chain(tested) {
            let kind = match &self.kinds[column] {
                Kind::Unusable(kind) => kind,
                kind if kind.is_time() && role.ends_with(['r', 'm']) => "a date",
                Kind::Bool | Kind::Uuid if role == "a time" => "neither a number nor a date",
                _ => continue,
            };
            let fault = ColumnFault::Type { name: self.names[column].clone(), kind: kind.to_owned(), role };
            return Err(columns(fault));
        }
        Ok(roles)
    }

    /// A value of a column whose first values all look like times.
    fn time_value(&self, column: usize) -> Result<Option<String>, ParquetError> {
        match &self.kinds[column] {
            kind if kind.is_time() => return Ok(Some("its type is a date or a timestamp".to_owned())),
            Kind::Text | Kind::Signed | Kind::Float => {}
            _ => return Ok(None),
        }
        if self.reader.num_row_groups() == 0 {
            return Ok(None);
        }
        let mut values = Column::new(column, self, false);
        let group = self.reader.get_row_group(0)?;
        values.read(&mut group.get_column_reader(column)?, SAMPLE)?;
        let texts: Vec<&str> =
            (0..values.ends.len()).map(|row| values.text(row)).filter(|text| !text.is_empty()).collect();
        let timed = !texts.is_empty() && texts.iter().all(|text| looks_like_time(text));
        Ok(timed.then(|| texts[0].to_owned()))
    }

    /// Refuses compressions that this build does not read.
    fn check_compression(&self, path: &Path, columns: &[usize]) -> Result<(), DataError> {
        let chunks = self.reader.metadata().row_groups().iter();
        let mut compressions =
            chunks.flat_map(|group| columns.iter().map(|column| group.column(*column).compression()));
        let name = match compressions.find(|found| matches!(found, Compression::BROTLI(_) | Compression::LZO)) {
            None => return Ok(()),
            Some(Compression::LZO) => "LZO",
            Some(_) => "brotli",
        };
        let reason = format!("its pages are compressed by {name}: write it with snappy, gzip, lz4 or zstd");
        Err(DataError::Parquet { path: path.to_owned(), reason })
    }

    /// Reads all rows.
    pub(crate) fn read(
        &self,
        path: &Path,
        records: &mut Records,
        collector: &mut Collector,
        bad_lines: &mut BadLines,
    ) -> Result<(), DataError> {
        let roles = records.roles();
        let time = roles.time;
        let mut used: Vec<usize> = roles.tests.iter().map(|test| test.column).collect();
        used.extend([roles.user, roles.item]);
        used.extend(time);
        used.sort_unstable();
        used.dedup();
        self.check_compression(path, &used)?;
        let mut columns: Vec<Column> =
            used.iter().map(|column| Column::new(*column, self, time == Some(*column))).collect();
        self.read_batches(path, &used, &mut columns, |columns, row, number| {
            bad_lines.lines += 1;
            if let Err(fault) = records.add(&Row { columns, row }, collector) {
                bad_lines.report(number, fault)?;
            }
            collector.check_size(path)?;
            Ok(true)
        })
    }
}

fn damaged(path: &Path) -> impl Fn(ParquetError) -> DataError + '_ {
    |error| DataError::Parquet { path: path.to_owned(), reason: error.to_string() }
}

/// Nanoseconds in a day.
const DAY: i128 = SECOND as i128 * 86_400;

/// A batch of a column's values, by row.
struct Column {
    column: usize,
    name: String,
    kind: Kind,
    is_time: bool,
    /// The texts one after another, and where each ends. A null is an empty text.
    texts: String,
    ends: Vec<usize>,
    /// The times of a column of times, unless they are texts. A null is `None`.
    times: Vec<Option<Time>>,
    /// Rows, or values of lists, whose bytes are not text.
    not_text: Vec<usize>,
    definitions: Vec<i16>,
    lists: Option<Lists>,
}

/// The rows of a column of lists, whose texts are values.
struct Lists {
    /// The level of a value that is not null.
    defined: i16,
    /// Where each row's values end.
    ends: Vec<usize>,
    repetitions: Vec<i16>,
}

impl Column {
    fn new(column: usize, file: &ParquetFile, is_time: bool) -> Column {
        let kind = file.kinds[column].clone();
        Column {
            column,
            name: file.names[column].clone(),
            is_time: is_time && kind != Kind::Text,
            kind,
            texts: String::new(),
            ends: Vec::new(),
            times: Vec::new(),
            not_text: Vec::new(),
            definitions: Vec::new(),
            lists: None,
        }
    }

    /// A column that is read as texts, whether they are values or lists of values.
    fn of_texts(column: usize, file: &ParquetFile) -> Column {
        let descriptor = file.descriptor(column);
        let lists = (descriptor.max_rep_level() > 0).then(|| Lists {
            defined: descriptor.max_def_level(),
            ends: Vec::new(),
            repetitions: Vec::new(),
        });
        Column { kind: Kind::of_values(&descriptor), is_time: false, lists, ..Column::new(column, file, false) }
    }

    fn text(&self, row: usize) -> &str {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.texts[start..self.ends[row]]
    }

    /// Replaces the batch by the next one and returns its number of rows.
    fn read(&mut self, reader: &mut ColumnReader, most: usize) -> Result<usize, ParquetError> {
        self.texts.clear();
        self.ends.clear();
        self.times.clear();
        self.not_text.clear();
        let (unsigned, kind) = (self.kind == Kind::Unsigned, self.kind.clone());
        match reader {
            ColumnReader::Int32ColumnReader(reader) => self.read_typed(reader, most, |column, value: &i32| {
                column.push_integer(if unsigned { i128::from(value.cast_unsigned()) } else { i128::from(*value) });
            }),
            ColumnReader::Int64ColumnReader(reader) => self.read_typed(reader, most, |column, value: &i64| {
                column.push_integer(if unsigned { i128::from(value.cast_unsigned()) } else { i128::from(*value) });
            }),
            ColumnReader::Int96ColumnReader(reader) => self.read_typed(reader, most, |column, value| {
                // The nanoseconds of a day in two halves, and the Julian day.
                const DAY_OF_1970: i64 = 2_440_588;
                let [low, high, day] = [0, 1, 2].map(|part| i64::from(value.data()[part]));
                let days = i128::from(day - DAY_OF_1970);
                column.times.push(Some(date(days * DAY + i128::from(low | high << 32))));
            }),
            ColumnReader::FloatColumnReader(reader) => {
                self.read_typed(reader, most, |column, value| column.push_float((*value).into()))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                self.read_typed(reader, most, |column, value| column.push_float(*value))
            }
            ColumnReader::BoolColumnReader(reader) => self
                .read_typed(reader, most, |column, value| column.texts.push_str(if *value { "true" } else { "false" })),
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.read_typed(reader, most, |column, value| column.push_bytes(value.data(), &kind))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                self.read_typed(reader, most, |column, value| column.push_bytes(value.data(), &kind))
            }
        }
    }

    /// Reads values of a type and pushes each. Every row gets an end of its text.
    fn read_typed<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        most: usize,
        push: impl Fn(&mut Column, &T::T),
    ) -> Result<usize, ParquetError> {
        let mut values: Vec<T::T> = Vec::with_capacity(most);
        let mut definitions = std::mem::take(&mut self.definitions);
        if let Some(mut lists) = self.lists.take() {
            let rows = self.read_lists(reader, most, &mut lists, &mut definitions, &mut values, push);
            (self.lists, self.definitions) = (Some(lists), definitions);
            return rows;
        }
        let mut rows = 0;
        // A call may end early at the end of a page.
        while rows < most {
            definitions.clear();
            values.clear();
            let (records, _, levels) = reader.read_records(most - rows, Some(&mut definitions), None, &mut values)?;
            if records == 0 {
                break;
            }
            let nullable = levels > 0 && !definitions.is_empty();
            let defined = definitions.iter().max().copied().unwrap_or_default();
            let all = !nullable || values.len() == records;
            let mut values = values.iter();
            for row in 0..records {
                let present = all || definitions.get(row).is_some_and(|level| *level == defined);
                match if present { values.next() } else { None } {
                    Some(value) => push(self, value),
                    None if self.is_time => self.times.push(None),
                    None => {}
                }
                self.ends.push(self.texts.len());
            }
            rows += records;
        }
        self.definitions = definitions;
        Ok(rows)
    }

    /// Reads lists of values of a type. Every value gets an end of its text, and every row an end of its values.
    fn read_lists<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        most: usize,
        Lists { defined, ends, repetitions }: &mut Lists,
        definitions: &mut Vec<i16>,
        values: &mut Vec<T::T>,
        push: impl Fn(&mut Column, &T::T),
    ) -> Result<usize, ParquetError> {
        ends.clear();
        let mut rows = 0;
        while rows < most {
            definitions.clear();
            repetitions.clear();
            values.clear();
            let (records, _, _) = reader.read_records(most - rows, Some(definitions), Some(repetitions), values)?;
            if records == 0 {
                break;
            }
            let mut values = values.iter();
            for (place, (definition, repetition)) in definitions.iter().zip(repetitions.iter()).enumerate() {
                // A row begins, so the one before it ends.
                if *repetition == 0 && place > 0 {
                    ends.push(self.ends.len());
                }
                if *definition == *defined
                    && let Some(value) = values.next()
                {
                    push(self, value);
                    self.ends.push(self.texts.len());
                }
            }
            ends.push(self.ends.len());
            rows += records;
        }
        Ok(rows)
    }

    /// The values of a row: one text, or those of its list.
    fn texts_of(&self, row: usize) -> std::ops::Range<usize> {
        match &self.lists {
            None => row..row + 1,
            Some(lists) => {
                let start = if row == 0 { 0 } else { lists.ends[row - 1] };
                start..lists.ends[row]
            }
        }
    }

    fn push_integer(&mut self, value: i128) {
        if !self.is_time {
            // Writing to a string cannot fail.
            let _ = write!(self.texts, "{value}");
            return;
        }
        self.times.push(match self.kind {
            Kind::Timestamp(nanoseconds) => Some(date(value * i128::from(nanoseconds))),
            Kind::Date => Some(date(value * DAY)),
            _ => match i64::try_from(value) {
                Ok(value) => Some(Time::Whole(value)),
                Err(_) => Time::of_float(value as f64),
            },
        });
    }

    fn push_float(&mut self, value: f64) {
        if self.is_time {
            self.times.push(Time::of_float(value));
        } else if !value.is_nan() {
            // NaN is what pandas writes for a missing number.
            let _ = write!(self.texts, "{value}");
        }
    }

    fn push_bytes(&mut self, bytes: &[u8], kind: &Kind) {
        match kind {
            Kind::Decimal => {
                let negative = bytes.first().is_some_and(|byte| *byte >= 128);
                let start = if negative { -1i128 } else { 0 };
                let value = bytes.iter().fold(start, |value, byte| value << 8 | i128::from(*byte));
                if bytes.len() > 16 {
                    self.not_text.push(self.ends.len());
                }
                self.push_integer(value);
            }
            Kind::Uuid => {
                for (place, byte) in bytes.iter().enumerate() {
                    let hyphen = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
                    let _ = write!(self.texts, "{hyphen}{byte:02x}");
                }
            }
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => self.texts.push_str(text),
                Err(_) => self.not_text.push(self.ends.len()),
            },
        }
    }
}

/// Nanoseconds since 1970 as a date. Dates that do not fit become the nearest that does.
fn date(nanoseconds: i128) -> Time {
    Time::Date(nanoseconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

/// One row of a batch of texts.
pub(crate) struct TextRow<'a> {
    columns: &'a [Column],
    row: usize,
}

impl<'a> TextRow<'a> {
    /// The values of a column, which are several only in a list. A null is an empty text.
    pub(crate) fn texts(&self, column: usize) -> Result<impl Iterator<Item = &'a str> + use<'a>, LineFault> {
        let column = &self.columns[column];
        let values = column.texts_of(self.row);
        if column.not_text.iter().any(|place| values.contains(place)) {
            return Err(LineFault::NotUtf8);
        }
        Ok(values.map(|value| column.text(value)))
    }
}

/// One row of a batch.
struct Row<'a> {
    columns: &'a [Column],
    row: usize,
}

impl Row<'_> {
    fn column(&self, column: usize) -> Option<&Column> {
        self.columns.iter().find(|read| read.column == column)
    }
}

impl Record for Row<'_> {
    fn text(&self, column: usize) -> Result<&str, LineFault> {
        let Some(column) = self.column(column) else { return Ok("") };
        if column.not_text.contains(&self.row) {
            return Err(LineFault::NotUtf8);
        }
        Ok(column.text(self.row).trim())
    }

    fn time(&self, column: usize, name: &str) -> Result<Time, LineFault> {
        match self.column(column) {
            Some(read) if read.is_time => read
                .times
                .get(self.row)
                .copied()
                .flatten()
                .ok_or_else(|| LineFault::Time { column: read.name.clone(), text: String::new() }),
            _ => Time::parse(self.text(column)?, name),
        }
    }
}
