//! Rust source as words and signs with their lines, without comments and literals: enough to find paths.

/// A word, `::`, or one other character.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub text: &'a str,
    pub line: usize,
}

pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while let Some(first) = rest.chars().next() {
        let (length, is_token) = match skipped(rest) {
            Some(length) => (length, false),
            None if rest.starts_with("::") => (2, true),
            None if is_word(first) => (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), true),
            None => (first.len_utf8(), true),
        };
        if is_token {
            found.push(Token { text: &rest[..length], line });
        }
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the white space, comment or literal at the start, if there is one.
fn skipped(rest: &str) -> Option<usize> {
    let to_end = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with(char::is_whitespace) {
        return Some(to_end(rest.find(|c: char| !c.is_whitespace())));
    }
    if rest.starts_with("//") {
        return Some(to_end(rest.find('\n')));
    }
    if rest.starts_with("/*") {
        return Some(block_comment(rest));
    }
    for prefix in ["r", "br", "cr"] {
        let Some(after) = rest.strip_prefix(prefix) else { continue };
        let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
        if after[hashes..].starts_with('"') {
            let body = prefix.len() + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            return Some(to_end(rest[body..].find(&close).map(|end| body + end + close.len())));
        }
    }
    for prefix in ["\"", "b\"", "c\""] {
        if let Some(after) = rest.strip_prefix(prefix) {
            return Some(prefix.len() + quoted(after, '"'));
        }
    }
    if let Some(after) = rest.strip_prefix("b'") {
        return Some(2 + quoted(after, '\''));
    }
    let after = rest.strip_prefix('\'')?;
    let mut characters = after.chars();
    let is_character = after.starts_with('\\') || (characters.next().is_some() && characters.next() == Some('\''));
    // Else it is a lifetime, whose sign alone is passed over.
    Some(1 + if is_character { quoted(after, '\'') } else { 0 })
}

/// Length up to and with the closing quote.
fn quoted(after: &str, quote: char) -> usize {
    let mut escaped = false;
    for (place, c) in after.char_indices() {
        if !escaped && c == quote {
            return place + 1;
        }
        escaped = !escaped && c == '\\';
    }
    after.len()
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut place) = (0usize, 0);
    while place < rest.len() {
        if rest[place..].starts_with("/*") {
            (depth, place) = (depth + 1, place + 2);
        } else if rest[place..].starts_with("*/") {
            (depth, place) = (depth - 1, place + 2);
            if depth == 0 {
                return place;
            }
        } else {
            place += rest[place..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}
