use serde::{Deserialize, Serialize};

/// A stage of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Router and slices together, as published.
    Joint,
    /// Every slice, without a router.
    Supernet,
    /// The router, by what each slice is worth to held-out users.
    Router,
    /// The weights again, with what was held out.
    Settle,
    /// The weights once more, with every interaction there is: what measures a model is learnt last.
    Newest,
}

impl Stage {
    /// Its name in logs and displays.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Joint => "joint",
            Stage::Supernet => "supernet",
            Stage::Router => "router",
            Stage::Settle => "settle",
            Stage::Newest => "newest",
        }
    }

    /// The share of a run's time after which it ends where others follow, so that they have theirs.
    pub(crate) fn ends_by(self) -> f64 {
        match self {
            Stage::Supernet => 0.65,
            Stage::Router => 0.85,
            Stage::Settle => 0.93,
            Stage::Joint | Stage::Newest => 1.0,
        }
    }
}
