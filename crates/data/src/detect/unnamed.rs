//! Texts whose first line has no known names.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::super::roles::Roles;
use super::super::syntax::{Separator, Syntax};
use super::super::time::Time;
use super::super::times::looks_like_time;
use super::super::{Form, HeaderFault};
use super::{Detected, Sample, TableLayout, shortened};

/// A table whose header has no known names, or which has none. `None` if the text is no table.
pub(super) fn unknown_table(
    sample: &Sample,
    first: &str,
    named_table: bool,
) -> Option<Result<TableLayout, HeaderFault>> {
    let fields = |separator: Separator| Syntax::quoted(separator).fields(first);
    // Between tabs an open quote is text.
    let opens = Syntax::TABLES.iter().any(|separator| fields(*separator).is_none())
        && Syntax::TABLES.iter().all(|separator| fields(*separator).is_none_or(|fields| fields.len() == 1));
    if named_table && first.trim_start().starts_with('"') && opens {
        return Some(Err(HeaderFault::OpenQuote));
    }
    let columns = |separator: Separator| fields(separator).map_or(0, |fields| fields.len());
    let fits = |separator: &Separator| sample.has_columns(*separator, columns(*separator));
    // Lines of ids may have tabs between them.
    let tabs = Separator::Byte(b'\t');
    let mut separators = Syntax::TABLES.into_iter().chain([Separator::Colons]);
    let separator = match sample.has_blanks_between_tabs() {
        true => Some(tabs),
        false => separators.find(|separator| (named_table || *separator != tabs) && fits(separator)),
    };
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
            () if are_times(&values) => ColumnKind::Time,
            () if values.iter().all(rating) => ColumnKind::Rating,
            () => ColumnKind::Other,
        }
    }
}

/// Whether there are values and all look like times, apart from empty ones.
fn are_times(values: &[String]) -> bool {
    let mut values = values.iter().filter(|value| !value.is_empty()).peekable();
    values.peek().is_some() && values.all(|value| looks_like_time(value))
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
pub(super) fn ids(sample: &Sample, first: &str) -> Result<Detected, HeaderFault> {
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
