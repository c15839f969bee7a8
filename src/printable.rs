//! Text made safe for a terminal or a shell.

use std::ffi::OsStr;

use clap::ValueEnum;

/// Replaces control characters. Ids, titles and names come from files, and must not control the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// The same for text of several lines, whose line breaks stay.
pub(crate) fn printable_lines(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => printable(line) + "\n",
            None => printable(line),
        })
        .collect()
}

/// An argument as a shell takes it.
pub(crate) fn quoted(argument: impl AsRef<OsStr>) -> String {
    let text = argument.as_ref().to_string_lossy().into_owned();
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-./:=+,@%".contains(character);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// A value as its flag takes it, and as a manifest has it.
pub(crate) fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced_and_line_breaks_stay_between_lines() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{9b}"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}");
        assert_eq!(printable_lines("a\u{7}\n\nb\r\n"), "a\u{fffd}\n\nb\u{fffd}\n");
        assert_eq!(printable_lines("caf\u{e9}\n"), "caf\u{e9}\n");
    }

    #[test]
    fn arguments_are_quoted_for_a_shell() {
        assert_eq!(quoted("models/ml-100k"), "models/ml-100k");
        assert_eq!(quoted("my data/it's.csv"), "'my data/it'\\''s.csv'");
    }
}
