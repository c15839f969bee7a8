//! Parses JSON without rounding long integers.
//!
//! serde_json reads an integer beyond 64 bits, and `-0`, as a float, which loses its digits. Item ids are such integers:
//! catalogues use hashes and 128-bit keys. serde_json's own feature for this, `arbitrary_precision`, would slow down every
//! number of every document. So a document is parsed as it is first. Only if that fails, its long integers become
//! strings, which item ids accept and no other field does.

use std::borrow::Cow;

use serde::Deserialize;

/// Parses a document.
///
/// # Errors
/// As [`serde_json::from_slice`].
pub(crate) fn from_slice<T: for<'a> Deserialize<'a>>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json).or_else(|error| match with_quoted(json) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(json) => serde_json::from_slice(&json),
    })
}

/// The document with quotes around each integer that serde_json would round. Without such an integer, or if it is not
/// JSON, the document itself.
pub(crate) fn with_quoted(json: &[u8]) -> Cow<'_, [u8]> {
    let (mut quoted, mut copied, mut place) = (Vec::new(), 0, 0);
    while let Some(byte) = json.get(place) {
        let end = match byte {
            b'"' => place + string_length(&json[place..]),
            b'-' | b'0'..=b'9' => place + number_length(&json[place..]),
            _ => place + 1,
        };
        if is_rounded(&json[place..end]) {
            for part in [&json[copied..place], b"\"", &json[place..end], b"\""] {
                quoted.extend_from_slice(part);
            }
            copied = end;
        }
        place = end;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    quoted.extend_from_slice(&json[copied..]);
    Cow::Owned(quoted)
}

/// An error's message about a document of [`with_quoted`] that calls the integers what they are in the original.
pub(crate) fn unquoted(message: &str) -> String {
    let of_string = message.strip_prefix("invalid type: string \"").and_then(|rest| rest.split_once('"'));
    match of_string.filter(|(text, _)| is_rounded(text.as_bytes())) {
        Some((integer, rest)) => format!("invalid value: integer `{integer}`{rest}"),
        None => message.to_owned(),
    }
}

/// The length of the string that `json` begins with, with its quotes, up to the end of `json` if it is not closed.
fn string_length(json: &[u8]) -> usize {
    let mut place = 1;
    while let Some(byte) = json.get(place) {
        place += match byte {
            b'"' => return place + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    json.len()
}

/// The length of the number that `json` begins with.
fn number_length(json: &[u8]) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    json.iter().position(|byte| !is_part(byte)).unwrap_or(json.len())
}

/// Whether a token is an integer of JSON that serde_json reads as a float.
fn is_rounded(token: &[u8]) -> bool {
    let digits = token.strip_prefix(b"-").unwrap_or(token);
    let is_integer = match digits {
        [] => false,
        [b'0', rest @ ..] => rest.is_empty(),
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    let fits = |text: &str| text.parse::<u64>().is_ok() || text.parse::<i64>().is_ok();
    is_integer && (token == b"-0" || !std::str::from_utf8(token).is_ok_and(fits))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{from_slice, with_quoted};
    use crate::wire::ExternalId;

    #[test]
    fn ids_keep_the_digits_that_were_sent() {
        for digits in [
            "0",
            "-0",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "184467440737095510101",
            &"9".repeat(1000),
        ] {
            let ids: Vec<ExternalId> = from_slice(format!("[1, {digits},\"{digits}\"]").as_bytes()).unwrap();
            assert_eq!(ids.iter().map(|id| &*id.0).collect::<Vec<_>>(), ["1", digits, digits]);
        }
    }

    #[test]
    fn other_numbers_are_no_ids() {
        for number in ["1.0", "1e3", "-1E-3", "0.5", "184467440737095510101.0", "184467440737095510101e0", "01", "-"] {
            assert!(from_slice::<Vec<ExternalId>>(format!("[184467440737095510101, {number}]").as_bytes()).is_err());
        }
    }

    #[test]
    fn only_integers_outside_strings_are_quoted() {
        let quoted = |json: &str| String::from_utf8(with_quoted(json.as_bytes()).into_owned()).unwrap();
        let long = "184467440737095510101";
        let json = format!(r#"{{"{long}": ["\"{long}", "\\", {long}, {long}.5, -{long},1], "k":-0}}"#);
        let expected = format!(r#"{{"{long}": ["\"{long}", "\\", "{long}", {long}.5, "-{long}",1], "k":"-0"}}"#);
        assert_eq!(quoted(&json), expected);
        for json in ["", "[1, -2, 3.5]", "\"184467440737095510101", "{", "\"\\", "-", "00", "--0"] {
            assert!(matches!(with_quoted(json.as_bytes()), Cow::Borrowed(same) if same == json.as_bytes()), "{json}");
        }
    }
}
