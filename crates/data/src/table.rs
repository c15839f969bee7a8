//! Tables: CSV with any separator, RecBole's files and MovieLens' ratings.

use std::io;
use std::ops::Range;
use std::path::Path;

use canet_domain::Catalogue;
use memchr::{memchr, memmem};

use super::bad_line::BadLines;
use super::collector::Collector;
use super::interaction::Id;
use super::lines::{BYTE_ORDER_MARK, Lines, Numbered};
use super::records::{Record, Records};
use super::source::Opened;
use super::syntax::{Quoted, Quoting, Separator, Syntax};
use super::times::looks_like_time;
use super::{BadLinePolicy, DataError, Foreign, Form, HeaderFault, LineFault, LineUnit, TimeFormat};

/// Reads a table row by row.
pub(crate) struct Table<'a> {
    lines: &'a mut Lines,
    syntax: Syntax,
    columns: usize,
    /// The column of times, whose text tells a row from text within quotes.
    time: Option<usize>,
    time_format: Option<TimeFormat>,
    /// The line with the names. A row that repeats it, as in files that were joined, is skipped.
    header: Option<Vec<u8>>,
    escape: Escape,
    row: Row,
}

/// How the file writes a quote within a quoted field.
#[derive(Clone, Copy, PartialEq)]
enum Escape {
    /// No row so far tells.
    Unknown,
    /// Known from a row that fits in no other reading.
    Known(Quoting),
}

/// The fields of one row, without their quotes.
#[derive(Default)]
struct Row {
    fields: Vec<Range<usize>>,
    /// The row's lines if it has quotes, with a line break between two.
    text: Vec<u8>,
    unquoted: Vec<u8>,
}

impl Row {
    fn unquote(&mut self, syntax: Syntax, quoting: Quoting) -> Quoted {
        syntax.unquote(quoting, &self.text, &mut self.unquoted, &mut self.fields)
    }
}

/// The fields of one row.
pub(crate) struct Fields<'a> {
    text: &'a [u8],
    fields: &'a [Range<usize>],
}

impl Record for Fields<'_> {
    fn text(&self, column: usize) -> Result<&str, LineFault> {
        let field = &self.text[self.fields[column].clone()];
        std::str::from_utf8(field).map(str::trim).map_err(|_| LineFault::NotUtf8)
    }
}

/// Lines that one quoted field may cover. A field that covers more is taken for a stray quote.
const LINES_OF_FIELD: usize = 100;

impl<'a> Table<'a> {
    pub(crate) fn new(lines: &'a mut Lines, syntax: Syntax, columns: usize) -> Table<'a> {
        let (time, time_format, header, row) = (None, None, None, Row::default());
        Table { lines, syntax, columns, time, time_format, header, escape: Escape::Unknown, row }
    }

    /// A table whose header, which was read, may be repeated.
    pub(crate) fn with_header(self, header: Vec<u8>) -> Table<'a> {
        Table { header: Some(header), ..self }
    }

    /// The next row and the number of its first line; `None` at the end.
    ///
    /// If a quoted field is not closed properly, its first line alone is bad. The rows after it are read as rows.
    pub(crate) fn next_row(&mut self) -> io::Result<Option<Numbered<Fields<'_>>>> {
        loop {
            let Some((number, line)) = self.lines.next_range()? else { return Ok(None) };
            let line = match line {
                Ok(line) => line,
                Err(fault) => return Ok(Some((number, Err(fault)))),
            };
            let text = self.lines.text(line.clone());
            if text.trim_ascii().is_empty() || self.header.as_deref().is_some_and(|header| is_header(header, text)) {
                continue;
            }
            if !self.syntax.has_quotes(text) {
                self.syntax.split(text, &mut self.row.fields);
                let found = self.row.fields.len();
                if found != self.columns {
                    return Ok(Some((number, Err(LineFault::Columns { found, expected: self.columns }))));
                }
                return Ok(Some((number, Ok(Fields { text: self.lines.text(line), fields: &self.row.fields }))));
            }
            self.row.text.clear();
            self.row.text.extend_from_slice(text);
            let row = match self.join_lines()? {
                Ok(()) => Ok(Fields { text: &self.row.unquoted, fields: &self.row.fields }),
                Err(fault) => Err(fault),
            };
            return Ok(Some((number, row)));
        }
    }

    /// Completes a row whose first line is in `row.text` with the lines on which its quoted fields go on.
    fn join_lines(&mut self) -> io::Result<Result<(), LineFault>> {
        let first = self.row.text.len();
        if self.escape == Escape::Known(Quoting::Literal) && self.is_literal(first) {
            return Ok(Ok(()));
        }
        let mut lines = 1;
        let mut long = false;
        let fault = loop {
            match self.unquote() {
                Quoted::Stray => break LineFault::StrayQuote,
                Quoted::Whole if self.row.fields.len() != self.columns => {
                    break match lines {
                        1 => LineFault::Columns { found: self.row.fields.len(), expected: self.columns },
                        _ => LineFault::StrayQuote,
                    };
                }
                Quoted::Whole if lines > 1 && self.has_row_within(first) => break LineFault::StrayQuote,
                Quoted::Whole => return Ok(Ok(())),
                Quoted::Open => {}
            }
            // A line without quotes closes nothing.
            let closes = loop {
                if lines == LINES_OF_FIELD || self.row.text.len() > Lines::LONGEST {
                    break false;
                }
                let line = match self.lines.next_range()? {
                    Some((_, Ok(line))) => line,
                    Some((_, Err(_))) => {
                        // It is a bad line of its own.
                        long = true;
                        break false;
                    }
                    None => break false,
                };
                let line = self.lines.text(line);
                self.row.text.push(b'\n');
                self.row.text.extend_from_slice(line);
                lines += 1;
                if self.syntax.has_quotes(line) {
                    break true;
                }
            };
            if !closes {
                break LineFault::OpenQuote(lines);
            }
        };
        if lines > 1 || long {
            let end = self.lines.line_end();
            let text = &mut self.row.text;
            text.push(b'\n');
            if end != b'\n' {
                text[first + 1..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = end);
            }
            self.lines.unread(&text[first + 1..], lines as u64 - 1, long);
        }
        if !self.is_literal(first) {
            return Ok(Err(fault));
        }
        if lines > 1 && self.escape == Escape::Unknown {
            // The file does not quote, so that no later row is looked for behind such a field.
            self.escape = Escape::Known(Quoting::Literal);
        }
        Ok(Ok(()))
    }

    /// Splits the row's text as the file escapes quotes. A row that fits in one reading alone decides for the file.
    fn unquote(&mut self) -> Quoted {
        let Table { syntax, columns, escape, row, .. } = self;
        let quoting = match *escape {
            Escape::Known(Quoting::Literal) => Quoting::Doubled,
            Escape::Known(quoting) => quoting,
            Escape::Unknown if memmem::find(&row.text, br#"\""#).is_none() => Quoting::Doubled,
            Escape::Unknown => {
                let mut read = |quoting| {
                    let quoted = row.unquote(*syntax, quoting);
                    (quoted, quoted == Quoted::Whole && row.fields.len() == *columns)
                };
                match (read(Quoting::Backslash), read(Quoting::Doubled)) {
                    ((_, true), (_, true)) => return Quoted::Whole,
                    ((_, true), _) => {
                        *escape = Escape::Known(Quoting::Backslash);
                        Quoting::Backslash
                    }
                    (_, (_, true)) => {
                        *escape = Escape::Known(Quoting::Doubled);
                        return Quoted::Whole;
                    }
                    ((Quoted::Open, _), _) => return Quoted::Open,
                    (_, (doubled, _)) => return doubled,
                }
            }
        };
        row.unquote(*syntax, quoting)
    }

    /// Whether the row's first line is a row if its quotes are text. They are only between tabs, where few programs quote.
    fn is_literal(&mut self, first: usize) -> bool {
        let Row { fields, text, unquoted } = &mut self.row;
        self.syntax.separator == Separator::Byte(b'\t')
            && self.syntax.unquote(Quoting::Literal, &text[..first], unquoted, fields) == Quoted::Whole
            && fields.len() == self.columns
    }

    /// Whether lines after the first one are rows by themselves. A quoted field then swallows rows.
    ///
    /// A time proves a row. Without times two such lines are needed, because text may have as many separators as a row. So
    /// are they if the file's times are small numbers.
    fn has_row_within(&self, first: usize) -> bool {
        let Row { fields: own, text: row, unquoted } = &self.row;
        let text_of = |text: &[u8], field: &Range<usize>| {
            std::str::from_utf8(&text[field.clone()]).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        let own_time = self.time.map(|column| text_of(unquoted, &own[column]));
        let format = self.time_format.as_ref();
        let parses = |text: &str| TimeFormat::parse(format, text, "").is_ok();
        let like_own: &dyn Fn(&str) -> bool = match own_time.as_deref() {
            Some(_) if format.is_some() => &parses,
            Some(own) if looks_like_time(own) => &looks_like_time,
            Some(own) if parses(own) => &parses,
            Some(own) => &|text| shape(text).eq(shape(own)),
            None => &|_| true,
        };
        let proven = own_time.as_deref().is_some_and(|own| format.is_some() || looks_like_time(own) || !parses(own));
        let mut fields = Vec::new();
        let mut is_row = |text: &[u8]| {
            self.syntax.split(text, &mut fields);
            fields.len() == self.columns && self.time.is_none_or(|column| like_own(&text_of(text, &fields[column])))
        };
        let (start, rest) = (&row[..first], &row[first + 1..]);
        // The text behind a quote is no longer in the field.
        let cut = |line: &[u8]| memchr(b'"', line).unwrap_or(line.len());
        let rows = rest.split(|byte| *byte == b'\n').filter(|line| is_row(&line[..cut(line)])).count();
        if !proven {
            return rows >= 2;
        }
        // Both quotes are stray if the lines that have them are rows in spite of them.
        let last = rest.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        rows >= 1 || (is_row(last) && is_row(start))
    }
}

/// Whether a line repeats the header, perhaps with the mark of a file that began there.
fn is_header(header: &[u8], line: &[u8]) -> bool {
    line.len() >= header.len() && line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) == header
}

/// A text with one digit for all. Times of one form have one shape.
fn shape(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte })
}

/// Reads the rows of a table whose header was read.
pub(crate) fn read(
    mut table: Table<'_>,
    records: &mut Records,
    collector: &mut Collector,
    bad_lines: &mut BadLines,
    path: &Path,
) -> Result<(), DataError> {
    table.time = records.roles().time;
    table.time_format.clone_from(&records.roles().time_format);
    let has_header = table.header.is_some();
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    while let Some((line, row)) = table.next_row().map_err(unreadable)? {
        bad_lines.lines += 1;
        if let Ok(row) = &row
            && has_header
            && records.is_header(row)
        {
            let fault = HeaderFault::Second;
            return Err(DataError::Header { path: path.to_owned(), line, fault });
        }
        if let Err(fault) = row.and_then(|row| records.add(&row, collector)) {
            bad_lines.report(line, fault)?;
        }
        collector.check_size(path)?;
    }
    Ok(())
}

/// Skips the header, which the detection has read, and returns it.
pub(crate) fn skip_header(lines: &mut Lines, path: &Path) -> Result<Vec<u8>, DataError> {
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    loop {
        match lines.next_line().map_err(unreadable)? {
            Some((_, Ok(line))) if line.trim_ascii().is_empty() => {}
            Some((line, Err(LineFault::TooLong(limit)))) => {
                return Err(DataError::Header { path: path.to_owned(), line, fault: HeaderFault::TooLong(limit) });
            }
            Some((_, Ok(line))) => return Ok(line.to_owned()),
            _ => return Ok(Vec::new()),
        }
    }
}

/// Titles by external id.
pub(crate) type Titles = Vec<(Box<str>, Box<str>)>;

/// Reads the titles of RecBole's `.item` file from the first of the columns `movie_title`, `title` and `name`. Without such
/// a column there are no titles.
///
/// A `release_year` is appended in brackets if it is a number. MovieLens has other words there too.
pub(crate) fn read_titles(path: &Path, policy: BadLinePolicy) -> Result<(Titles, BadLines), DataError> {
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    let opened = Opened::open(path).map_err(unreadable)?;
    let mut lines = opened.unpack().and_then(Lines::new).map_err(unreadable)?;
    if let Some(foreign) = Foreign::of(path, lines.sample()) {
        return Err(DataError::Foreign { path: path.to_owned(), foreign });
    }
    let mut bad_lines = BadLines::new(policy, path, LineUnit::Line);
    let sample = String::from_utf8_lossy(lines.sample());
    let header = sample.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let separator = if header.contains('\t') { b'\t' } else { b',' };
    let names = recbole_names(header, separator);
    let syntax = Syntax { separator: Separator::Byte(separator), quoting: false };
    skip_header(&mut lines, path)?;
    let column = |name: &str| names.iter().position(|found| found == name);
    let title = ["movie_title", "title", "name"].into_iter().find_map(column);
    let (Some(item), Some(title)) = (column("item_id"), title) else { return Ok((Titles::new(), bad_lines)) };
    let year = column("release_year");
    let mut table = Table::new(&mut lines, syntax, names.len());
    let mut titles = Titles::new();
    while let Some((line, row)) = table.next_row().map_err(unreadable)? {
        bad_lines.lines += 1;
        let parsed = row.and_then(|row| {
            let year = year.map_or(Ok(""), |column| row.text(column))?;
            let (item, title) = (Id::new("item_id", row.text(item)?)?, row.text(title)?);
            if title.is_empty() {
                return Ok(());
            }
            let title = if year.parse::<u16>().is_ok() { format!("{title} ({year})") } else { title.to_owned() };
            if title.len() > Catalogue::MAX_TITLE_BYTES {
                return Err(LineFault::LongTitle(title.len()));
            }
            titles.push((item.as_str().into(), title.into()));
            Ok(())
        });
        if let Err(fault) = parsed {
            bad_lines.report(line, fault)?;
        }
    }
    bad_lines.judge(true)?;
    Ok((titles, bad_lines))
}

/// The names of a RecBole header, without the type of `name:type`.
pub(crate) fn recbole_names(header: &str, separator: u8) -> Vec<String> {
    header
        .split(char::from(separator))
        .map(|field| field.split(':').next().unwrap_or(field).trim().to_owned())
        .collect()
}

/// The names of MovieLens' columns.
pub(crate) fn ratings_names() -> Vec<String> {
    ["user", "item", "rating", "timestamp"].map(str::to_owned).to_vec()
}

/// What a table is, for the summary.
pub(crate) fn describe(form: Form, syntax: Syntax, has_header: bool) -> String {
    let header = if has_header { "" } else { ", without a header" };
    format!("{form}, separated by {}{header}", syntax.separator)
}
