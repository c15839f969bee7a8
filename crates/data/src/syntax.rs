//! How a line of a table splits into fields.

use std::fmt;
use std::ops::Range;

use memchr::{memchr, memchr2};

/// What separates the fields of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Separator {
    Byte(u8),
    /// MovieLens' `::`.
    Colons,
    /// Any number of blanks and tabs.
    Blanks,
}

impl fmt::Display for Separator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Separator::Byte(b',') => "commas",
            Separator::Byte(b';') => "semicolons",
            Separator::Byte(b'\t') => "tabs",
            Separator::Byte(_) => "bars",
            Separator::Colons => "`::`",
            Separator::Blanks => "blanks",
        })
    }
}

/// How a line splits into fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) separator: Separator,
    /// Whether a field may stand in quotes, which separators and line breaks within do not end.
    pub(crate) quoting: bool,
}

/// How quotes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quoting {
    /// Two quotes within a quoted field are one, as RFC 4180 has it.
    Doubled,
    /// A backslash makes the quote or backslash after it part of a quoted field, as Spark and MySQL write it.
    Backslash,
    /// As `Doubled`, but a field that is not in quotes as a whole is read as it stands, up to the next separator.
    Literal,
}

/// What a text that has quotes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quoted {
    /// A row.
    Whole,
    /// The start of a row: its last field is not closed.
    Open,
    /// Not a row: text follows a closing quote.
    Stray,
}

impl Syntax {
    /// The separators of tables.
    pub(crate) const TABLES: [Separator; 4] =
        [Separator::Byte(b','), Separator::Byte(b';'), Separator::Byte(b'\t'), Separator::Byte(b'|')];

    pub(crate) fn quoted(separator: Separator) -> Syntax {
        Syntax { separator, quoting: matches!(separator, Separator::Byte(_)) }
    }

    /// Whether quotes have a meaning in a line.
    pub(crate) fn has_quotes(self, line: &[u8]) -> bool {
        self.quoting && memchr(b'"', line).is_some()
    }

    /// Splits a line without quotes.
    pub(crate) fn split(self, line: &[u8], fields: &mut Vec<Range<usize>>) {
        fields.clear();
        let mut start = 0;
        match self.separator {
            Separator::Byte(separator) => {
                for end in memchr::memchr_iter(separator, line) {
                    fields.push(start..end);
                    start = end + 1;
                }
            }
            Separator::Colons => {
                for end in memchr::memmem::find_iter(line, b"::") {
                    fields.push(start..end);
                    start = end + 2;
                }
            }
            Separator::Blanks => {
                let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
                while let Some(skipped) = line[start..].iter().position(|byte| !blank(byte)) {
                    start += skipped;
                    let length = line[start..].iter().position(blank).unwrap_or(line.len() - start);
                    fields.push(start..start + length);
                    start += length;
                }
                return;
            }
        }
        fields.push(start..line.len());
    }

    /// Splits a text with quotes into fields of `unquoted`.
    pub(crate) fn unquote(
        self,
        quoting: Quoting,
        text: &[u8],
        unquoted: &mut Vec<u8>,
        fields: &mut Vec<Range<usize>>,
    ) -> Quoted {
        unquoted.clear();
        fields.clear();
        let Separator::Byte(separator) = self.separator else { return Quoted::Stray };
        let mut rest = text;
        loop {
            let start = unquoted.len();
            let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
            let quoted = match rest.get(blanks) {
                Some(b'"') => Some(quoted_field(quoting, &rest[blanks + 1..], separator, unquoted)),
                _ => None,
            };
            let behind = match quoted {
                Some(Ok(behind)) => behind,
                Some(Err(fault)) if quoting != Quoting::Literal => return fault,
                _ => {
                    unquoted.truncate(start);
                    let end = memchr(separator, rest).unwrap_or(rest.len());
                    unquoted.extend_from_slice(&rest[..end]);
                    &rest[end..]
                }
            };
            fields.push(start..unquoted.len());
            match behind.split_first() {
                Some((_, next)) => rest = next,
                None => return Quoted::Whole,
            }
        }
    }

    /// The fields of a single line as text without surrounding blanks. `None` if a quote is not closed in it.
    pub(crate) fn fields(self, line: &str) -> Option<Vec<String>> {
        let (mut unquoted, mut fields) = (Vec::new(), Vec::new());
        let text = if self.has_quotes(line.as_bytes()) {
            let line = line.as_bytes();
            let is_whole = |quoting| self.unquote(quoting, line, &mut unquoted, &mut fields) == Quoted::Whole;
            let literal = (self.separator == Separator::Byte(b'\t')).then_some(Quoting::Literal);
            let mut quotings = [Quoting::Doubled, Quoting::Backslash].into_iter().chain(literal);
            if !quotings.any(is_whole) {
                return None;
            }
            &unquoted
        } else {
            self.split(line.as_bytes(), &mut fields);
            line.as_bytes()
        };
        Some(fields.into_iter().map(|field| String::from_utf8_lossy(&text[field]).trim().to_owned()).collect())
    }
}

/// Reads a field behind its opening quote into `unquoted`, and returns what stands behind it: a separator or nothing.
fn quoted_field<'t>(
    quoting: Quoting,
    mut rest: &'t [u8],
    separator: u8,
    unquoted: &mut Vec<u8>,
) -> Result<&'t [u8], Quoted> {
    loop {
        let found = match quoting {
            Quoting::Backslash => memchr2(b'"', b'\\', rest),
            Quoting::Doubled | Quoting::Literal => memchr(b'"', rest),
        };
        let at = found.ok_or(Quoted::Open)?;
        unquoted.extend_from_slice(&rest[..at]);
        let (special, next) = (rest[at], rest.get(at + 1).copied());
        match (special, next) {
            (b'"', Some(b'"')) | (b'\\', Some(b'"' | b'\\')) => {
                unquoted.extend(next);
                rest = &rest[at + 2..];
            }
            (b'\\', _) => {
                unquoted.push(special);
                rest = &rest[at + 1..];
            }
            _ => {
                rest = &rest[at + 1..];
                break;
            }
        }
    }
    let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
    let behind = &rest[blanks..];
    match behind.first() {
        None => Ok(behind),
        Some(byte) if *byte == separator => Ok(behind),
        Some(_) => Err(Quoted::Stray),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(separator: Separator, line: &str) -> Option<String> {
        Some(Syntax::quoted(separator).fields(line)?.join("/"))
    }

    #[test]
    fn each_separator_splits() {
        assert_eq!(fields(Separator::Byte(b';'), "a; b;;c ").as_deref(), Some("a/b//c"));
        assert_eq!(fields(Separator::Colons, "1::2::3").as_deref(), Some("1/2/3"));
        assert_eq!(fields(Separator::Blanks, " 1 \t 2  3 ").as_deref(), Some("1/2/3"));
    }

    #[test]
    fn quotes_hold_separators_and_quotes() {
        let comma = Separator::Byte(b',');
        assert_eq!(fields(comma, r#""a, ""b""", "c" ,d"e,"#).as_deref(), Some("a, \"b\"/c/d\"e/"));
        for broken in [r#""a,b"#, r#""a"b,c"#, r#"a,"b" "c"#] {
            assert_eq!(fields(comma, broken), None, "{broken}");
        }
    }

    #[test]
    fn backslashes_escape_quotes_where_doubled_quotes_do_not_fit() {
        let comma = Separator::Byte(b',');
        assert_eq!(fields(comma, r#"a,"12\" ""x"", \\ \n",b"#).as_deref(), Some(r#"a/12" "x", \ \n/b"#));
        assert_eq!(fields(comma, r#""C:\",b"#).as_deref(), Some(r"C:\/b"));
    }

    #[test]
    fn a_field_between_tabs_that_is_not_quoted_as_a_whole_is_literal() {
        let tab = Separator::Byte(b'\t');
        assert_eq!(fields(tab, "\"Heroes\" (Live)\t\"a\tb\"").as_deref(), Some("\"Heroes\" (Live)/a\tb"));
        assert_eq!(fields(tab, "\"Heroes\tb").as_deref(), Some("\"Heroes/b"));
    }
}
