use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use super::{DataError, locate};

/// The forms of interaction file. Each may be gzip (told by its first bytes), have CRLF line ends and a byte
/// order mark; blank lines are ignored.
///
/// The form is told by the name (`.inter` or `.csv`, below `.gz`), else by the first line that is not blank: a
/// tab-separated header of `name:type` fields is RecBole's, a comma-separated one that names `user` and `item` is
/// CSV, and everything else is lines of columns separated by spaces or tabs.
///
/// Those lines are of two kinds, and a line of two columns may be either. A file whose lines are all of two
/// columns is [`Form::Pairs`]; one with a longer line is [`Form::Sequences`], in which each user has one line. In
/// the first 64 KiB, longer lines are counted against lines that repeat a user; the greater number decides. Where
/// they are equal (so far every user has one line of one item) the first line that shows the one or the other
/// decides. From then on a line of the other kind is a bad line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RecBole's `.inter`: a header `user_id:token`, `item_id:token` and optionally `timestamp:float` in any
    /// order, among other columns; tabs between; no quoting.
    RecBole,
    /// CSV with a header that has `user`, `item` and optionally `timestamp` in any order, among other columns;
    /// fields may be quoted.
    Csv,
    /// `user item` lines in the order of time, as SASRec's authors publish.
    Pairs,
    /// One `user item item ...` line a user in the order of time, as S3-Rec's authors publish.
    Sequences,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::RecBole => "RecBole's .inter",
            Form::Csv => "CSV",
            Form::Pairs => "`user item` lines",
            Form::Sequences => "`user item item ...` lines",
        })
    }
}

/// What a file's name and start tell.
pub(crate) enum Told {
    /// A table with a header.
    Table(Form),
    /// Lines without a header, of a kind that may not have shown yet.
    Lines(Option<Shown>),
}

/// A kind of lines, and the first line that showed it.
#[derive(Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) form: Form,
    pub(crate) line: u64,
}

/// The form of a file from its name and its first lines.
pub(crate) fn tell(path: &Path, sample: &[u8]) -> Result<Told, DataError> {
    // Bytes that are no text become a replacement character here; the reader reports them with their line.
    let sample = String::from_utf8_lossy(sample);
    let Some(first) = sample.lines().find(|line| !line.trim().is_empty()) else {
        return Err(DataError::Empty(path.to_owned()));
    };
    match locate::extension(path).as_deref() {
        Some("inter") => return Ok(Told::Table(Form::RecBole)),
        Some("csv") => return Ok(Told::Table(Form::Csv)),
        _ => {}
    }
    if first.split('\t').all(is_typed) {
        return Ok(Told::Table(Form::RecBole));
    }
    let fields: Vec<&str> = first.split(',').map(|field| field.trim_matches([' ', '"'])).collect();
    if fields.contains(&"user") && fields.contains(&"item") {
        return Ok(Told::Table(Form::Csv));
    }
    let name = first.split([' ', '\t', ',']).next().unwrap_or_default().to_ascii_lowercase();
    if ["user", "user_id", "userid"].contains(&&*name) {
        return Err(DataError::UnknownHeader(path.to_owned()));
    }
    Ok(Told::Lines(vote(&sample)))
}

/// Whether a field of a header is RecBole's `name:type`.
fn is_typed(field: &str) -> bool {
    field
        .trim()
        .rsplit_once(':')
        .is_some_and(|(name, kind)| !name.is_empty() && ["token", "token_seq", "float", "float_seq"].contains(&kind))
}

/// Weighs lines that have several items against lines that repeat a user.
fn vote(sample: &str) -> Option<Shown> {
    let (mut several, mut repeats, mut users) = (Vec::new(), Vec::new(), HashSet::new());
    for (line, text) in (1..).zip(sample.lines()) {
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
        Ordering::Equal => return None,
    };
    lines.first().map(|line| Shown { form, line: *line })
}
