use serde::{Deserialize, Serialize};

/// A stage of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Train router and slices together, as published.
    Joint,
    /// Train the slices, without a router.
    Supernet,
    /// Train the router to predict how well each slice serves held-out users.
    Router,
    /// Train the weights on all training data, including the positions that were held out for the router.
    Settle,
    /// Train the weights on every interaction, including those that measured the model.
    Newest,
}

impl Stage {
    /// Its name in the run log and on the terminal.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Joint => "joint",
            Stage::Supernet => "supernet",
            Stage::Router => "router",
            Stage::Settle => "settle",
            Stage::Newest => "newest",
        }
    }

    /// The stage's part of a limited time, beside the parts of the other stages.
    pub(crate) fn time_part(self) -> f64 {
        match self {
            Stage::Joint => 1.0,
            Stage::Supernet => 0.65,
            Stage::Router => 0.20,
            Stage::Settle => 0.08,
            Stage::Newest => 0.07,
        }
    }
}

/// The stages of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Train the slices first, then the router on how well each slice serves held-out users, then the weights on the
    /// held-out positions.
    Utility,
    /// Train router and slices together on drawn routes, as published.
    Paper,
}

impl Preset {
    /// Its stages in order.
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Preset::Utility => &[Stage::Supernet, Stage::Router, Stage::Settle, Stage::Newest],
            Preset::Paper => &[Stage::Joint],
        }
    }
}

/// Why a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StageEnd {
    /// All its work is done.
    Done,
    /// The validation score has not improved for `patience` epochs.
    Patience,
    /// Its time is over.
    OutOfTime,
    /// A signal asked the process to stop.
    Stopped,
}
