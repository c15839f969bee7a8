use std::cell::Cell;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::stage::Stage;

/// Time without a line after which a step prints one, if there is no bar.
const SILENCE: Duration = Duration::from_secs(60);

/// Progress on standard error: a bar for each stage if it is a terminal, else a line a minute, and a line for each epoch.
pub(crate) struct Display {
    is_terminal: bool,
    bar: Option<ProgressBar>,
    stage: Option<Stage>,
    steps: u64,
    done: Cell<u64>,
    spoke: Cell<Instant>,
}

impl Display {
    /// A display that shows nothing yet.
    pub(crate) fn new() -> Display {
        Display {
            is_terminal: stderr().is_terminal(),
            bar: None,
            stage: None,
            steps: 0,
            done: Cell::new(0),
            spoke: Cell::new(Instant::now()),
        }
    }

    /// Starts the bar of a stage of `steps` steps, `done` of which are done.
    pub(crate) fn begin(&mut self, stage: Stage, steps: u64, done: u64) {
        self.clear();
        (self.stage, self.steps) = (Some(stage), steps);
        self.done.set(done);
        self.bar = self.is_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            let template = format!("{} {{bar:20}} {{pos}}/{{len}} {{wide_msg}}", stage.name());
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar.set_position(done);
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
    }

    /// Counts work that has no steps, and shows the time that is left.
    pub(crate) fn advance(&self, units: u64, left: Option<Duration>) {
        self.count(units, "", || time_left(left));
    }

    /// Counts a step, and shows a message beside it.
    pub(crate) fn step(&self, message: impl FnOnce() -> String) {
        self.count(1, ": ", message);
    }

    /// Counts units. `between` separates a line's count from its message.
    fn count(&self, units: u64, between: &str, message: impl FnOnce() -> String) {
        self.done.set(self.done.get() + units);
        match (&self.bar, self.stage) {
            (Some(bar), _) => {
                bar.inc(units);
                bar.set_message(message());
            }
            (None, Some(stage)) if self.spoke.get().elapsed() >= SILENCE => {
                let (stage, done, all, message) = (stage.name(), self.done.get(), self.steps, message());
                self.line(&format!("{stage}: {done} of {all} done{between}{message}"));
            }
            _ => {}
        }
    }

    /// Prints a line.
    pub(crate) fn line(&self, line: &str) {
        self.spoke.set(Instant::now());
        match &self.bar {
            Some(bar) => bar.println(line),
            // The training continues if standard error is closed.
            None => drop(writeln!(stderr(), "{line}")),
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The time for the rest of the run, to follow a phrase; empty if it is unknown.
pub(crate) fn time_left(left: Option<Duration>) -> String {
    left.map(|left| format!(", about {} of the run left", HumanDuration(left))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_run() {
        assert_eq!(time_left(Some(Duration::from_secs(720))), ", about 12 minutes of the run left");
        assert_eq!(time_left(None), "");
    }
}
