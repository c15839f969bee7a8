//! `canet train` in a build without LibTorch.

use std::ffi::OsString;

use crate::Failure;

/// Not available: training needs LibTorch, and this build has none.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// Ignored.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<OsString>,
}

/// Fails with a message that says what to do.
pub(crate) fn run(_: TrainArgs) -> Result<(), Failure> {
    Err(Failure::usage(
        "training needs LibTorch, and this build has none: build canet from its source with LibTorch (`make build`)",
    ))
}
