//! Text from files and servers, made safe for a terminal.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced_and_line_breaks_stay_between_lines() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{9b}"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}");
        assert_eq!(printable_lines("a\u{7}\n\nb\r\n"), "a\u{fffd}\n\nb\u{fffd}\n");
        assert_eq!(printable_lines("caf\u{e9}\n"), "caf\u{e9}\n");
    }
}
