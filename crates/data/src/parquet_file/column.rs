use std::fmt::{Display, Write as _};

use parquet::basic::{ConvertedType, LogicalType, TimeUnit as ParquetUnit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescriptor;

use super::super::time::{SECOND, Time, rfc3339};
use super::ParquetFile;

/// How a column's values are used.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
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
    pub(super) fn of(column: &ColumnDescriptor) -> Kind {
        if column.max_rep_level() > 0 { Kind::Unusable("a list") } else { Kind::of_values(column) }
    }

    /// The kind of a column's values, which may be those of lists.
    pub(super) fn of_values(column: &ColumnDescriptor) -> Kind {
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

    pub(super) fn is_time(&self) -> bool {
        matches!(self, Kind::Timestamp(_) | Kind::Date | Kind::Int96)
    }
}

/// Nanoseconds in a day.
const DAY: i128 = SECOND as i128 * 86_400;

/// A batch of a column's values, by row.
pub(super) struct Column {
    pub(super) column: usize,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) is_time: bool,
    /// The texts one after another, and where each ends. A null is an empty text.
    texts: String,
    ends: Vec<usize>,
    /// The times of a column of times, unless they are texts. A null is `None`.
    pub(super) times: Vec<Option<Time>>,
    /// Rows of a column of times whose date does not fit, and the date.
    pub(super) far: Vec<(usize, i128)>,
    /// Rows, or values of lists, whose bytes are not text.
    pub(super) not_text: Vec<usize>,
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
    pub(super) fn new(column: usize, file: &ParquetFile, is_time: bool) -> Column {
        let kind = file.kinds[column].clone();
        Column {
            column,
            name: file.names[column].clone(),
            is_time: is_time && kind != Kind::Text,
            kind,
            texts: String::new(),
            ends: Vec::new(),
            times: Vec::new(),
            far: Vec::new(),
            not_text: Vec::new(),
            definitions: Vec::new(),
            lists: None,
        }
    }

    /// A column that is read as texts, whether they are values or lists of values.
    pub(super) fn of_texts(column: usize, file: &ParquetFile) -> Column {
        let descriptor = file.descriptor(column);
        let lists = (descriptor.max_rep_level() > 0).then(|| Lists {
            defined: descriptor.max_def_level(),
            ends: Vec::new(),
            repetitions: Vec::new(),
        });
        Column { kind: Kind::of_values(&descriptor), is_time: false, lists, ..Column::new(column, file, false) }
    }

    pub(super) fn text(&self, row: usize) -> &str {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.texts[start..self.ends[row]]
    }

    /// The text of every row.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|row| self.text(row))
    }

    /// Replaces the batch by the next one and returns its number of rows.
    pub(super) fn read(&mut self, reader: &mut ColumnReader, most: usize) -> Result<usize, ParquetError> {
        self.texts.clear();
        self.ends.clear();
        self.times.clear();
        self.far.clear();
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
                column.push_date(days * DAY + i128::from(low | high << 32));
            }),
            ColumnReader::FloatColumnReader(reader) => self.read_typed(reader, most, |column, value| {
                // As a 64-bit float, 4.1 of 32 bits would be the text 4.099999904632568.
                column.push_float(f64::from(*value), value);
            }),
            ColumnReader::DoubleColumnReader(reader) => {
                self.read_typed(reader, most, |column, value| column.push_float(*value, value))
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
    pub(super) fn texts_of(&self, row: usize) -> std::ops::Range<usize> {
        match &self.lists {
            None => row..row + 1,
            Some(lists) => {
                let start = if row == 0 { 0 } else { lists.ends[row - 1] };
                start..lists.ends[row]
            }
        }
    }

    fn push_integer(&mut self, value: i128) {
        match self.kind {
            Kind::Timestamp(nanoseconds) => self.push_date(value * i128::from(nanoseconds)),
            Kind::Date => self.push_date(value * DAY),
            _ if self.is_time => self.times.push(match i64::try_from(value) {
                Ok(value) => Some(Time::Whole(value)),
                Err(_) => Time::of_float(value as f64),
            }),
            // Writing to a string cannot fail.
            _ => drop(write!(self.texts, "{value}")),
        }
    }

    /// Pushes nanoseconds since 1970.
    fn push_date(&mut self, nanoseconds: i128) {
        if !self.is_time {
            return self.texts.push_str(&rfc3339(nanoseconds));
        }
        let time = i64::try_from(nanoseconds).ok();
        if time.is_none() {
            self.far.push((self.times.len(), nanoseconds));
        }
        self.times.push(time.map(Time::Date));
    }

    /// Pushes a float, whose text has its shortest digits.
    fn push_float(&mut self, value: f64, digits: impl Display) {
        if self.is_time {
            self.times.push(Time::of_float(value));
        } else if !value.is_nan() {
            // NaN is what pandas writes for a missing number.
            let _ = write!(self.texts, "{digits}");
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
