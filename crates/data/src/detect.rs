use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;

use super::roles::Roles;
use super::syntax::{Separator, Syntax};
use super::time::Time;
use super::times::looks_like_time;
use super::{DataError, Form, HeaderFault, ReadOptions, json_lines, locate, table};

/// The format of a text, as its name and first lines show it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Layout {
    /// A table.
    Table(TableLayout),
    /// One JSON object a line.
    JsonLines,
    /// Lines of ids.
    Ids(Detected),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableLayout {
    pub(crate) form: Form,
    pub(crate) syntax: Syntax,
    pub(crate) names: Vec<String>,
    /// Whether the first line is the header.
    pub(crate) has_header: bool,
}

/// The kind of lines of ids.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Detected {
    pub(crate) form: Form,
    /// The first line that proves [`Form::Pairs`] or [`Form::Sequences`]. `None` if the first lines fit both: `form` is then
    /// [`Form::Pairs`] until a line proves one.
    pub(crate) proof: Option<u64>,
}

/// The whole lines at the start of a text.
pub(crate) struct Sample {
    text: String,
    line_end: char,
}

/// Lines from which columns are judged.
const ROWS: usize = 200;

impl Sample {
    /// Invalid UTF-8 is replaced. The reader reports it with its line.
    pub(crate) fn new(text: &[u8], line_end: u8) -> Sample {
        Sample { text: String::from_utf8_lossy(text).into_owned(), line_end: line_end.into() }
    }

    /// The lines that are not blank, and their numbers.
    fn lines(&self) -> impl Iterator<Item = (u64, &str)> {
        (1..).zip(self.text.split(self.line_end)).filter(|(_, line)| !line.trim().is_empty())
    }

    /// The first line that is not blank, and its number.
    pub(crate) fn first_line(&self) -> Option<(u64, &str)> {
        self.lines().next()
    }

    /// The text of the first [`ROWS`] lines that are not blank.
    fn rows(&self) -> impl Iterator<Item = &str> {
        self.lines().map(|(_, line)| line.trim_end_matches('\r')).take(ROWS)
    }

    /// The fields of the first rows that split into this many.
    fn fields(&self, syntax: Syntax, columns: usize) -> impl Iterator<Item = Vec<String>> {
        self.rows().filter_map(move |row| syntax.fields(row)).filter(move |fields| fields.len() == columns)
    }

    /// A value of a table's column if all its values look like times.
    pub(crate) fn time_value(&self, layout: &TableLayout, column: usize) -> Option<String> {
        let rows = self.fields(layout.syntax, layout.names.len()).skip(layout.has_header.into());
        time_among(rows.map(|mut row| std::mem::take(&mut row[column])))
    }

    /// The keys of JSON objects and their values.
    pub(crate) fn json_columns(&self) -> Vec<(String, Vec<String>)> {
        json_lines::sample_columns(self.rows())
    }

    /// Whether nearly all rows split into this many fields.
    fn has_columns(&self, separator: Separator, columns: usize) -> bool {
        let all = self.rows().count();
        let fitting = self.fields(Syntax::quoted(separator), columns).count();
        columns > 1 && fitting * 10 >= all * 9
    }
}

/// The first of several values if all that are not empty look like times.
pub(crate) fn time_among(values: impl Iterator<Item = String>) -> Option<String> {
    let mut first = None;
    for value in values.filter(|value| !value.is_empty()) {
        if !looks_like_time(&value) {
            return None;
        }
        first.get_or_insert(value);
    }
    first
}

/// Detects the format of a text.
///
/// # Errors
/// [`DataError`] if the text is empty or of no known format.
pub(crate) fn detect(path: &Path, sample: &Sample, options: &ReadOptions) -> Result<Layout, DataError> {
    let Some((line, first)) = sample.first_line() else { return Err(DataError::Empty(path.to_owned())) };
    let header = |fault| DataError::Header { path: path.to_owned(), line, fault };
    let first = first.trim_end_matches('\r');
    if let Some(json) = json(first.trim()) {
        return json.map_err(header);
    }
    if let Some(names) = &options.columns {
        return with_names(sample, first, names).map(Layout::Table).map_err(header);
    }
    if let Some(table) = with_header(first, options) {
        return Ok(Layout::Table(table));
    }
    if let Some(ratings) = ratings(sample) {
        return Ok(Layout::Table(ratings));
    }
    let extension = locate::extension(path);
    match unknown_table(sample, first, Form::is_table_extension(extension.as_deref())) {
        Some(Ok(table)) => Ok(Layout::Table(table)),
        Some(Err(fault)) => Err(header(fault)),
        None => ids(sample, first).map(Layout::Ids).map_err(header),
    }
}

/// JSON by its first character. A document that covers several lines is an error.
pub(crate) fn json(first: &str) -> Option<Result<Layout, HeaderFault>> {
    match first.chars().next()? {
        // A column may be named `[user]`.
        '[' if first[1..].trim_start().is_empty() || first[1..].trim_start().starts_with(['{', '[', '"']) => {
            Some(Err(HeaderFault::JsonDocument(".[]")))
        }
        '{' => Some(match serde_json::from_str::<serde::de::IgnoredAny>(first) {
            Ok(_) => Ok(Layout::JsonLines),
            Err(error) if error.is_eof() => Err(HeaderFault::JsonDocument(".")),
            Err(error) => Err(HeaderFault::NotJson(json_lines::fault(&error))),
        }),
        _ => None,
    }
}

/// A table whose columns the user names.
fn with_names(sample: &Sample, first: &str, names: &[String]) -> Result<TableLayout, HeaderFault> {
    let others = [Separator::Colons, Separator::Blanks];
    let separator =
        Syntax::TABLES.into_iter().chain(others).find(|separator| sample.has_columns(*separator, names.len()));
    match separator {
        Some(separator) => Ok(TableLayout {
            form: Form::Csv,
            syntax: Syntax::quoted(separator),
            names: names.to_vec(),
            has_header: false,
        }),
        None => Err(HeaderFault::Names { expected: names.len(), first: shortened(first) }),
    }
}

/// A table whose header has RecBole's types, or names for a user and an item.
fn with_header(first: &str, options: &ReadOptions) -> Option<TableLayout> {
    for separator in [b'\t', b','] {
        let mut fields = first.split(char::from(separator));
        if fields.all(is_recbole_field) && (separator == b',' || !first.contains(',')) {
            return Some(TableLayout {
                form: Form::RecBole,
                syntax: Syntax { separator: Separator::Byte(separator), quoting: false },
                names: table::recbole_names(first, separator),
                has_header: true,
            });
        }
    }
    Syntax::TABLES.into_iter().chain([Separator::Colons]).find_map(|separator| {
        let syntax = Syntax::quoted(separator);
        let names = syntax.fields(first)?;
        let known = names.len() > 1 && Roles::are_known(&names, options);
        known.then_some(TableLayout { form: Form::Csv, syntax, names, has_header: true })
    })
}

/// Whether a header's field is RecBole's `name:type`.
pub(crate) fn is_recbole_field(field: &str) -> bool {
    field
        .trim()
        .rsplit_once(':')
        .is_some_and(|(name, kind)| !name.is_empty() && ["token", "token_seq", "float", "float_seq"].contains(&kind))
}

/// MovieLens' ratings: four columns, of which the third is a small number and the fourth a time.
fn ratings(sample: &Sample) -> Option<TableLayout> {
    [Separator::Colons, Separator::Byte(b'\t')].into_iter().find_map(|separator| {
        let syntax = Syntax { separator, quoting: false };
        let small = |text: &str| text.parse::<f64>().is_ok_and(|rating| (0.0..=10.0).contains(&rating));
        let mut rows = sample.rows().map(|row| syntax.fields(row).unwrap_or_default());
        let fits = rows.all(|row| row.len() == 4 && small(&row[2]) && looks_like_time(&row[3]));
        let names = table::ratings_names();
        fits.then_some(TableLayout { form: Form::Ratings, syntax, names, has_header: false })
    })
}

/// A table whose header has no known names, or which has none. `None` if the text is no table.
fn unknown_table(sample: &Sample, first: &str, named_table: bool) -> Option<Result<TableLayout, HeaderFault>> {
    let opens = |separator: &Separator| {
        first.trim_start().starts_with('"') && Syntax::quoted(*separator).fields(first).is_none()
    };
    if named_table && Syntax::TABLES.iter().all(opens) {
        return Some(Err(HeaderFault::OpenQuote));
    }
    let columns = |separator: Separator| Syntax::quoted(separator).fields(first).map_or(0, |fields| fields.len());
    let fits = |separator: &Separator| sample.has_columns(*separator, columns(*separator));
    // Lines of ids may have tabs between them.
    let tabs = Separator::Byte(b'\t');
    let mut separators = Syntax::TABLES.into_iter().chain([Separator::Colons]);
    let separator = separators.find(|separator| (named_table || *separator != tabs) && fits(separator));
    let separator = match separator {
        Some(separator) => separator,
        // The header has the separator, and the rows do not have as many.
        None if named_table => match Syntax::TABLES.into_iter().max_by_key(|separator| columns(*separator)) {
            Some(separator) if columns(separator) > 1 => separator,
            _ if first.split_whitespace().nth(1).is_some() => {
                return Some(Err(HeaderFault::Blanks(shortened(first))));
            }
            _ => return Some(Err(HeaderFault::OneColumn(shortened(first)))),
        },
        None => return None,
    };
    let syntax = Syntax::quoted(separator);
    let fields = syntax.fields(first)?;
    if fields.iter().any(|field| Time::parse(field, "").is_ok()) {
        let kinds: Vec<ColumnKind> =
            (0..fields.len()).map(|column| ColumnKind::of(sample.fields(syntax, fields.len()), column)).collect();
        return Some(Err(missing_header(&fields, &kinds)));
    }
    Some(Ok(TableLayout { form: Form::Csv, syntax, names: fields, has_header: true }))
}

/// What a column without a name holds.
#[derive(Clone, Copy, PartialEq)]
enum ColumnKind {
    Time,
    Rating,
    Other,
}

impl ColumnKind {
    fn of(rows: impl Iterator<Item = Vec<String>>, column: usize) -> ColumnKind {
        let values: Vec<String> = rows.map(|mut row| std::mem::take(&mut row[column])).collect();
        let rating = |value: &String| value.parse::<f64>().is_ok_and(|rating| (0.0..=10.0).contains(&rating));
        match () {
            () if time_among(values.iter().cloned()).is_some() => ColumnKind::Time,
            () if values.iter().all(rating) => ColumnKind::Rating,
            () => ColumnKind::Other,
        }
    }
}

fn missing_header(fields: &[String], kinds: &[ColumnKind]) -> HeaderFault {
    let mut ids = ["user", "item"].into_iter();
    let names = kinds.iter().enumerate().map(|(place, kind)| match kind {
        ColumnKind::Time => "timestamp".to_owned(),
        // The first two may be ids that are small numbers.
        ColumnKind::Rating if place > 1 => "rating".to_owned(),
        _ => ids.next().map_or_else(|| format!("column{}", place + 1), str::to_owned),
    });
    let example = names.collect::<Vec<_>>().join(",");
    HeaderFault::Missing { first: shortened(&fields.join(", ")), example }
}

/// Lines of ids, unless they are a table without a header.
fn ids(sample: &Sample, first: &str) -> Result<Detected, HeaderFault> {
    let words: Vec<String> = first.split_whitespace().map(str::to_owned).collect();
    if words.len() > 1 && words.first().is_some_and(|word| Roles::is_user_name(word)) {
        return Err(HeaderFault::Blanks(shortened(first)));
    }
    let syntax = Syntax { separator: Separator::Blanks, quoting: false };
    let all = sample.rows().count();
    if (3..=6).contains(&words.len()) && all > 1 && sample.fields(syntax, words.len()).count() == all {
        let kinds: Vec<ColumnKind> =
            (0..words.len()).map(|column| ColumnKind::of(sample.fields(syntax, words.len()), column)).collect();
        let users: HashSet<&str> = sample.rows().filter_map(|row| row.split_whitespace().next()).collect();
        let timed = kinds[1] != ColumnKind::Time && kinds[2..].contains(&ColumnKind::Time);
        // Lines of one length are sequences if each has its own user.
        if timed || users.len() * 2 < all {
            return Err(missing_header(&words, &kinds));
        }
    }
    Ok(vote(sample))
}

/// Compares the number of lines with several items with the number of lines that repeat a user.
fn vote(sample: &Sample) -> Detected {
    let (mut several, mut repeats, mut users) = (Vec::new(), Vec::new(), HashSet::new());
    for (line, text) in sample.lines() {
        let mut columns = text.split_whitespace();
        let Some(user) = columns.next() else { continue };
        if columns.nth(1).is_some() {
            several.push(line);
        }
        if !users.insert(user) {
            repeats.push(line);
        }
    }
    let (form, lines) = match several.len().cmp(&repeats.len()) {
        Ordering::Greater => (Form::Sequences, several),
        Ordering::Less => (Form::Pairs, repeats),
        Ordering::Equal => (Form::Pairs, Vec::new()),
    };
    Detected { form, proof: lines.first().copied() }
}

/// At most 60 characters of a line.
fn shortened(line: &str) -> String {
    line.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(name: &str, text: &str) -> Layout {
        detect(Path::new(name), &Sample::new(text.as_bytes(), b'\n'), &ReadOptions::default()).unwrap()
    }

    fn fault(name: &str, text: &str) -> HeaderFault {
        match detect(Path::new(name), &Sample::new(text.as_bytes(), b'\n'), &ReadOptions::default()) {
            Err(DataError::Header { fault, .. }) => fault,
            other => panic!("{other:?}"),
        }
    }

    fn table(name: &str, text: &str) -> (Form, Separator, bool) {
        match layout(name, text) {
            Layout::Table(table) => (table.form, table.syntax.separator, table.has_header),
            other => panic!("{other:?}"),
        }
    }

    fn lines(text: &str) -> (Form, Option<u64>) {
        match layout("a", text) {
            Layout::Ids(detected) => (detected.form, detected.proof),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn headers_show_their_separator_whatever_the_extension() {
        let byte = Separator::Byte;
        assert_eq!(table("a", "\nuser_id:token\tage:float\n"), (Form::RecBole, byte(b'\t'), true));
        assert_eq!(table("a.inter", "user_id:token,item_id:token\n"), (Form::RecBole, byte(b','), true));
        assert_eq!(table("a.txt", "note, \"user\",item\n"), (Form::Csv, byte(b','), true));
        assert_eq!(table("a.csv", "userId;movieId\n"), (Form::Csv, byte(b';'), true));
        assert_eq!(table("a.csv", "user|item|a,b\n"), (Form::Csv, byte(b'|'), true));
        assert_eq!(table("a", "UserID::MovieID::Rating\n1::2::5\n"), (Form::Csv, Separator::Colons, true));
        assert_eq!(table("a.csv", "[user],[item]\n"), (Form::Csv, byte(b','), true));
        assert_eq!(table("a", "1::2::5::978300760\n"), (Form::Ratings, Separator::Colons, false));
        assert_eq!(table("a", "1\t2\t3.5\t978300760\n1\t9\t1\t978300769\n"), (Form::Ratings, byte(b'\t'), false));
        assert_eq!(layout("a.csv", "{\"user\":1}\n"), Layout::JsonLines);
    }

    #[test]
    fn a_table_without_a_header_needs_names() {
        let example = |fault| match fault {
            HeaderFault::Missing { example, .. } => example,
            other => panic!("{other:?}"),
        };
        assert_eq!(example(fault("a.csv", "u1,10,1700005060\nu2,11,1700005061\n")), "user,item,timestamp");
        assert_eq!(example(fault("a", "u1|x|4.5|1700005060\n")), "user,item,rating,timestamp");
        assert_eq!(example(fault("a", "1 10 1700005060\n1 11 1700005061\n")), "user,item,timestamp");
        assert_eq!(example(fault("a", "1 10 5\n1 11 4\n1 12 3\n2 99 1\n2 98 5\n")), "user,item,rating");
        assert_eq!(fault("a", "UserID item\n"), HeaderFault::Blanks("UserID item".to_owned()));
        assert_eq!(fault("a.csv", "user\n"), HeaderFault::OneColumn("user".to_owned()));
        assert_eq!(fault("a.csv", "\"user,item\nu,a\n"), HeaderFault::OpenQuote);
    }

    #[test]
    fn the_more_frequent_proof_decides() {
        assert_eq!(lines("1 5\n2 5\n"), (Form::Pairs, None));
        assert_eq!(lines("1 5\n1 6 7\n"), (Form::Pairs, None));
        assert_eq!(lines("1 5 6\n\n2 5\n2 6\n2 7\n"), (Form::Pairs, Some(4)));
        assert_eq!(lines("1 5\n1 6\n2 5 6\n3 5 6\n"), (Form::Sequences, Some(3)));
        assert_eq!(lines("1 5 6\n2 5 7\n"), (Form::Sequences, Some(1)));
    }
}
