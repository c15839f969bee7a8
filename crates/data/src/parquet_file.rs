//! Parquet files, read column by column.

mod column;

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use self::column::{Column, Kind};
use super::bad_line::BadLines;
use super::collector::Collector;
use super::error::ColumnFault;
use super::records::{Record, Records};
use super::roles::{self, Roles, Sampled};
use super::source::Opened;
use super::time::{Time, rfc3339};
use super::{DataError, LineFault, ReadOptions, TimeFormat};

/// The first bytes of a Parquet file.
pub(crate) const MAGIC: &[u8] = b"PAR1";

/// Rows that are decoded at a time.
const BATCH: usize = 8192;

/// Rows that show what a column holds.
const SAMPLE: usize = 100;

/// A Parquet file and its columns.
pub(crate) struct ParquetFile {
    reader: Box<dyn FileReader>,
    /// The dotted path of each leaf column.
    pub(crate) names: Vec<String>,
    kinds: Vec<Kind>,
    /// The values of the last columns, which are not in the file: those of its folders.
    partitions: Vec<String>,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: String,
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
        Ok(ParquetFile { reader, names, kinds, partitions: Vec::new(), sha256 })
    }

    /// Adds columns with one value each, which the file's folders name. A column of the file wins over them.
    pub(crate) fn with_partitions(mut self, partitions: &[(String, String)]) -> ParquetFile {
        for (key, value) in partitions {
            if !self.names.iter().any(|name| roles::is_same(name, key)) {
                self.names.push(key.clone());
                self.kinds.push(Kind::Text);
                self.partitions.push(value.clone());
            }
        }
        self
    }

    /// The number of columns in the file.
    fn columns(&self) -> usize {
        self.names.len() - self.partitions.len()
    }

    /// The value of a column that is not in the file.
    fn partition(&self, column: usize) -> Option<&str> {
        column.checked_sub(self.columns()).map(|place| &*self.partitions[place])
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
        let sampled = |column| {
            self.sampled(column).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                Sampled::Texts(Vec::new())
            })
        };
        let roles = Roles::find(&self.names, options, sampled);
        if let Some(error) = failed {
            return Err(damaged(path)(error));
        }
        let columns = |fault| DataError::Columns { path: path.to_owned(), fault };
        let mut roles = roles.map_err(columns)?;
        if roles.time.is_some_and(|time| self.kinds[time].is_time()) {
            roles.time_format = None;
        }
        let used = [(roles.user, "a user"), (roles.item, "an item")];
        let tested = roles.tests.iter().map(|test| (test.column, "a condition"));
        for (column, role) in used.into_iter().chain(roles.time.map(|time| (time, "a time"))).chain(tested) {
            let kind = match &self.kinds[column] {
                Kind::Unusable(kind) => kind,
                kind if kind.is_time() && !matches!(role, "a time" | "a condition") => "a date",
                Kind::Bool | Kind::Uuid if role == "a time" => "neither a number nor a date",
                _ => continue,
            };
            let fault = ColumnFault::Type { name: self.names[column].clone(), kind: kind.to_owned(), role };
            return Err(columns(fault));
        }
        Ok(roles)
    }

    /// The first values of a column.
    fn sampled(&self, column: usize) -> Result<Sampled, ParquetError> {
        if let Some(value) = self.partition(column) {
            return Ok(Sampled::Constant(value.to_owned()));
        }
        let kind = &self.kinds[column];
        if let Kind::Unusable(kind) = kind {
            return Ok(Sampled::Unread(kind));
        }
        let mut texts = Vec::new();
        // The compression of a column that is read is checked later.
        if self.reader.num_row_groups() > 0 && self.unread_compression(&[column]).is_none() {
            let mut values = Column::new(column, self, false);
            let group = self.reader.get_row_group(0)?;
            values.read(&mut group.get_column_reader(column)?, SAMPLE)?;
            texts.extend(values.texts().map(str::to_owned));
        }
        Ok(if kind.is_time() { Sampled::Typed(texts) } else { Sampled::Texts(texts) })
    }

    /// A compression of these columns that this build does not read.
    fn unread_compression(&self, columns: &[usize]) -> Option<&'static str> {
        let chunks = self.reader.metadata().row_groups().iter();
        let mut compressions =
            chunks.flat_map(|group| columns.iter().map(|column| group.column(*column).compression()));
        compressions.find_map(|found| match found {
            Compression::BROTLI(_) => Some("brotli"),
            Compression::LZO => Some("LZO"),
            _ => None,
        })
    }

    /// Refuses compressions that this build does not read.
    fn check_compression(&self, path: &Path, columns: &[usize]) -> Result<(), DataError> {
        let Some(name) = self.unread_compression(columns) else { return Ok(()) };
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
        used.retain(|column| *column < self.columns());
        self.check_compression(path, &used)?;
        // A condition compares texts, and a format reads them. Such a time is read as a text and parsed.
        let is_tested = |column: usize| roles.tests.iter().any(|test| test.column == column);
        let by_format = roles.time_format.is_some();
        let is_time = |column: usize| time == Some(column) && !by_format && !is_tested(column);
        let mut columns: Vec<Column> = used.iter().map(|column| Column::new(*column, self, is_time(*column))).collect();
        self.read_batches(path, &used, &mut columns, |columns, row, number| {
            bad_lines.lines += 1;
            if let Err(fault) = records.add(&Row { file: self, columns, row }, collector) {
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
            return Err(LineFault::Bytes(column.name.clone()));
        }
        Ok(values.map(|value| column.text(value)))
    }
}

/// One row of a batch.
struct Row<'a> {
    file: &'a ParquetFile,
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
        let Some(column) = self.column(column) else { return Ok(self.file.partition(column).unwrap_or_default()) };
        if column.not_text.contains(&self.row) {
            return Err(LineFault::Bytes(column.name.clone()));
        }
        Ok(column.text(self.row).trim())
    }

    fn time(&self, column: usize, name: &str, format: Option<&TimeFormat>) -> Result<Time, LineFault> {
        match self.column(column) {
            Some(read) if read.is_time => read.times.get(self.row).copied().flatten().ok_or_else(|| {
                let column = read.name.clone();
                match read.far.iter().find(|(row, _)| *row == self.row) {
                    Some((_, nanoseconds)) => LineFault::DateRange { column, text: rfc3339(*nanoseconds) },
                    None => LineFault::Time { column, text: String::new() },
                }
            }),
            _ => TimeFormat::parse(format, self.text(column)?, name),
        }
    }
}
