//! What a server begins with.

use std::time::Instant;

use super::{Reloader, ServingVersion};
use crate::metrics::Reloaded;
use crate::priority::Priority;
use crate::reload_error::Retry;
use crate::watch::{Baseline, Reserved};
use crate::{Generation, LoadError, ReloadError, Stamp, Start};
use canet_model::checkpoint::{Fault, Listing};

impl Reloader {
    /// Loads the live version and the candidate, and swaps them in. Without `listing` the versions could not be listed.
    pub(super) fn load_first(&self, start: Start, listing: Option<&Listing>) -> Result<ServingVersion, ReloadError> {
        // What appears from now on is new to the watch.
        self.notes.set_baseline(self.baseline(start, listing));
        let live = match self.loader.load_first(start) {
            Err(error) if error.fault() == Fault::StoreUnavailable => self.load_first_copy(start, error)?,
            outcome => outcome?,
        };
        let candidate = start.candidate.and_then(|(version, share)| {
            self.load_first_candidate(version, share, listing).map(|generation| (generation, share))
        });
        let recommender = self.open_recommender()?;
        let served = ServingVersion::of(&live);
        recommender.begin(live, candidate);
        Ok(served)
    }

    /// What is not new to the watch.
    fn baseline(&self, start: Start, listing: Option<&Listing>) -> Baseline {
        let candidate = start.candidate.map(|(candidate, _)| candidate);
        let highest = listing.map(|listing| Stamp::of_highest(self.directory(), listing, candidate));
        match highest {
            Some(Ok(Some(stamp))) => Baseline::State(stamp),
            Some(Ok(None)) => Baseline::Nothing,
            None | Some(Err(_)) if start.version.is_some() => Baseline::FirstLook,
            None | Some(Err(_)) => Baseline::Nothing,
        }
    }

    /// Loads an earlier copy of a version, because its store fails: a server that restarts meanwhile can go on.
    fn load_first_copy(&self, start: Start, error: LoadError) -> Result<Generation, LoadError> {
        let started = Instant::now();
        // Without a copy, the store's error says more than that there is none.
        let Some(copy) = self.loader.load_first_copy(start) else { return Err(error) };
        tracing::error!(%error, version = copy.model.version(), "the version cannot be copied: an earlier copy serves");
        self.loader.metrics.reloaded(Reloaded::Failed, started.elapsed());
        // The store may have a higher version than the highest copy. Nobody wants one in place of a version that is named.
        if start.version.is_none() {
            self.notes.set_baseline(Baseline::Nothing);
        }
        Ok(copy)
    }

    /// Loads the candidate that the server begins with. If that fails, its version stays reserved.
    fn load_first_candidate(&self, version: u64, share: f64, listing: Option<&Listing>) -> Option<Generation> {
        let started = Instant::now();
        let stamp = self.stamp(version, listing);
        match self.loader.load(Some(version), Priority::WholeMachine) {
            Ok(generation) => {
                self.notes.note_order(version, stamp);
                self.notes.note_served(&ServingVersion::of(&generation));
                tracing::info!(version, share, "the candidate is loaded");
                self.loader.metrics.reloaded(Reloaded::Served, started.elapsed());
                Some(generation)
            }
            Err(error) => {
                let error = ReloadError::from(error);
                self.loader.metrics.reloaded(error.counted(), started.elapsed());
                tracing::error!(
                    %error,
                    version,
                    "there is no candidate: the live version answers everybody. --watch makes the version the candidate once it \
                     loads, and so does POST /admin/candidate"
                );
                let tried = stamp.filter(|_| error.retry() == Retry::OnceChanged);
                self.notes.reserve(Reserved { version, share, tried, is_withdrawn: false });
                None
            }
        }
    }
}
