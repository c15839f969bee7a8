//! How a candidate starts, changes and ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Building, Offer, Order, Outcome, Reloader, ServingVersion, opening};
use crate::priority::Priority;
use crate::recommender::EndedCandidate;
use crate::{Conflict, ReloadError, Unready};
use canet_model::checkpoint::Listing;

impl Reloader {
    /// Starts to load a candidate. The future is ready once it serves. If the version is the candidate already, only its share
    /// changes. Dropping the future stops neither.
    ///
    /// # Errors
    /// [`ReloadError`]. Nothing has changed then.
    pub fn offer(self: &Arc<Self>, offer: Offer) -> impl Future<Output = Outcome> + Send + use<> {
        let loading = match self.candidate() {
            Some(running) => Err(self.change(move |reloader| reloader.change_share(running, offer))),
            None => Ok(self.carry_out(Order::Offer(offer))),
        };
        async {
            match loading {
                Ok(loading) => loading.await,
                Err(changing) => changing.await,
            }
        }
    }

    /// Makes the candidate the live generation. `version` is the candidate, if the caller wants to be sure.
    ///
    /// # Errors
    /// [`ReloadError`] if there is no candidate, if it is another version, or while a version is being loaded.
    pub fn promote(self: &Arc<Self>, version: Option<u64>) -> impl Future<Output = Outcome> + Send + use<> {
        self.change(move |reloader| {
            let recommender = reloader.open_recommender()?;
            // The load would replace what is promoted.
            let _building = Building::begin(&reloader.building).ok_or(ReloadError::InProgress)?;
            let EndedCandidate { live, old, guard } = recommender.promote(version, &reloader.retired)?;
            let (version, replaced) = (live.model.version(), old.model.version());
            tracing::info!(version, replaced, "the candidate is promoted and answers everybody");
            reloader.retire(old, guard);
            Ok(ServingVersion::of(&live))
        })
    }

    /// Ends the candidate, or keeps the version that is reserved for it from becoming one. `version` is that version, if the
    /// caller wants to be sure. The future has the live checkpoint.
    ///
    /// # Errors
    /// [`ReloadError`] if there is no candidate and none is reserved, if it is another version, or if the reserved version may
    /// be being loaded.
    pub fn withdraw(self: &Arc<Self>, version: Option<u64>) -> impl Future<Output = Outcome> + Send + use<> {
        self.change(move |reloader| {
            let recommender = reloader.open_recommender()?;
            let EndedCandidate { live, old, guard } = match recommender.withdraw(version, &reloader.retired) {
                Err(conflict @ Conflict::NoCandidate) => return reloader.withdraw_reserved(version, conflict),
                ended => ended?,
            };
            let (version, withdrawn) = (live.model.version(), old.model.version());
            tracing::info!(version, withdrawn, "the candidate is withdrawn: the live version answers everybody");
            reloader.retire(old, guard);
            Ok(ServingVersion::of(&live))
        })
    }

    /// Keeps the version that is reserved for the candidate from becoming one. A load of it must not end later.
    fn withdraw_reserved(&self, version: Option<u64>, conflict: Conflict) -> Outcome {
        let live = self.open_recommender()?.current().ok_or(Unready::Loading)?.live;
        if self.notes.reserved().is_none_or(|reserved| reserved.is_withdrawn) {
            return Err(conflict.into());
        }
        let _building = Building::begin(&self.building).ok_or(ReloadError::InProgress)?;
        let withdrawn = self.notes.withdraw(version).ok_or(conflict)?;
        tracing::info!(withdrawn, "the version that was reserved for the candidate is withdrawn");
        Ok(ServingVersion::of(&live))
    }

    /// The version of the candidate.
    pub(crate) fn candidate(&self) -> Option<u64> {
        let serving = self.recommender.upgrade()?.current()?;
        serving.candidate.map(|candidate| candidate.generation.model.version())
    }

    /// The share of the candidate that serves, if it is `version`. `None` stands for any version.
    pub fn candidate_share(&self, version: Option<u64>) -> Option<f64> {
        let candidate = self.recommender.upgrade()?.current()?.candidate?;
        let running = candidate.generation.model.version();
        version.is_none_or(|version| version == running).then(|| candidate.split.share())
    }

    /// Makes a change that loads nothing, on a thread of its own: it may have to wait until the catalogue file is read, and frees
    /// a history cache. A change that is refused is counted.
    fn change<C>(self: &Arc<Self>, change: C) -> impl Future<Output = Outcome> + Send + use<C>
    where
        C: FnOnce(&Arc<Reloader>) -> Outcome + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let reloader = Arc::clone(self);
        let started = self.spawn(move || {
            let outcome = change(&reloader).inspect_err(|error| reloader.refused(error, Duration::ZERO));
            // A closed channel means that the client has left.
            let _ = done.send(outcome);
        });
        let started = started.map_err(ReloadError::from).inspect_err(|error| self.refused(error, Duration::ZERO));
        async move {
            started?;
            outcome.await.unwrap_or(Err(ReloadError::BrokeOff))
        }
    }

    /// Changes the share of the candidate `running`.
    fn change_share(&self, running: u64, Offer { version, share }: Offer) -> Outcome {
        let generation = self.open_recommender()?.change_share(version.unwrap_or(running), share)?;
        tracing::info!(version = running, share, "the candidate answers another share of the users");
        Ok(ServingVersion::of(&generation))
    }

    /// Loads a candidate and swaps it in.
    pub(super) fn load_candidate(
        &self,
        Offer { version, share }: Offer,
        listing: Option<&Listing>,
    ) -> Result<ServingVersion, ReloadError> {
        let live = self.open_recommender()?.current().ok_or(Unready::Loading)?.live.model.version();
        let version = match version {
            Some(version) => version,
            None => self.directory().latest().map_err(opening)?,
        };
        if version == live {
            return Err(Conflict::IsLive { version }.into());
        }
        let stamp = self.stamp(version, listing);
        let generation = self.loader.load(Some(version), Priority::BesideLive)?;
        let served = ServingVersion::of(&generation);
        self.open_recommender()?.offer(generation, share)?;
        self.notes.note_order(version, stamp);
        Ok(served)
    }
}
