use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;

/// A bar on standard error for rankings, of which there will be `all` where that is known; it hides itself where standard
/// error is no terminal.
pub(crate) fn rankings(all: Option<usize>) -> Result<ProgressBar, Failure> {
    let (bar, template) = match all {
        Some(all) => (ProgressBar::new(all as u64), "{bar:40} {human_pos}/{human_len} rankings, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} rankings, {elapsed}"),
    };
    Ok(bar.with_style(ProgressStyle::with_template(template).map_err(Failure::usage)?))
}
