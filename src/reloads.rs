use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::Failure;
use super::numbers::{seconds_within, share, share_below_one};
use super::secret::Secret;
use super::signals::{Signal, Signals};
use canet_serving::{Doubt, Gate, Offer, Reloader, Start, Watch};

/// Which versions serve beside and after the first one. SIGHUP reloads too.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Load a new highest version as soon as it appears and is complete. While there is a candidate, the watch waits
    #[arg(long, env = "CANET_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,
    /// Seconds between two looks of --watch for a new version [default: 0.5, and 30 for an s3:// model]
    #[arg(long, env = "CANET_WATCH_INTERVAL", value_name = "SECONDS", value_parser = seconds_within(0.1..=3600.0))]
    watch_interval: Option<Duration>,
    /// With --watch, refuse a version without metrics, or whose recorded validation NDCG@10 is lower than the live version's
    /// by more than this share. Versions measured on other data are not compared. `off` takes every version [default: 0.05, if the drop is beyond chance; a version without metrics is refused only after one that has some]
    #[arg(long, env = "CANET_MAX_REGRESSION", value_name = "SHARE", value_parser = max_regression)]
    max_regression: Option<MaxRegression>,
    /// A second version, which answers a share of the users beside the live one. POST /admin/promote and /admin/withdraw end
    /// that
    #[arg(long, env = "CANET_CANDIDATE", value_name = "N")]
    candidate: Option<u64>,
    /// Share of the users whom the candidate answers. The same users get it from every server
    #[arg(long, env = "CANET_CANDIDATE_SHARE", value_name = "SHARE", default_value_t = Offer::SHARE, value_parser = share)]
    pub(crate) candidate_share: f64,
    /// Token for POST /admin/reload, candidate, promote and withdraw. Without it, only clients on loopback may call them
    #[arg(long, env = "CANET_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<Secret>,
    /// File with that token, in place of --admin-token
    #[arg(long, env = "CANET_ADMIN_TOKEN_FILE", value_name = "FILE", conflicts_with = "admin_token")]
    admin_token_file: Option<PathBuf>,
}

/// A value of `--max-regression`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MaxRegression {
    /// Every version is taken.
    Off,
    /// The largest share that a version may lack.
    Share(f64),
}

fn max_regression(text: &str) -> Result<MaxRegression, String> {
    match text {
        "off" => Ok(MaxRegression::Off),
        text => share_below_one(text)
            .map(MaxRegression::Share)
            .map_err(|_| "it must be a number of at least 0 and below 1, or off".to_owned()),
    }
}

/// How often --watch lists a store, which takes money for it.
const WATCH_STORE: Duration = Duration::from_secs(30);

impl ReloadArgs {
    /// The default of `--max-regression`: an operator who lets versions replace each other unseen does not want one that is
    /// much worse.
    const MAX_REGRESSION: f64 = 0.05;

    /// What a version must pass that nobody names; `None` without --watch.
    pub(crate) fn gate(&self) -> Option<Gate> {
        match self.max_regression {
            _ if !self.watch => None,
            Some(MaxRegression::Off) => None,
            Some(MaxRegression::Share(max_regression)) => Some(Gate { max_regression, doubt: Doubt::Refuse }),
            // A small validation split measures little, and imported models have no metrics: nobody chose to lose those.
            None => Some(Gate { max_regression: Self::MAX_REGRESSION, doubt: Doubt::Accept }),
        }
    }

    /// What the server begins with; `version` is the live version, if it is named.
    ///
    /// # Errors
    /// [`Failure`] if the candidate is the live version, or a flag of `--watch` is given without it.
    pub(crate) fn start(&self, version: Option<u64>) -> Result<Start, Failure> {
        let of_watch =
            [("--watch-interval", self.watch_interval.is_some()), ("--max-regression", self.max_regression.is_some())];
        if let Some((flag, _)) = of_watch.iter().find(|(_, given)| *given && !self.watch) {
            return Err(Failure::usage(format_args!(
                "{flag} is about versions that --watch finds, so it does nothing without --watch"
            )));
        }
        let candidate = self.candidate.map(|candidate| (candidate, self.candidate_share));
        match self.candidate {
            Some(candidate) if version == Some(candidate) => Err(Failure::Usage(format!(
                "--candidate {candidate} is the version of --version: name two different ones"
            ))),
            _ => Ok(Start { version, gated: self.watch, candidate }),
        }
    }

    /// The operators' token.
    pub(crate) fn token(&self) -> Result<Option<Secret>, Failure> {
        match &self.admin_token_file {
            Some(path) => Secret::read_one(path).map(Some),
            None => Ok(self.admin_token.clone()),
        }
    }

    /// The time between two looks for new versions; `None` without --watch.
    pub(crate) fn watch(&self, is_remote: bool) -> Option<Duration> {
        let default = if is_remote { WATCH_STORE } else { Watch::INTERVAL };
        self.watch.then(|| self.watch_interval.unwrap_or(default))
    }
}

/// Reloads at every SIGHUP and every change that `watch` sees. Returns the name of the first signal to stop.
pub(crate) async fn until_stopped(
    signals: &mut Signals,
    reloader: &Arc<Reloader>,
    watch: Option<Duration>,
) -> &'static str {
    // Dropping the set aborts the watch, but not a reload that has begun.
    let mut watching = tokio::task::JoinSet::new();
    if let Some(interval) = watch {
        watching.spawn(Watch::since_start(reloader).run(Arc::clone(reloader), interval));
    }
    loop {
        match signals.next().await {
            Signal::Stop(name) => return name,
            // The reload goes on without its handle and logs its outcome.
            Signal::Hangup => drop(reloader.reload(None)),
        }
    }
}
