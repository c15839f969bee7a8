use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::state::EpochRecord;

/// What a person sees of a run: a bar where there is a terminal, else a line an epoch.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    epochs: u64,
}

impl Display {
    /// A display of a run of `steps` steps in `epochs` epochs, of which `done` steps are made.
    pub(super) fn new(epochs: u64, steps: u64, done: u64) -> Display {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            let template = "{bar:20} {pos}/{len} steps, {eta} left, {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_position(done);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        Display { bar, epochs }
    }

    /// A step was made.
    pub(super) fn step(&self, loss: f64, last: Option<&EpochRecord>) {
        let Some(bar) = &self.bar else { return };
        bar.inc(1);
        let validation = last.map(|record| format!(", {}", validation(record))).unwrap_or_default();
        bar.set_message(format!("loss {loss:.3}{validation}"));
    }

    /// An epoch ended; `left` is the time that the rest would take at its pace.
    pub(super) fn epoch(&self, record: &EpochRecord, left: Duration) {
        let line = format!(
            "epoch {}/{}: loss {:.3}, {}, at most {} left",
            record.epoch,
            self.epochs,
            record.train.total,
            validation(record),
            HumanDuration(left),
        );
        self.say(&line);
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            // A run is worth more than its words: it goes on where nobody reads them any more.
            None => drop(writeln!(stderr(), "{line}")),
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn validation(record: &EpochRecord) -> String {
    format!(
        "validation NDCG@10 {:.4}, {:.0} % of FLOPs saved, {} routes in use",
        record.ndcg,
        100.0 * record.saved,
        record.routes_in_use
    )
}
