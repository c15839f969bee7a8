mod unnamed;

use std::collections::HashSet;
use std::path::Path;

use self::unnamed::{ids, unknown_table};
use super::lines::Lines;
use super::roles::{Roles, Sampled};
use super::syntax::{Separator, Syntax};
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
    /// The number of the first line.
    first: u64,
}

/// Lines from which columns are judged.
const ROWS: usize = 200;

/// JSON objects from which keys are known. An object may lack a key that later ones have, so these are more.
const OBJECTS: usize = 2000;

impl Sample {
    /// Invalid UTF-8 is replaced. The reader reports it with its line.
    pub(crate) fn of(lines: &Lines) -> Sample {
        Sample::new(lines.sample(), lines.line_end(), lines.number() + 1)
    }

    fn new(text: &[u8], line_end: u8, first: u64) -> Sample {
        Sample { text: String::from_utf8_lossy(text).into_owned(), line_end: line_end.into(), first }
    }

    /// The lines that are not blank, and their numbers.
    fn lines(&self) -> impl Iterator<Item = (u64, &str)> {
        (self.first..).zip(self.text.split(self.line_end)).filter(|(_, line)| !line.trim().is_empty())
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

    /// The values of a table's column.
    pub(crate) fn values(&self, layout: &TableLayout, column: usize) -> Sampled {
        let rows = self.fields(layout.syntax, layout.names.len()).skip(layout.has_header.into());
        Sampled::Texts(rows.map(|mut row| std::mem::take(&mut row[column])).collect())
    }

    /// The keys of JSON objects and their values.
    pub(crate) fn json_columns(&self) -> Vec<(String, Vec<String>)> {
        json_lines::sample_columns(self.lines().map(|(_, line)| line).take(OBJECTS))
    }

    /// Whether tabs alone separate the columns, because fields have blanks within them.
    ///
    /// `user<TAB>item item item` is a sequence, so of two columns the second may have blanks only if users repeat.
    fn has_blanks_between_tabs(&self) -> bool {
        let syntax = Syntax { separator: Separator::Byte(b'\t'), quoting: false };
        let rows: Vec<Vec<String>> = self.rows().filter_map(|row| syntax.fields(row)).collect();
        let columns = rows.first().map_or(0, Vec::len);
        if columns < 2 || rows.iter().any(|row| row.len() != columns) {
            return false;
        }
        let has_blanks = |field: &String| field.contains(char::is_whitespace);
        let users: HashSet<&String> = rows.iter().filter_map(|row| row.first()).collect();
        let of_two = |row: &Vec<String>| has_blanks(&row[0]) || (users.len() * 2 < rows.len() && has_blanks(&row[1]));
        rows.iter().any(|row| if columns > 2 { row.iter().any(has_blanks) } else { of_two(row) })
    }

    /// Whether nearly all rows split into this many fields.
    fn has_columns(&self, separator: Separator, columns: usize) -> bool {
        let all = self.rows().count();
        let fitting = self.fields(Syntax::quoted(separator), columns).count();
        columns > 1 && fitting * 10 >= all * 9
    }
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
        return with_names(sample, first, names, options).map(Layout::Table).map_err(header);
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
fn with_names(
    sample: &Sample,
    first: &str,
    names: &[String],
    options: &ReadOptions,
) -> Result<TableLayout, HeaderFault> {
    let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
    let blanks = (!sample.has_blanks_between_tabs()).then_some(Separator::Blanks);
    let mut separators = Syntax::TABLES.into_iter().chain([Separator::Colons]).chain(blanks);
    let Some(separator) = separators.find(|separator| sample.has_columns(*separator, names.len())) else {
        return Err(HeaderFault::Names { expected: names.len(), first: shortened(first) });
    };
    let syntax = Syntax::quoted(separator);
    // A header that is read as data would be an interaction.
    let fields = syntax.fields(first).unwrap_or_default();
    let untyped: Vec<String> = fields.iter().map(|field| untyped(field).to_owned()).collect();
    if Roles::are_common(&untyped, &names, options) {
        return Err(HeaderFault::Named(shortened(&fields.join(", "))));
    }
    Ok(TableLayout { form: Form::Csv, syntax, names, has_header: false })
}

/// A table whose header has RecBole's types, or names for a user and an item.
fn with_header(first: &str, options: &ReadOptions) -> Option<TableLayout> {
    for separator in [b'\t', b','] {
        let fields: Vec<&str> = first.split(char::from(separator)).collect();
        let names = table::recbole_names(first, separator);
        let typed = fields.iter().filter(|field| is_recbole_field(field)).count();
        // Some files have columns without a type or of a type that RecBole lacks.
        let is_recbole = typed == fields.len() || (typed > 0 && Roles::are_known(&names, options));
        if is_recbole && (separator == b',' || !first.contains(',')) {
            return Some(TableLayout {
                form: Form::RecBole,
                syntax: Syntax { separator: Separator::Byte(separator), quoting: false },
                names,
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

/// The name of a header's field, without RecBole's type.
fn untyped(field: &str) -> &str {
    if is_recbole_field(field) { field.split(':').next().unwrap_or(field).trim() } else { field }
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

/// At most 60 characters of a line.
fn shortened(line: &str) -> String {
    line.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(name: &str, text: &str) -> Layout {
        detect(Path::new(name), &Sample::new(text.as_bytes(), b'\n', 1), &ReadOptions::default()).unwrap()
    }

    fn fault(name: &str, text: &str) -> HeaderFault {
        match detect(Path::new(name), &Sample::new(text.as_bytes(), b'\n', 1), &ReadOptions::default()) {
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
        assert_eq!(table("a", "user_id:token\tage:int\titem_id:token\tx\n"), (Form::RecBole, byte(b'\t'), true));
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
        // Blanks within the fields show that tabs separate them.
        for name in ["a.txt", "a.tsv"] {
            let rows = "u0\ti7\t2023-11-14 23:37:40\nu1\ti7\t2023-11-14 23:37:41\n";
            assert_eq!(example(fault(name, rows)), "user,item,timestamp");
        }
        assert_eq!(example(fault("a", "ann lee\t7\nbob lee\t8\n")), "user,item");
        assert_eq!(fault("a", "UserID item\n"), HeaderFault::Blanks("UserID item".to_owned()));
        assert_eq!(fault("a.csv", "user\n"), HeaderFault::OneColumn("user".to_owned()));
        assert_eq!(fault("a.csv", "\"user,item\nu,a\n"), HeaderFault::OpenQuote);
    }

    #[test]
    fn columns_that_the_user_names_are_separated_by_what_fits() {
        let named = |names: &[&str], text: &str| {
            let columns = Some(names.iter().map(|name| (*name).to_owned()).collect());
            let options = ReadOptions { columns, ..ReadOptions::default() };
            match detect(Path::new("a"), &Sample::new(text.as_bytes(), b'\n', 1), &options) {
                Ok(Layout::Table(table)) => Ok((table.names.join("/"), table.syntax.separator)),
                Err(DataError::Header { fault, .. }) => Err(fault),
                other => panic!("{other:?}"),
            }
        };
        let tabs = "u0\ti7\t2023-11-14 23:37:40\nu1\ti7\t2023-11-14 23:37:41\n";
        let found = named(&["user", " item", "date "], tabs);
        assert_eq!(found, Ok(("user/item/date".to_owned(), Separator::Byte(b'\t'))));
        // Blanks would cut the time off.
        assert!(matches!(named(&["user", "item", "date", "time"], tabs), Err(HeaderFault::Names { .. })));
        assert!(named(&["user", "item", "n"], "u i 1\nu j\t2\n").is_ok());
        for header in ["customer_id,rating,sku", "user_id:token,rating:float,item_id:token"] {
            let found = named(&["user", "rating", "item"], &format!("{header}\nann,1,2\n"));
            assert_eq!(found, Err(HeaderFault::Named(header.replace(',', ", "))));
        }
        assert!(named(&["item", "user"], "user,item\nann,1\n").is_ok(), "a user may be called item");
    }

    #[test]
    fn the_more_frequent_proof_decides() {
        assert_eq!(lines("1 5\n2 5\n"), (Form::Pairs, None));
        assert_eq!(lines("1 5\n1 6 7\n"), (Form::Pairs, None));
        assert_eq!(lines("1 5 6\n\n2 5\n2 6\n2 7\n"), (Form::Pairs, Some(4)));
        assert_eq!(lines("1 5\n1 6\n2 5 6\n3 5 6\n"), (Form::Sequences, Some(3)));
        assert_eq!(lines("1 5 6\n2 5 7\n"), (Form::Sequences, Some(1)));
        assert_eq!(lines("1\t5 6\n2\t5 7\n"), (Form::Sequences, Some(1)));
    }
}
