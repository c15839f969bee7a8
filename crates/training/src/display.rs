use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::records::{EpochRecord, ValidationScore};
use crate::stage::Stage;

/// Progress on standard error: a bar for each stage if it is a terminal, and a line for each epoch.
pub(crate) struct Display {
    is_terminal: bool,
    bar: Option<ProgressBar>,
    stage: &'static str,
}

impl Display {
    /// A display that shows nothing yet.
    pub(crate) fn new() -> Display {
        Display { is_terminal: stderr().is_terminal(), bar: None, stage: "" }
    }

    /// Starts the bar of a stage of `steps` steps, `done` of which are done.
    pub(crate) fn begin(&mut self, stage: Stage, steps: u64, done: u64) {
        self.clear();
        self.stage = stage.name();
        self.bar = self.is_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            let template = format!("{} {{bar:20}} {{pos}}/{{len}}, {{eta}} left, {{wide_msg}}", self.stage);
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar.set_position(done);
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
    }

    /// Counts steps that have no loss.
    pub(crate) fn advance(&self, steps: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(steps);
        }
    }

    /// Counts a step and shows its loss beside the last epoch's validation score.
    pub(crate) fn step(&self, loss: f64, last: Option<&EpochRecord>) {
        let Some(bar) = &self.bar else { return };
        bar.inc(1);
        let validation = last.map(validation).unwrap_or_default();
        bar.set_message(format!("loss {loss:.3}{validation}"));
    }

    /// Prints the result of one of `epochs` epochs. The rest of the stage takes at most `left`.
    pub(crate) fn epoch(&self, record: &EpochRecord, epochs: u64, left: Duration) {
        self.line(&format!(
            "{}, epoch {}/{epochs}: loss {:.3}{}, at most {} left",
            self.stage,
            record.epoch,
            record.train.total(),
            validation(record),
            HumanDuration(left),
        ));
    }

    /// Prints a line.
    pub(crate) fn line(&self, line: &str) {
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

fn validation(record: &EpochRecord) -> String {
    let Some(ValidationScore { ndcg, saved, routes_in_use }) = record.validation else { return String::new() };
    let routed = match (saved, routes_in_use) {
        (Some(saved), Some(routes)) => format!(", {:.0} % of FLOPs saved, {routes} routes in use", 100.0 * saved),
        _ => String::new(),
    };
    format!(", validation NDCG@10 {ndcg:.4}{routed}")
}
