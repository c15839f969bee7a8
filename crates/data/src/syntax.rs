//! How a line of a table splits into fields.

use std::fmt;
use std::ops::Range;

use memchr::memchr;

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

    /// Splits a text with quotes, as RFC 4180 has them, into fields of `unquoted`.
    pub(crate) fn unquote(self, text: &[u8], unquoted: &mut Vec<u8>, fields: &mut Vec<Range<usize>>) -> Quoted {
        unquoted.clear();
        fields.clear();
        let Separator::Byte(separator) = self.separator else { return Quoted::Stray };
        let mut rest = text;
        loop {
            let start = unquoted.len();
            let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
            let end = if rest.get(blanks) == Some(&b'"') {
                rest = &rest[blanks + 1..];
                loop {
                    let Some(quote) = memchr(b'"', rest) else { return Quoted::Open };
                    unquoted.extend_from_slice(&rest[..quote]);
                    rest = &rest[quote + 1..];
                    if rest.first() != Some(&b'"') {
                        break;
                    }
                    unquoted.push(b'"');
                    rest = &rest[1..];
                }
                let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
                rest = &rest[blanks..];
                match rest.first() {
                    None => None,
                    Some(byte) if *byte == separator => Some(0),
                    Some(_) => return Quoted::Stray,
                }
            } else {
                let end = memchr(separator, rest);
                unquoted.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
                end
            };
            fields.push(start..unquoted.len());
            match end {
                Some(end) => rest = &rest[end + 1..],
                None => return Quoted::Whole,
            }
        }
    }

    /// The fields of a single line as text without surrounding blanks. `None` if a quote is not closed in it.
    pub(crate) fn fields(self, line: &str) -> Option<Vec<String>> {
        let (mut unquoted, mut fields) = (Vec::new(), Vec::new());
        let text = if self.has_quotes(line.as_bytes()) {
            if self.unquote(line.as_bytes(), &mut unquoted, &mut fields) != Quoted::Whole {
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
}
