use std::fmt::Write;
use std::path::Path;

use super::CheckpointError;
use canet_domain::Catalogue;

/// An external id and its title.
type Title = (Box<str>, Box<str>);

/// Limit on the mean length of a line of `items.tsv`, the line break included.
const BYTES_PER_ITEM: u64 = 1025;

/// Limit on the mean length of a line of `titles.tsv`.
const BYTES_PER_TITLE: u64 = 8192;

/// Limit on the size of `items.tsv`.
pub(super) fn ids_limit(items: usize) -> u64 {
    items as u64 * BYTES_PER_ITEM
}

/// Limit on the size of `titles.tsv`, which may hold titles of other items too.
pub(super) fn titles_limit(items: usize) -> u64 {
    (1 << 20) + items as u64 * BYTES_PER_TITLE
}

/// The text of `items.tsv`: one id a line, in dense order.
pub(super) fn format_ids(catalogue: &Catalogue) -> String {
    catalogue.ids().iter().flat_map(|id| [&**id, "\n"]).collect()
}

/// The ids of `items.tsv`.
pub(super) fn parse_ids(path: &Path, bytes: Vec<u8>) -> Result<Vec<Box<str>>, CheckpointError> {
    let text = utf8(path, bytes)?;
    let Some(lines) = text.strip_suffix('\n') else {
        let line = text.split('\n').count();
        return Err(CheckpointError::Line { path: path.to_owned(), line, reason: "does not end with a line break" });
    };
    Ok(lines.split('\n').map(Box::from).collect())
}

/// The text of `titles.tsv`, or `None` if no title is known. A line break in a title becomes a space.
pub(super) fn format_titles(catalogue: &Catalogue) -> Option<String> {
    let mut text = String::new();
    for id in catalogue.ids() {
        if let Some(title) = catalogue.item(id).and_then(|item| catalogue.title(item)) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{id}\t{}", title.replace(['\n', '\r'], " "));
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Ids and titles of `titles.tsv`.
pub(super) fn parse_titles(path: &Path, bytes: Vec<u8>) -> Result<Vec<Title>, CheckpointError> {
    utf8(path, bytes)?
        .lines()
        .enumerate()
        .map(|(index, line)| match line.split_once('\t') {
            Some((id, title)) => Ok((id.into(), title.into())),
            None => Err(CheckpointError::Line {
                path: path.to_owned(),
                line: index + 1,
                reason: "no tab; each line is an item id, a tab and a title",
            }),
        })
        .collect()
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, CheckpointError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        CheckpointError::Line { path: path.to_owned(), line, reason: "not UTF-8 text" }
    })
}
