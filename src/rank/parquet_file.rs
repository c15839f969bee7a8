//! The Parquet file of `canet rank --out`.

use std::fmt::Display;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use tempfile::TempPath;

use super::Line;
use crate::Failure;

/// The lists of a row have as many elements as each other.
const SCHEMA: &str = "
    message rankings {
        required binary user (STRING);
        required group items (LIST) { repeated group list { required binary element (STRING); } }
        required group scores (LIST) { repeated group list { required float element; } }
        required binary route (STRING);
    }";

/// Items in a row group. They are in memory until it is written.
const ROW_GROUP_ITEMS: usize = 1 << 20;

/// A file that is written aside and renamed, so that nobody reads half of it. The name aside is random, because processes in
/// two containers may have the same id.
pub(super) struct ParquetFile {
    path: PathBuf,
    aside: TempPath,
    writer: SerializedFileWriter<File>,
    rows: Rows,
}

/// The columns of a row group. Both lists have the same levels.
#[derive(Default)]
struct Rows {
    users: Vec<ByteArray>,
    items: Vec<ByteArray>,
    scores: Vec<f32>,
    routes: Vec<ByteArray>,
    /// 1 for an element, 0 for a list without one.
    definitions: Vec<i16>,
    /// 0 for the first element of a list, 1 for the others.
    repetitions: Vec<i16>,
}

impl ParquetFile {
    pub(super) fn create(path: &Path) -> Result<ParquetFile, Failure> {
        if path.is_dir() {
            return Err(Failure::Usage(message(path, "this is a directory: name a file")));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let aside = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            // As of every new file. The umask takes its part away.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory);
        let aside = aside.map_err(|error| Failure::unwritable(&error, message(path, &error)))?;
        let (file, aside) = aside.into_parts();
        let schema = parse_message_type(SCHEMA).map_err(|error| failure(path, error))?;
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties));
        let writer = writer.map_err(|error| failure(path, error))?;
        Ok(ParquetFile { path: path.to_owned(), aside, writer, rows: Rows::default() })
    }

    pub(super) fn write(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        let rows = &mut self.rows;
        rows.users.push(line.user.into());
        rows.routes.push(line.route.into());
        for (place, item) in line.items.iter().enumerate() {
            rows.items.push(item.item.into());
            rows.scores.push(item.score);
            rows.definitions.push(1);
            rows.repetitions.push(i16::from(place > 0));
        }
        if line.items.is_empty() {
            rows.definitions.push(0);
            rows.repetitions.push(0);
        }
        if rows.definitions.len() >= ROW_GROUP_ITEMS {
            self.write_group().map_err(|error| failure(&self.path, error))?;
        }
        Ok(())
    }

    /// Writes the rest and gives the file its name.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let written = self.write_group().and_then(|()| self.writer.finish());
        written.map_err(|error| failure(&self.path, error))?;
        let synced = self.writer.inner().sync_all();
        let durable = synced.and_then(|()| self.aside.persist(&self.path).map_err(|error| error.error));
        durable.map_err(|error| failure(&self.path, error))
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let Rows { users, items, scores, routes, definitions, repetitions } = std::mem::take(&mut self.rows);
        if users.is_empty() {
            return Ok(());
        }
        let levels = Some((&*definitions, &*repetitions));
        let mut group = self.writer.next_row_group()?;
        column::<ByteArrayType>(&mut group, &users, None)?;
        column::<ByteArrayType>(&mut group, &items, levels)?;
        column::<FloatType>(&mut group, &scores, levels)?;
        column::<ByteArrayType>(&mut group, &routes, None)?;
        group.close()?;
        Ok(())
    }
}

/// Writes the next column of a row group. Lists have definition and repetition levels.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("the schema has too few columns".to_owned()));
    };
    let (definitions, repetitions) = levels.unzip();
    column.typed::<T>().write_batch(values, definitions, repetitions)?;
    column.close()
}

fn failure(path: &Path, error: impl Display) -> Failure {
    Failure::Io(message(path, error))
}

fn message(path: &Path, error: impl Display) -> String {
    format!("--out {}: {error}", path.display())
}
