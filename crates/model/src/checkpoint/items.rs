use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::CheckpointError;
use canet_domain::Catalogue;

/// An external id and its title.
pub(super) type Title = (Box<str>, Box<str>);

/// Limit on the mean length of a line of `items.tsv`, the line break included.
const BYTES_PER_ITEM: u64 = Catalogue::MAX_ID_BYTES as u64 + 1;

/// Limit on the mean length of a line of `titles.tsv`, the tab and the line break included.
const BYTES_PER_TITLE: u64 = (Catalogue::MAX_ID_BYTES + Catalogue::MAX_TITLE_BYTES) as u64 + 2;

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

/// The ids of `items.tsv`, of which there must be `items`. They are counted first, because each takes more memory than a short line.
pub(super) fn parse_ids(path: &Path, bytes: Vec<u8>, items: usize) -> Result<Vec<Box<str>>, CheckpointError> {
    let text = utf8(path, bytes)?;
    let Some(lines) = text.strip_suffix('\n') else {
        let line = text.split('\n').count();
        return Err(CheckpointError::Line { path: path.to_owned(), line, reason: "does not end with a line break" });
    };
    let found = lines.split('\n').count();
    if found != items {
        return Err(CheckpointError::ItemCount { path: path.to_owned(), found, expected: items });
    }
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

/// Whether the bytes are the beginning of an `items.tsv` with more ids.
pub(super) fn ends_early(bytes: &[u8], items: usize) -> bool {
    !bytes.ends_with(b"\n") || bytes.iter().filter(|byte| **byte == b'\n').count() < items
}

/// What is wrong with `titles.tsv`. A model needs no titles, so it opens without those at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TitlesFault {
    /// Some lines are invalid.
    #[error("{path}: skipped {skipped} of the lines, the first is line {line}: {reason}")]
    Lines {
        /// The file.
        path: PathBuf,
        /// Number of invalid lines.
        skipped: usize,
        /// The first one's number, from 1.
        line: usize,
        /// Why it is invalid.
        reason: &'static str,
    },
    /// The file could not be read. The message names it.
    #[error("{0}; the model has no titles")]
    File(String),
}

/// Ids and titles of `titles.tsv`, without its invalid lines. Blank lines and a byte order mark are no fault.
pub(super) fn parse_titles(path: &Path, bytes: &[u8]) -> (Vec<Title>, Option<TitlesFault>) {
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let (mut titles, mut faults) = (Vec::new(), Vec::new());
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match str::from_utf8(line).map(|line| line.split_once('\t')) {
            Ok(Some((id, title))) => titles.push((id.into(), title.into())),
            Ok(None) if line.iter().all(u8::is_ascii_whitespace) => {}
            Ok(None) => faults.push((index + 1, "no tab; each line is an item id, a tab and a title")),
            Err(_) => faults.push((index + 1, "not UTF-8 text")),
        }
    }
    let fault = faults.first().map(|(line, reason)| TitlesFault::Lines {
        path: path.to_owned(),
        skipped: faults.len(),
        line: *line,
        reason,
    });
    (titles, fault)
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, CheckpointError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        CheckpointError::Line { path: path.to_owned(), line, reason: "not UTF-8 text" }
    })
}
