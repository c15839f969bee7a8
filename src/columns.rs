/// Columns of a terminal that text for people fits.
pub(crate) const WIDTH: usize = 100;

/// Breaks a sentence into lines of at most [`WIDTH`] columns. A longer word has a line of its own.
pub(crate) fn wrapped(sentence: &str) -> String {
    let (mut text, mut column) = (String::new(), 0);
    // The blank after `95` and the like is no place for a break.
    for word in sentence.replace(" %", "\u{a0}%").split(' ') {
        let length = word.chars().count();
        if column > 0 {
            let fits = column + 1 + length <= WIDTH;
            text.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        text.push_str(word);
        column += length;
    }
    text.replace('\u{a0}', " ")
}

/// Lays out a table. The first column is left-aligned, the others right-aligned.
pub(crate) fn aligned(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let header = header.iter().map(|&title| title.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cell = |(column, (cell, width)): (usize, (&String, &usize))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        };
        let line: String = row.iter().zip(&widths).enumerate().map(cell).collect();
        line.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{WIDTH, wrapped};

    #[test]
    fn sentences_break_between_words_and_not_before_a_per_cent_sign() {
        let words = "a word of 12 % and ".repeat(20);
        let lines = wrapped(words.trim());
        assert_eq!(lines.replace('\n', " "), words.trim());
        assert!(lines.lines().all(|line| line.len() <= WIDTH && !line.starts_with('%')), "{lines}");
        let long = "x".repeat(WIDTH + 1);
        assert_eq!(wrapped(&format!("a {long} b")), format!("a\n{long}\nb"));
    }
}
