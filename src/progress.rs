use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// A progress bar on standard error for rankings. `all` is their number, if it is known. The bar is hidden if standard
/// error is not a terminal.
pub(crate) fn rankings(all: Option<usize>) -> Result<ProgressBar, Failure> {
    let (bar, template) = match all {
        Some(all) => (ProgressBar::new(all as u64), "{bar:40} {human_pos}/{human_len} rankings, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} rankings, {elapsed}"),
    };
    Ok(bar.with_style(ProgressStyle::with_template(template).map_err(Failure::usage)?))
}
