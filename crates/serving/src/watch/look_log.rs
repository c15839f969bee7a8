use std::collections::HashSet;
use std::time::{Duration, Instant};

use canet_model::checkpoint::{CheckpointError, Fault, Listing, VERSION_NAMES};
use parking_lot::Mutex;

use crate::absence::{Absence, Report};
use crate::metrics::{Metrics, Reloaded};

/// The most names of ignored directories that are logged.
const MOST_LOGGED: usize = 100;

/// Logs and counts what a look at the versions finds, without saying the same at each look.
#[derive(Debug, Default)]
pub(crate) struct LookLog(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// Names of directories that were logged because they are no versions.
    ignored: HashSet<String>,
    /// Whether the store failed when the watch last looked.
    store_fails: bool,
    /// Since when the directory cannot be read.
    directory: Absence,
}

impl LookLog {
    /// Logs the directories that are no versions although their names have digits, each once.
    pub(crate) fn log_ignored(&self, listing: &Listing) {
        for name in &listing.ignored {
            // Writing the line must not hold up a load, so the lock ends before.
            let is_new = self.0.lock().note_ignored(name);
            if is_new {
                tracing::warn!(name, "the directory is ignored: {VERSION_NAMES}");
            }
        }
    }

    /// Counts a look at the versions for which the store failed or that failed for long, and logs when that begins and ends.
    pub(super) fn looked(&self, error: Option<&CheckpointError>, took: Duration, metrics: &Metrics) {
        let failed = error.filter(|error| error.fault() == Fault::StoreUnavailable);
        let mut said = self.0.lock();
        let failed_before = std::mem::replace(&mut said.store_fails, failed.is_some());
        let (report, is_back) = match (failed, error) {
            (None, Some(_)) => (said.directory.fails(Instant::now()), false),
            _ => (None, said.directory.ends()),
        };
        drop(said);
        match (failed, error) {
            (Some(error), _) => {
                metrics.reloaded(Reloaded::Failed, took);
                if !failed_before {
                    tracing::warn!(%error, "the store cannot be read: the server keeps the model that it has");
                }
            }
            (None, Some(error)) => {
                if let Some(report) = report {
                    metrics.reloaded(Reloaded::Failed, took);
                    if report == Report::First {
                        tracing::warn!(%error, "the watched directory cannot be read: the server keeps the model that it has");
                    }
                }
            }
            (None, None) if failed_before => tracing::info!("the store can be read again"),
            (None, None) if is_back => tracing::info!("the watched directory can be read again"),
            (None, None) => {}
        }
    }
}

impl Said {
    /// Notes a directory that is no version. Returns whether to log it.
    fn note_ignored(&mut self, name: &str) -> bool {
        self.ignored.len() < MOST_LOGGED && self.ignored.insert(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_directory_is_logged_once_and_at_most_a_hundred_are() {
        let mut said = Said::default();
        let names: Vec<String> = (0..200).map(|number| format!("v{number}")).collect();
        let mut logged = || names.iter().filter(|name| said.note_ignored(name)).count();
        assert_eq!([logged(), logged()], [MOST_LOGGED, 0]);
    }

    #[test]
    fn only_looks_at_a_store_that_fails_are_counted_at_once() {
        let (log, metrics) = (LookLog::default(), Metrics::new().unwrap());
        let store = CheckpointError::Origin { address: "s3://shop/small".to_owned(), reason: "403".to_owned() };
        let other = CheckpointError::NotADirectory { path: "small".into() };
        for (error, fails) in [(Some(&store), true), (Some(&store), true), (Some(&other), false), (None, false)] {
            log.looked(error, Duration::ZERO, &metrics);
            assert_eq!(log.0.lock().store_fails, fails, "{error:?}");
        }
        let metrics = metrics.render().unwrap();
        assert!(metrics.contains("canet_reload_total{outcome=\"failed\"} 2\n"), "{metrics}");
    }
}
