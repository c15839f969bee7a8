use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;

use super::{DataError, Form, locate};

/// The format that a file's name and first lines show.
#[derive(Debug, PartialEq)]
pub(crate) enum Detected {
    /// A table with a header.
    Table(Form),
    /// Lines without a header. `None` if the first lines fit both [`Form::Pairs`] and [`Form::Sequences`].
    Headerless(Option<Proof>),
}

/// A format of headerless lines, and the first line that proves it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Proof {
    pub(crate) form: Form,
    pub(crate) line: u64,
}

/// Detects the format of a file from its name and the start of its text.
pub(crate) fn detect(path: &Path, sample: &[u8]) -> Result<Detected, DataError> {
    // The reader reports invalid UTF-8 with its line; here replacement characters do no harm.
    let sample = String::from_utf8_lossy(sample);
    let Some(first) = sample.lines().find(|line| !line.trim().is_empty()) else {
        return Err(DataError::Empty(path.to_owned()));
    };
    match locate::extension(path).as_deref() {
        Some("inter") => return Ok(Detected::Table(Form::RecBole)),
        Some("csv") => return Ok(Detected::Table(Form::Csv)),
        _ => {}
    }
    if first.split('\t').all(is_recbole_field) {
        return Ok(Detected::Table(Form::RecBole));
    }
    let fields: Vec<&str> = first.split(',').map(|field| field.trim_matches([' ', '"'])).collect();
    if fields.contains(&"user") && fields.contains(&"item") {
        return Ok(Detected::Table(Form::Csv));
    }
    let name = first.split([' ', '\t', ',']).next().unwrap_or_default().to_ascii_lowercase();
    if ["user", "user_id", "userid"].contains(&&*name) {
        return Err(DataError::UnknownHeader(path.to_owned()));
    }
    Ok(Detected::Headerless(vote(&sample)))
}

/// Whether a header's field is RecBole's `name:type`.
fn is_recbole_field(field: &str) -> bool {
    field
        .trim()
        .rsplit_once(':')
        .is_some_and(|(name, kind)| !name.is_empty() && ["token", "token_seq", "float", "float_seq"].contains(&kind))
}

/// Compares the number of lines with several items with the number of lines that repeat a user.
fn vote(sample: &str) -> Option<Proof> {
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
    lines.first().map(|line| Proof { form, line: *line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(name: &str, sample: &str) -> Detected {
        detect(Path::new(name), sample.as_bytes()).unwrap()
    }

    #[test]
    fn the_extension_decides_before_the_header() {
        assert_eq!(detected("a.inter.gz", "user,item\n"), Detected::Table(Form::RecBole));
        assert_eq!(detected("a.CSV", "1 2\n"), Detected::Table(Form::Csv));
    }

    #[test]
    fn the_header_decides_without_an_extension() {
        assert_eq!(detected("a", "\nuser_id:token\tage:float\n"), Detected::Table(Form::RecBole));
        assert_eq!(detected("a", "note, \"user\",item\n"), Detected::Table(Form::Csv));
        assert!(matches!(detect(Path::new("a"), b"UserID item\n"), Err(DataError::UnknownHeader(_))));
    }

    #[test]
    fn the_more_frequent_proof_decides() {
        let proof = |form, line| Detected::Headerless(Some(Proof { form, line }));
        assert_eq!(detected("a", "1 5\n2 5\n"), Detected::Headerless(None));
        assert_eq!(detected("a", "1 5\n1 6 7\n"), Detected::Headerless(None));
        assert_eq!(detected("a", "1 5 6\n\n2 5\n2 6\n2 7\n"), proof(Form::Pairs, 4));
        assert_eq!(detected("a", "1 5\n1 6\n2 5 6\n3 5 6\n"), proof(Form::Sequences, 3));
    }
}
