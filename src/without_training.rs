//! What `canet train` is in a build without LibTorch.

use std::ffi::OsString;

use super::Failure;

/// Not in this build: training needs LibTorch.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// What a build with LibTorch takes
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<OsString>,
}

/// Says what to do.
pub(crate) fn run(_: TrainArgs) -> Result<(), Failure> {
    Err(Failure::usage("training needs LibTorch, and this build has none: use a build with it (`make build`)"))
}
