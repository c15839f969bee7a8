use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::exit::say;

/// A progress bar on standard error for rankings. `all` is their number, if it is known. The bar is hidden if standard
/// error is not a terminal.
pub(crate) fn rankings(all: Option<usize>) -> Result<ProgressBar, Failure> {
    let (bar, template) = match all {
        Some(all) => (ProgressBar::new(all as u64), "{bar:40} {human_pos}/{human_len} rankings, {eta} left {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} rankings, {elapsed} {msg}"),
    };
    Ok(bar.with_style(ProgressStyle::with_template(template).map_err(Failure::usage)?))
}

/// The progress of an evaluation: a bar if standard error is a terminal, else a line for each run.
pub(crate) struct Evaluation {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Evaluation {
    /// Begins with `all` rankings to do at most, if their number is known.
    pub(crate) fn new(all: Option<usize>) -> Result<Evaluation, Failure> {
        let bar = rankings(all)?;
        // Popularity and the Markov chain rank without the model, so the bar must move by itself.
        bar.enable_steady_tick(Duration::from_millis(500));
        Ok(Evaluation { bar, is_terminal: stderr().is_terminal() })
    }

    /// Shows what is evaluated now.
    pub(crate) fn begins(&self, name: &str) {
        if self.is_terminal {
            self.bar.set_message(format!("({name})"));
        } else {
            say(format_args!("evaluating {name}"));
        }
    }

    /// Counts rankings.
    pub(crate) fn ranked(&self, count: usize) {
        self.bar.inc(count as u64);
    }

    /// Removes the bar.
    pub(crate) fn ends(&self) {
        self.bar.finish_and_clear();
    }
}
