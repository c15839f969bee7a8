use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::stage::Stage;
use super::state::EpochRecord;
use super::validation::Scored;

/// What a person sees of a run: a bar a stage where there is a terminal, else a line an epoch.
pub(crate) struct Display {
    /// Whether there is a terminal.
    terminal: bool,
    bar: Option<ProgressBar>,
    stage: &'static str,
}

impl Display {
    /// A display that shows nothing yet.
    pub(crate) fn new() -> Display {
        Display { terminal: stderr().is_terminal(), bar: None, stage: "" }
    }

    /// A stage of `steps` steps begins, of which `done` are made.
    pub(crate) fn begin(&mut self, stage: Stage, steps: u64, done: u64) {
        self.clear();
        self.stage = stage.name();
        self.bar = self.terminal.then(|| {
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

    /// Steps were made that have no loss.
    pub(crate) fn advance(&self, steps: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(steps);
        }
    }

    /// A step was made.
    pub(crate) fn step(&self, loss: f64, last: Option<&EpochRecord>) {
        let Some(bar) = &self.bar else { return };
        bar.inc(1);
        let validation = last.map(validation).unwrap_or_default();
        bar.set_message(format!("loss {loss:.3}{validation}"));
    }

    /// An epoch of `epochs` ended; `left` is the time that the rest of the stage would take at its pace.
    pub(crate) fn epoch(&self, record: &EpochRecord, epochs: u64, left: Duration) {
        let line = format!(
            "{}, epoch {}/{epochs}: loss {:.3}{}, at most {} left",
            self.stage,
            record.epoch,
            record.train.total(),
            validation(record),
            HumanDuration(left),
        );
        self.say(&line);
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            // A run is worth more than its words: it goes on where nobody reads them any more.
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
    let Some(Scored { ndcg, saved, routes_in_use }) = record.scored else { return String::new() };
    let routed = match (saved, routes_in_use) {
        (Some(saved), Some(routes)) => format!(", {:.0} % of FLOPs saved, {routes} routes in use", 100.0 * saved),
        _ => String::new(),
    };
    format!(", validation NDCG@10 {ndcg:.4}{routed}")
}
