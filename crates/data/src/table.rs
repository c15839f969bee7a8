use std::io;
use std::path::Path;

use super::collector::{BadLines, Collector};
use super::interaction::{Id, Interaction};
use super::lines::Lines;
use super::{DataError, Form, LineFault, Untimed};

/// The column of timestamps.
const TIME: &str = "timestamp";

/// Reads a table with a header row by row.
///
/// It counts the lines itself, because the parser's count leaves out blank lines and miscounts CRLF.
struct Table<'a> {
    lines: &'a mut Lines,
    parser: csv_core::Reader,
    delimiter: u8,
    header: Vec<String>,
    row: Row,
}

/// The fields of one row, without their quotes.
#[derive(Default)]
struct Row {
    text: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
}

impl<'a> Table<'a> {
    /// Reads the header. The type of RecBole's `name:type` is dropped.
    fn open(lines: &'a mut Lines, form: Form) -> io::Result<Table<'a>> {
        let recbole = form == Form::RecBole;
        let delimiter = if recbole { b'\t' } else { b',' };
        let parser = csv_core::ReaderBuilder::new()
            .delimiter(delimiter)
            .quoting(!recbole)
            .terminator(csv_core::Terminator::Any(b'\n'))
            .build();
        let mut table = Table { lines, parser, delimiter, header: Vec::new(), row: Row::default() };
        table.read_row()?;
        table.header = (0..table.row.fields)
            .map(|column| String::from_utf8_lossy(table.row.bytes(column)).trim().to_owned())
            .map(|field| if recbole { field.split(':').next().map(str::to_owned).unwrap_or(field) } else { field })
            .collect();
        Ok(table)
    }

    /// Index of a column.
    fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    /// The next row and the number of its first line; `None` at the end.
    fn next_row(&mut self) -> io::Result<Option<(u64, Result<&Row, LineFault>)>> {
        let Some((line, fault)) = self.read_row()? else { return Ok(None) };
        let (found, expected) = (self.row.fields, self.header.len());
        let row = match fault {
            Some(fault) => Err(fault),
            None if found != expected => Err(LineFault::Columns { found, expected }),
            None => Ok(&self.row),
        };
        Ok(Some((line, row)))
    }

    /// Parses one row. A line break within quotes continues the row on the next line.
    fn read_row(&mut self) -> io::Result<Option<(u64, Option<LineFault>)>> {
        self.parser.reset();
        let mut first = None;
        let (mut text_len, mut ends_len) = (0, 0);
        let row = &mut self.row;
        while let Some((number, line)) = self.lines.next_line()? {
            let line = match line {
                Ok(line) if first.is_none() && line.trim().is_empty() => continue,
                Ok(line) => line,
                Err(fault) => return Ok(Some((first.unwrap_or(number), Some(fault)))),
            };
            first.get_or_insert(number);
            if text_len + line.len() > Lines::LONGEST {
                return Ok(first.map(|line| (line, Some(LineFault::TooLong(Lines::LONGEST)))));
            }
            // The parser writes at most as many bytes as it reads, and one end a delimiter and row.
            let ends = line.bytes().filter(|byte| *byte == self.delimiter).count() + 2;
            row.text.resize(row.text.len().max(text_len + line.len() + 2), 0);
            row.ends.resize(row.ends.len().max(ends_len + ends), 0);
            let mut whole = false;
            // The parser takes empty input for the end of the file.
            for piece in [line.as_bytes(), b"\n"].into_iter().filter(|piece| !piece.is_empty()) {
                let (result, _, written, ended) =
                    self.parser.read_record(piece, &mut row.text[text_len..], &mut row.ends[ends_len..]);
                text_len += written;
                ends_len += ended;
                whole = matches!(result, csv_core::ReadRecordResult::Record);
            }
            if whole {
                row.fields = ends_len;
                return Ok(first.map(|line| (line, None)));
            }
        }
        // The file ends within quotes.
        Ok(first.map(|line| (line, Some(LineFault::OpenQuote))))
    }
}

impl Row {
    /// A field's text without surrounding blanks.
    fn text(&self, column: usize) -> Result<&str, LineFault> {
        std::str::from_utf8(self.bytes(column)).map(str::trim).map_err(|_| LineFault::NotUtf8)
    }

    fn id(&self, column: usize, name: &'static str) -> Result<Id<'_>, LineFault> {
        Id::new(name, self.text(column)?)
    }

    fn bytes(&self, column: usize) -> &[u8] {
        let start = if column == 0 { 0 } else { self.ends[column - 1] };
        &self.text[start..self.ends[column]]
    }
}

/// Reads the interactions of RecBole's `.inter` or of CSV. It finds columns by name and ignores others.
pub(crate) fn read_interactions(lines: &mut Lines, form: Form, collector: &mut Collector<'_>) -> Result<(), DataError> {
    let mut table = Table::open(lines, form).map_err(|error| collector.unreadable(error))?;
    let [user_name, item_name] = if form == Form::RecBole { ["user_id", "item_id"] } else { ["user", "item"] };
    let column = |column| {
        let (path, found) = (collector.path.to_owned(), table.header.join(", "));
        table.column(column).ok_or(DataError::NoColumn { path, form, column, found })
    };
    let (user, item, time) = (column(user_name)?, column(item_name)?, table.column(TIME));
    if time.is_none() {
        collector.untimed = Some(Untimed { missing: TIME, found: table.header.join(", ") });
    }
    while let Some((line, row)) = table.next_row().map_err(|error| collector.unreadable(error))? {
        let parsed = row.and_then(|row| {
            let time = time.map(|column| row.text(column)?.parse()).transpose()?;
            Ok(Interaction { user: row.id(user, user_name)?, item: row.id(item, item_name)?, time })
        });
        match parsed {
            Ok(interaction) => collector.add(interaction)?,
            Err(fault) => collector.bad_lines.report(collector.path, line, fault)?,
        }
    }
    Ok(())
}

/// Titles by external id.
pub(crate) type Titles = Vec<(Box<str>, Box<str>)>;

/// Reads the titles of RecBole's `.item` file from the first of the columns `movie_title`, `title` and `name`. Without such
/// a column there are no titles.
///
/// A `release_year` is appended in brackets if it is a number. MovieLens has other words there too.
pub(crate) fn read_titles(path: &Path, bad_lines: &mut BadLines) -> Result<Titles, DataError> {
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    let mut lines = Lines::open(path).map_err(unreadable)?;
    let mut table = Table::open(&mut lines, Form::RecBole).map_err(unreadable)?;
    let title = ["movie_title", "title", "name"].iter().find_map(|name| table.column(name));
    let (Some(item), Some(title)) = (table.column("item_id"), title) else { return Ok(Titles::new()) };
    let year = table.column("release_year");
    let mut titles = Titles::new();
    while let Some((line, row)) = table.next_row().map_err(unreadable)? {
        let parsed = row.and_then(|row| {
            let year = year.map_or(Ok(""), |column| row.text(column))?;
            Ok((row.id(item, "item_id")?, row.text(title)?, year))
        });
        match parsed {
            Ok((_, "", _)) => {}
            Ok((item, title, year)) => {
                let title = if year.parse::<u16>().is_ok() { format!("{title} ({year})") } else { title.to_owned() };
                titles.push((item.as_str().into(), title.into()));
            }
            Err(fault) => bad_lines.report(path, line, fault)?,
        }
    }
    Ok(titles)
}
