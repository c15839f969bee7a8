use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;

use super::{DataError, Form, locate};

/// The format that a file's name and first lines show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Detected {
    pub(crate) form: Form,
    /// In a file without a header, the first line that proves [`Form::Pairs`] or [`Form::Sequences`]. `None` if the first
    /// lines fit both: `form` is then [`Form::Pairs`] until a line proves one. Other formats need no proof.
    pub(crate) proof: Option<u64>,
}

/// Detects the format of a file from its name and the start of its text.
pub(crate) fn detect(path: &Path, sample: &[u8]) -> Result<Detected, DataError> {
    // The reader reports invalid UTF-8 with its line; here replacement characters do no harm.
    let sample = String::from_utf8_lossy(sample);
    let Some(first) = sample.lines().find(|line| !line.trim().is_empty()) else {
        return Err(DataError::Empty(path.to_owned()));
    };
    let by_name = locate::extension(path).and_then(|extension| Form::of_extension(&extension));
    if let Some(form) = by_name.or_else(|| of_first_line(first)) {
        return Ok(Detected { form, proof: None });
    }
    let name = first.split([' ', '\t', ',']).next().unwrap_or_default().to_ascii_lowercase();
    if ["user", "user_id", "userid"].contains(&&*name) {
        return Err(DataError::UnknownHeader(path.to_owned()));
    }
    Ok(vote(&sample))
}

/// The format that the first line proves.
fn of_first_line(first: &str) -> Option<Form> {
    if first.split('\t').all(is_recbole_field) {
        return Some(Form::RecBole);
    }
    let fields: Vec<&str> = first.split(',').map(|field| field.trim_matches([' ', '"'])).collect();
    (fields.contains(&"user") && fields.contains(&"item")).then_some(Form::Csv)
}

/// Whether a header's field is RecBole's `name:type`.
fn is_recbole_field(field: &str) -> bool {
    field
        .trim()
        .rsplit_once(':')
        .is_some_and(|(name, kind)| !name.is_empty() && ["token", "token_seq", "float", "float_seq"].contains(&kind))
}

/// Compares the number of lines with several items with the number of lines that repeat a user.
fn vote(sample: &str) -> Detected {
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
        Ordering::Equal => (Form::Pairs, Vec::new()),
    };
    Detected { form, proof: lines.first().copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(name: &str, sample: &str) -> (Form, Option<u64>) {
        let Detected { form, proof } = detect(Path::new(name), sample.as_bytes()).unwrap();
        (form, proof)
    }

    #[test]
    fn the_extension_decides_before_the_header() {
        assert_eq!(detected("a.inter.gz", "user,item\n"), (Form::RecBole, None));
        assert_eq!(detected("a.CSV", "1 2\n"), (Form::Csv, None));
    }

    #[test]
    fn the_header_decides_without_an_extension() {
        assert_eq!(detected("a", "\nuser_id:token\tage:float\n"), (Form::RecBole, None));
        assert_eq!(detected("a.txt", "note, \"user\",item\n"), (Form::Csv, None));
        assert!(matches!(detect(Path::new("a"), b"UserID item\n"), Err(DataError::UnknownHeader(_))));
    }

    #[test]
    fn the_more_frequent_proof_decides() {
        assert_eq!(detected("a", "1 5\n2 5\n"), (Form::Pairs, None));
        assert_eq!(detected("a", "1 5\n1 6 7\n"), (Form::Pairs, None));
        assert_eq!(detected("a", "1 5 6\n\n2 5\n2 6\n2 7\n"), (Form::Pairs, Some(4)));
        assert_eq!(detected("a", "1 5\n1 6\n2 5 6\n3 5 6\n"), (Form::Sequences, Some(3)));
    }
}
