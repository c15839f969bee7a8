//! The flag for items of a user's own history, which several commands share.

use clap::Args;
use clap::builder::BoolishValueParser;

use canet_evaluation::SeenItems;
use canet_model::checkpoint::Manifest;

/// Whether items of the history are recommended and count in metrics.
#[derive(Debug, Args)]
pub(crate) struct SeenArgs {
    /// Also rank items of the user's history. `--include-seen=false` leaves them out [default: the model's rule, which
    /// `train --include-seen` sets]
    #[arg(
        long,
        env = "CANET_INCLUDE_SEEN",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) include_seen: Option<bool>,
}

impl SeenArgs {
    /// The flag's rule, or that of the checkpoint.
    pub(crate) fn rule(&self, manifest: &Manifest) -> SeenItems {
        SeenItems::excluded_if(self.include_seen.map_or(manifest.exclude_seen, |include| !include))
    }

    /// Whether the flag's rule is not that of the checkpoint.
    pub(crate) fn overrides(&self, manifest: &Manifest) -> bool {
        self.include_seen == Some(manifest.exclude_seen)
    }
}
