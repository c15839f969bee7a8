use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::numbers::{bytes, seconds, share, some_bytes};
use canet_serving::metrics::Metrics;
use canet_serving::{AnswerLog, AnswerLogTarget, Exploration, RecommenderOptions, Roll};

/// How the server learns whether its answers were right.
#[derive(Debug, Args)]
pub(crate) struct FeedbackArgs {
    /// Memory for the last answer to each user, which the user's next request judges, as 64MB or 1GiB. 0 judges nothing
    #[arg(long, env = "CANET_JUDGE_MEMORY", value_name = "SIZE", default_value = "64MB", value_parser = bytes)]
    judge_memory: usize,
    /// Share of the routed requests to run over a random route, so that the accuracy of routes can be compared
    #[arg(long, env = "CANET_EXPLORE", value_name = "SHARE", value_parser = share, conflicts_with = "route")]
    explore: Option<f64>,
    /// Write answers as JSON lines to files in this directory, or to standard output if it is `-`
    #[arg(long, env = "CANET_ANSWER_LOG", value_name = "DIR")]
    answer_log: Option<PathBuf>,
    /// Share of the users whose answers are written, and of the requests without a user
    #[arg(long, env = "CANET_ANSWER_LOG_SAMPLE", value_name = "SHARE", default_value_t = 1.0, value_parser = share, requires = "answer_log")]
    answer_log_sample: f64,
    /// Size at which a file of the answer log ends
    #[arg(long, env = "CANET_ANSWER_LOG_SIZE", value_name = "SIZE", default_value = "128MB", value_parser = some_bytes, requires = "answer_log")]
    answer_log_size: usize,
    /// Seconds after which a file of the answer log ends
    #[arg(long, env = "CANET_ANSWER_LOG_AGE", value_name = "SECONDS", default_value = "3600", value_parser = seconds, requires = "answer_log")]
    answer_log_age: Duration,
}

impl FeedbackArgs {
    /// How the server judges, explores and logs. Opens the answer log.
    ///
    /// # Errors
    /// [`Failure::Io`] if the answer log cannot be opened.
    pub(crate) fn options(&self, metrics: &Arc<Metrics>) -> Result<RecommenderOptions, Failure> {
        let explore = |share| Exploration::new(share, RandomState::new().hash_one(std::process::id()));
        Ok(RecommenderOptions {
            exploration: self.explore.map(explore),
            judge_memory: (self.judge_memory > 0).then_some(self.judge_memory),
            answer_log: self.answer_log(metrics)?,
            ..RecommenderOptions::default()
        })
    }

    /// Opens the answer log, if one is asked for.
    fn answer_log(&self, metrics: &Arc<Metrics>) -> Result<Option<AnswerLog>, Failure> {
        let Some(directory) = &self.answer_log else { return Ok(None) };
        let target = if directory.as_os_str() == "-" {
            AnswerLogTarget::Stdout
        } else {
            let roll = Roll { size: self.answer_log_size as u64, age: self.answer_log_age };
            AnswerLogTarget::Files { directory: directory.clone(), roll }
        };
        let log = AnswerLog::start(target, self.answer_log_sample, Arc::clone(metrics));
        log.map(Some).map_err(|error| Failure::Io(format!("--answer-log {}: {error}", directory.display())))
    }
}
