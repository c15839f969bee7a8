use std::io;

use super::gather::Gather;
use super::lines::Lines;
use super::moment::Moment;
use super::{DataError, Form, LineFault, Untimed};

/// The column of moments.
const TIME: &str = "timestamp";

/// A table with a header, read row by row.
///
/// Lines are counted here and not by the parser, which does not count blank ones or the ends of CRLF lines.
pub(crate) struct Table<'a> {
    lines: &'a mut Lines,
    parser: csv_core::Reader,
    delimiter: u8,
    header: Vec<String>,
    row: Row,
}

/// The fields of one row, without quotes and surrounding blanks.
#[derive(Default)]
pub(crate) struct Row {
    text: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
}

impl<'a> Table<'a> {
    /// Reads the header. RecBole's `name:type` fields go by their names.
    pub(crate) fn open(lines: &'a mut Lines, form: Form) -> io::Result<Table<'a>> {
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

    /// Place of a column.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    /// The next row with the number of its first line; `None` at the end.
    pub(crate) fn next_row(&mut self) -> io::Result<Option<(u64, Result<&Row, LineFault>)>> {
        let Some((line, fault)) = self.read_row()? else { return Ok(None) };
        let (found, expected) = (self.row.fields, self.header.len());
        let row = match fault {
            Some(fault) => Err(fault),
            None if found != expected => Err(LineFault::Columns { found, expected }),
            None => Ok(&self.row),
        };
        Ok(Some((line, row)))
    }

    /// Parses one row, which a line break within quotes continues on the next line.
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
            // The parser writes at most the bytes that it reads, and an end for each delimiter and the row.
            let ends = line.bytes().filter(|byte| *byte == self.delimiter).count() + 2;
            row.text.resize(row.text.len().max(text_len + line.len() + 2), 0);
            row.ends.resize(row.ends.len().max(ends_len + ends), 0);
            let mut whole = false;
            // No input at all would mean the end of the file.
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
        // The end of the file within quotes.
        Ok(first.map(|line| (line, Some(LineFault::OpenQuote))))
    }
}

impl Row {
    /// A field's text.
    pub(crate) fn text(&self, column: usize) -> Result<&str, LineFault> {
        std::str::from_utf8(self.bytes(column)).map(str::trim).map_err(|_| LineFault::NotUtf8)
    }

    /// An id: neither empty nor unfit for line-based files.
    pub(crate) fn id(&self, column: usize, name: &'static str) -> Result<&str, LineFault> {
        match self.text(column)? {
            "" => Err(LineFault::EmptyId(name)),
            id if id.contains(['\t', '\n', '\r']) => Err(LineFault::UnusableId(name)),
            id => Ok(id),
        }
    }

    fn bytes(&self, column: usize) -> &[u8] {
        let start = if column == 0 { 0 } else { self.ends[column - 1] };
        &self.text[start..self.ends[column]]
    }
}

/// Reads RecBole's and CSV's interactions; columns are found by name and others are ignored.
pub(crate) fn read(lines: &mut Lines, form: Form, gather: &mut Gather<'_>) -> Result<(), DataError> {
    let mut table = Table::open(lines, form).map_err(|error| gather.unreadable(error))?;
    let [user_name, item_name] = if form == Form::RecBole { ["user_id", "item_id"] } else { ["user", "item"] };
    let column = |column| {
        let (path, found) = (gather.path.to_owned(), table.header.join(", "));
        table.column(column).ok_or(DataError::NoColumn { path, form, column, found })
    };
    let (user, item, time) = (column(user_name)?, column(item_name)?, table.column(TIME));
    if time.is_none() {
        gather.untimed = Some(Untimed { column: TIME, found: table.header.join(", ") });
    }
    while let Some((line, row)) = table.next_row().map_err(|error| gather.unreadable(error))? {
        let taken = row.and_then(|row| {
            let time = time.map_or(Ok(Moment::default()), |column| timestamp(row.text(column)?))?;
            Ok((row.id(user, user_name)?, row.id(item, item_name)?, time))
        });
        match taken {
            Ok((user, item, time)) => gather.interaction(user, item, time)?,
            Err(fault) => gather.faults.report(gather.path, line, fault)?,
        }
    }
    Ok(())
}

fn timestamp(text: &str) -> Result<Moment, LineFault> {
    text.parse().map_err(|()| LineFault::Timestamp(text.chars().take(40).collect()))
}
