//! From paths to the interactions of all files.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::bad_line::BadLines;
use super::collector::{Collected, Collector};
use super::contained::{Panicked, contained};
use super::detect::{Layout, Sample, detect};
use super::error::ColumnFault;
use super::json_lines::JsonLines;
use super::lines::Lines;
use super::locate::DataFile;
use super::parquet_file::{self, ParquetFile};
use super::records::Records;
use super::roles::{Finer, Roles, Sampled};
use super::source::{Opened, Packing};
use super::table::{self, Table, Titles};
use super::{DataError, FileSummary, Foreign, Form, LineUnit, ReadOptions, Skipped, TimeColumn, headerless, locate};

/// What the files hold.
pub(crate) struct FilesRead {
    pub(crate) collected: Collected,
    pub(crate) files: Vec<FileSummary>,
    pub(crate) name: String,
    pub(crate) sha256: String,
    pub(crate) titles: Titles,
    pub(crate) skipped: Skipped,
    pub(crate) untimed: Option<Untimed>,
    pub(crate) coarse: Option<CoarseTimes>,
}

/// A file without times in a format that has them. The order of the lines then counts as the order of time.
///
/// Files of [`Form::Pairs`](super::Form::Pairs) and [`Form::Sequences`](super::Form::Sequences) are in the order of time by
/// definition, so they lack nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no time column (found: {found}): the order of lines is taken as time")]
pub struct Untimed {
    /// The first such file.
    pub path: PathBuf,
    /// The columns or fields that the file has.
    pub found: String,
}

/// A file whose times are dates without a time of day, while another column has finer times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the times of `{column}` are dates without a time of day, but `{finer}` looks like a finer time ({value}): pass \
     --time-column {finer} to use it, or --time-column {column} to confirm the dates"
)]
pub struct CoarseTimes {
    /// The first such file.
    pub path: PathBuf,
    /// The column of times.
    pub column: String,
    /// The column of finer times.
    pub finer: String,
    /// One of its values.
    pub value: String,
}

/// Reads all files of all paths.
pub(crate) fn read_files(paths: &[PathBuf], options: &ReadOptions) -> Result<FilesRead, DataError> {
    let mut reader = FileReader {
        options,
        collector: Collector::new(options.max_bytes),
        skipped: Skipped::default(),
        untimed: None,
        coarse: None,
        nothing_selected: None,
    };
    let (mut files, mut digests, mut titles) = (Vec::new(), Vec::new(), Titles::new());
    for path in paths {
        let mut first_part = None;
        for file in locate::interactions(path)? {
            let (summary, sha256) = match reader.read(&file) {
                // Spark writes an empty file for a part without rows.
                Err(DataError::Empty(_)) if file.is_part => continue,
                read => read?,
            };
            if file.is_part {
                check_columns(first_part.get_or_insert_with(|| summary.clone()), &summary)?;
            }
            if let Some(items) = locate::items_beside(&file.path) {
                let (of_file, bad_lines) = table::read_titles(&items, options.bad_lines)?;
                titles.extend(of_file);
                reader.skipped.append(bad_lines.skipped);
            }
            files.push(summary);
            digests.push(sha256);
        }
    }
    if reader.collector.len() == 0 {
        let path = files.first().map(|file| &file.path).or(paths.first()).cloned().unwrap_or_default();
        return Err(reader.nothing_selected.unwrap_or(DataError::NoInteractions(path)));
    }
    let collected = reader.collector.finish(options.min_interactions, options.drop_duplicates);
    if collected.users.is_empty() {
        return Err(DataError::NothingLeft(options.min_interactions));
    }
    let named = if let [file] = files.as_slice() { Some(&file.path) } else { paths.first() };
    let name = named.map(|path| locate::stem(path)).unwrap_or_default();
    let (name, sha256) = match digests.as_mut_slice() {
        [digest] => (name, std::mem::take(digest)),
        several => (
            if paths.len() > 1 { format!("{name} and {} more", paths.len() - 1) } else { name },
            format!("{:x}", Sha256::digest(several.concat())),
        ),
    };
    let FileReader { skipped, untimed, coarse, .. } = reader;
    Ok(FilesRead { collected, files, name, sha256, titles, skipped, untimed, coarse })
}

/// Checks that a part of a table has its columns from the same names as the first part.
fn check_columns(first: &FileSummary, part: &FileSummary) -> Result<(), DataError> {
    let of = |file: &FileSummary| [&file.user, &file.item, &file.time].map(|name| name.clone().unwrap_or_default());
    let flags = ["--user-column", "--item-column", "--time-column"];
    let pairs = of(first).into_iter().zip(of(part)).zip(flags);
    match pairs.into_iter().find(|((of_first, of_part), _)| of_first != of_part) {
        None => Ok(()),
        Some(((of_first, of_part), flag)) => Err(DataError::PartsDiffer {
            path: part.path.clone(),
            column: of_part,
            earlier: first.path.clone(),
            earlier_column: of_first,
            flag,
        }),
    }
}

/// Reads one file after the other.
struct FileReader<'a> {
    options: &'a ReadOptions,
    collector: Collector,
    skipped: Skipped,
    untimed: Option<Untimed>,
    coarse: Option<CoarseTimes>,
    /// Why the conditions selected nothing of the first file where they did not. It matters if no file has a selected row.
    nothing_selected: Option<DataError>,
}

impl FileReader<'_> {
    /// Reads a file. Returns what was understood and the SHA-256 of the file.
    fn read(&mut self, file: &DataFile) -> Result<(FileSummary, String), DataError> {
        let path = file.path.as_path();
        let unreadable = |source| DataError::Read { path: path.to_owned(), source };
        let foreign = |foreign| DataError::Foreign { path: path.to_owned(), foreign };
        let opened = Opened::open(path).map_err(unreadable)?;
        if opened.start().starts_with(parquet_file::MAGIC) {
            // The decoder panics on some damaged files. What was collected until then is dropped with the error.
            return contained(|| self.read_parquet(file, opened)).unwrap_or_else(|Panicked| {
                Err(DataError::Parquet { path: path.to_owned(), reason: "it is damaged".to_owned() })
            });
        }
        let source = opened.unpack().map_err(unreadable)?;
        let packing = source.packing();
        let mut lines = Lines::new(source).map_err(unreadable)?;
        if lines.sample().starts_with(parquet_file::MAGIC) {
            let remedy = "Unpack it: gunzip or zstd -d. Parquet is compressed within";
            return Err(foreign(Foreign::new(path, "a packed Parquet file", remedy)));
        }
        if let Some(format) = Foreign::of(path, lines.sample()) {
            return Err(foreign(format));
        }
        let sample = Sample::of(&lines);
        let mut bad_lines = BadLines::new(self.options.bad_lines, path, LineUnit::Line);
        let columns = |fault| DataError::Columns { path: path.to_owned(), fault };
        let (form, records) = match detect(path, &sample, self.options)? {
            Layout::Table(layout) => {
                let roles = Roles::find(&layout.names, self.options, |column| sample.values(&layout, column));
                let mut records = Records::new(layout.names.clone(), roles.map_err(columns)?);
                let header = if layout.has_header { Some(table::skip_header(&mut lines, path)?) } else { None };
                let rows = Table::new(&mut lines, layout.syntax, layout.names.len());
                let rows = match header {
                    Some(header) => rows.with_header(header),
                    None => rows,
                };
                table::read(rows, &mut records, &mut self.collector, &mut bad_lines, path)?;
                (table::describe(layout.form, layout.syntax, layout.has_header), Some(records))
            }
            Layout::JsonLines => {
                self.check_named(Form::JsonLines).map_err(columns)?;
                lines.widen_sample().map_err(unreadable)?;
                let sample = Sample::of(&lines);
                let (mut names, mut values): (Vec<String>, Vec<Vec<String>>) =
                    sample.json_columns().into_iter().unzip();
                let unseen = Roles::missing(&names, self.options);
                names.extend(unseen.iter().map(|(_, name)| name.clone()));
                values.resize(names.len(), Vec::new());
                let sampled = |column: usize| Sampled::Texts(values[column].clone());
                let roles = Roles::find(&names, self.options, sampled).map_err(columns)?;
                let mut records = Records::new(names, roles);
                let json = JsonLines { path, options: self.options, unseen };
                json.read(&mut lines, &mut records, &mut self.collector, &mut bad_lines)?;
                (Form::JsonLines.to_string(), Some(records))
            }
            Layout::Ids(detected) => {
                self.check_unnamed(detected.form).map_err(columns)?;
                let form = headerless::read(&mut lines, detected, &mut self.collector, &mut bad_lines, path)?;
                (form.to_string(), None)
            }
        };
        drop(sample);
        let sha256 = lines.digest().map_err(unreadable)?;
        let packed = match packing {
            Packing::Plain => "",
            Packing::Gzip => ", gzip",
            Packing::Zstd => ", zstd",
        };
        Ok((self.finish(path, form + packed, records, bad_lines)?, sha256))
    }

    fn read_parquet(&mut self, file: &DataFile, opened: Opened) -> Result<(FileSummary, String), DataError> {
        let path = file.path.as_path();
        let columns = |fault| DataError::Columns { path: path.to_owned(), fault };
        self.check_named(Form::Parquet).map_err(columns)?;
        let mut bad_lines = BadLines::new(self.options.bad_lines, path, LineUnit::Row);
        let file = ParquetFile::open(path, opened)?.with_partitions(&file.partitions);
        let mut records = Records::new(file.names.clone(), file.roles(path, self.options)?);
        file.read(path, &mut records, &mut self.collector, &mut bad_lines)?;
        let summary = self.finish(path, Form::Parquet.to_string(), Some(records), bad_lines)?;
        Ok((summary, file.sha256))
    }

    /// Judges the bad lines of a file and sums it up.
    fn finish(
        &mut self,
        path: &Path,
        form: String,
        records: Option<Records>,
        bad_lines: BadLines,
    ) -> Result<FileSummary, DataError> {
        bad_lines.judge(true)?;
        if self.nothing_selected.is_none() {
            self.nothing_selected = records.as_ref().and_then(|records| records.nothing_selected(path));
        }
        let roles = records.as_ref().map(|records| (records, records.roles()));
        let time = roles.and_then(|(_, roles)| roles.time);
        let time_unit = self.collector.finish_file(path, time.is_some())?;
        if let Some((records, _)) = roles.filter(|_| time.is_none() && self.options.time_column == TimeColumn::Detect) {
            self.untimed.get_or_insert(Untimed { path: path.to_owned(), found: records.names().join(", ") });
        }
        if let Some((records, roles)) = roles
            && let (Some(time), Some(Finer { column, value })) = (roles.time, &roles.finer)
        {
            let [column, finer] = [time, *column].map(|column| records.name(column).to_owned());
            self.coarse.get_or_insert(CoarseTimes { path: path.to_owned(), column, finer, value: value.clone() });
        }
        let (lines, skipped) = (bad_lines.lines, bad_lines.skipped.count);
        self.skipped.append(bad_lines.skipped);
        let name = |column: usize| records.as_ref().map(|records| records.name(column).to_owned());
        Ok(FileSummary {
            path: path.to_owned(),
            form,
            user: roles.and_then(|(_, roles)| name(roles.user)),
            item: roles.and_then(|(_, roles)| name(roles.item)),
            time: time.and_then(name),
            time_format: roles.and_then(|(_, roles)| roles.time_format.as_ref().map(ToString::to_string)),
            unused: records.as_ref().map(Records::unused).unwrap_or_default(),
            time_unit,
            lines,
            skipped,
            unselected: records.as_ref().map_or(0, |records| records.unselected),
        })
    }

    /// Refuses `--columns` for a format that names its columns itself.
    fn check_named(&self, form: Form) -> Result<(), ColumnFault> {
        if self.options.columns.is_some() { Err(ColumnFault::Named(form)) } else { Ok(()) }
    }

    /// Refuses flags that name columns for a format without names.
    fn check_unnamed(&self, form: Form) -> Result<(), ColumnFault> {
        let ReadOptions { user_column, item_column, time_column, time_format, conditions, .. } = self.options;
        let flags = [
            ("--user-column", user_column.is_some()),
            ("--item-column", item_column.is_some()),
            ("--time-column", matches!(time_column, TimeColumn::Named(_))),
            ("--time-format", time_format.is_some()),
            ("--where", !conditions.is_empty()),
        ];
        match flags.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(ColumnFault::Unnamed { form, flag }),
            None => Ok(()),
        }
    }
}
