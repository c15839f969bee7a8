use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::Failure;
use super::secret::Secret;
use super::signals::{Signal, Signals};
use canet_model::checkpoint::ModelDirectory;
use canet_serving::{Reloader, Stamp, Watch};

/// What reloads the model while it serves, besides SIGHUP.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Load a new highest version as soon as it appears
    #[arg(long, env = "CANET_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,
    /// Token for POST /admin/reload. Without it, only clients on loopback may reload
    #[arg(long, env = "CANET_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<Secret>,
    /// File with that token, in place of --admin-token
    #[arg(long, env = "CANET_ADMIN_TOKEN_FILE", value_name = "FILE", conflicts_with = "admin_token")]
    admin_token_file: Option<PathBuf>,
}

impl ReloadArgs {
    /// The operators' token.
    pub(crate) fn token(&self) -> Result<Option<Secret>, Failure> {
        match &self.admin_token_file {
            Some(path) => Secret::read_one(path).map(Some),
            None => Ok(self.admin_token.clone()),
        }
    }

    /// With --watch, watches for versions that differ from the present ones.
    pub(crate) fn watch(&self, directory: &ModelDirectory) -> Option<Watch> {
        // If the directory is unreadable now, loading will report it.
        self.watch.then(|| Watch::new(Stamp::read(directory).unwrap_or_default()))
    }
}

/// Reloads at every SIGHUP and every change that `watch` sees. Returns the name of the first signal to stop.
pub(crate) async fn until_stopped(
    signals: &mut Signals,
    reloader: &Arc<Reloader>,
    watch: Option<Watch>,
) -> &'static str {
    // Dropping the set aborts the watch, but not a reload that has begun.
    let mut watching = tokio::task::JoinSet::new();
    if let Some(watch) = watch {
        watching.spawn(watch.run(Arc::clone(reloader)));
    }
    loop {
        match signals.next().await {
            Signal::Stop(name) => return name,
            // The reload goes on without its handle and logs its outcome.
            Signal::Hangup => drop(reloader.reload(None)),
        }
    }
}
