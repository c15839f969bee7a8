use std::sync::Arc;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::secret::Secret;
use super::signals::{Signal, Signals};
use canet_model::checkpoint::ModelDirectory;
use canet_serving::{Reloader, Stamp, Watch};

/// What replaces the model while it serves, besides SIGHUP.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Load a new highest version as soon as it is there
    #[arg(long, env = "CANET_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,
    /// Token that POST /admin/reload asks for; without one it answers clients on loopback alone
    #[arg(long, env = "CANET_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<Secret>,
}

impl ReloadArgs {
    /// The operators' token.
    pub(crate) fn token(&self) -> Option<&str> {
        self.admin_token.as_ref().map(Secret::reveal)
    }

    /// What to watch for, where that was asked for: whatever differs from now.
    pub(crate) fn watch(&self, directory: &ModelDirectory) -> Option<Watch> {
        // Where the directory cannot be read now, loading says so.
        self.watch.then(|| Watch::new(Stamp::read(directory).unwrap_or_default()))
    }
}

/// Reloads at every SIGHUP and at what is watched for, until a signal to stop: its name.
pub(crate) async fn until_stopped(
    signals: &mut Signals,
    reloader: &Arc<Reloader>,
    watch: Option<Watch>,
) -> &'static str {
    // What is in the set is aborted when it drops; a reload that has begun goes on.
    let mut watching = tokio::task::JoinSet::new();
    if let Some(watch) = watch {
        watching.spawn(watch.run(Arc::clone(reloader)));
    }
    loop {
        match signals.next().await {
            Signal::Stop(name) => return name,
            // It goes on by itself, and says itself how it ended.
            Signal::Hangup => drop(reloader.reload(None)),
        }
    }
}
