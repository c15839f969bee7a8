//! Which generations serve: swaps, and the candidate.

use std::sync::Arc;

use super::Recommender;
use crate::retired::{Retired, RetiredGuard};
use crate::row::LaneKey;
use crate::{Candidate, Conflict, Generation, GenerationId, Serving, Unready, UserSplit};

/// How a candidate ended.
pub(crate) struct EndedCandidate {
    /// The live generation, which answers everybody now.
    pub live: Arc<Generation>,
    /// The generation that no longer serves, which rows may still hold.
    pub old: Arc<Generation>,
    /// Counts that one until it is freed.
    pub guard: RetiredGuard,
}

impl Recommender {
    /// Swaps a live generation in: new rows are validated against it and run on it. The candidate stays. Returns the
    /// generation that was live before, which rows may still hold.
    pub fn serve(&self, generation: Generation) -> Option<Arc<Generation>> {
        self.give_catalogue(&generation);
        self.change(|before| {
            let candidate = before.as_ref().and_then(|before| before.candidate.clone());
            let next = Serving { live: Arc::new(generation), candidate };
            self.predict_costs(before.as_ref(), &next, &[&next.live]);
            (Some(next), before.map(|before| before.live))
        })
    }

    /// Starts with a live generation and a candidate, if there is one, so that no request finds one without the other.
    pub(crate) fn begin(&self, live: Generation, candidate: Option<(Generation, f64)>) {
        [Some(&live), candidate.as_ref().map(|(candidate, _)| candidate)]
            .into_iter()
            .flatten()
            .for_each(|generation| self.give_catalogue(generation));
        self.change(|before| {
            let candidate = candidate.map(|(generation, share)| candidate_of(generation, share));
            let next = Serving { live: Arc::new(live), candidate };
            let new: Vec<&Arc<Generation>> = next.generations().collect();
            self.predict_costs(before.as_ref(), &next, &new);
            (Some(next), ())
        });
    }

    /// From now on `candidate` answers `share` of the users, in place of the candidate before.
    ///
    /// # Errors
    /// [`Unready`] if no live generation serves.
    pub fn offer(&self, candidate: Generation, share: f64) -> Result<(), Unready> {
        self.give_catalogue(&candidate);
        self.change(|before| {
            let Some(before) = before else { return (None, Err(Unready::Loading)) };
            let candidate = candidate_of(candidate, share);
            let next = Serving { live: Arc::clone(&before.live), candidate: Some(candidate) };
            self.predict_costs(
                Some(&before),
                &next,
                &next.candidate.iter().map(|new| &new.generation).collect::<Vec<_>>(),
            );
            (Some(next), Ok(()))
        })
    }

    /// From now on the candidate answers another share of the users.
    ///
    /// # Errors
    /// [`Conflict`] if version `version` is not the candidate.
    pub(crate) fn change_share(&self, version: u64, share: f64) -> Result<Arc<Generation>, Conflict> {
        self.change(|before| match take_candidate(before, Some(version)) {
            Ok((live, candidate)) => {
                let generation = Arc::clone(&candidate.generation);
                let candidate = Candidate { split: candidate.split.with_share(share), ..candidate };
                (Some(Serving { live, candidate: Some(candidate) }), Ok(generation))
            }
            Err(conflict) => (None, Err(conflict)),
        })
    }

    /// Makes the candidate the live generation. The old one counts as retired before it stops serving.
    ///
    /// # Errors
    /// [`Conflict`] if there is no candidate, or if `version` names another.
    pub(crate) fn promote(&self, version: Option<u64>, retired: &Retired) -> Result<EndedCandidate, Conflict> {
        self.end_candidate(version, retired, |live, candidate| (candidate, live))
    }

    /// Ends the candidate, which counts as retired before it stops serving.
    ///
    /// # Errors
    /// [`Conflict`] if there is no candidate, or if `version` names another.
    pub(crate) fn withdraw(&self, version: Option<u64>, retired: &Retired) -> Result<EndedCandidate, Conflict> {
        self.end_candidate(version, retired, |live, candidate| (live, candidate))
    }

    /// Ends the candidate. `choose` takes the live generation and the candidate and returns which serves and which does not.
    fn end_candidate(
        &self,
        version: Option<u64>,
        retired: &Retired,
        choose: impl FnOnce(Arc<Generation>, Arc<Generation>) -> (Arc<Generation>, Arc<Generation>),
    ) -> Result<EndedCandidate, Conflict> {
        self.change(|before| match take_candidate(before, version) {
            Ok((live, Candidate { generation, .. })) => {
                let (live, old) = choose(live, generation);
                (Some(Serving::only(Arc::clone(&live))), Ok(EndedCandidate { live, old, guard: retired.enter() }))
            }
            Err(conflict) => (None, Err(conflict)),
        })
    }

    /// Changes what serves, and tells the metrics and whoever follows readiness.
    fn change<T>(&self, change: impl FnOnce(Option<Serving>) -> (Option<Serving>, T)) -> T {
        let catalogue = self.catalogue.as_ref();
        // Until the swap nobody replaces the contents that the generations have.
        let contents = catalogue.map(|file| file.hold());
        let (result, left) = self.current.change(|before| {
            let was_live = before.as_ref().map(|before| before.live.id);
            let mut left: Vec<Arc<Generation>> = before.iter().flat_map(Serving::generations).cloned().collect();
            let (next, result) = change(before);
            match &next {
                Some(next) => left.retain(|before| next.generations().all(|kept| kept.id != before.id)),
                None => left.clear(),
            }
            if let Some((next, contents)) = next.as_ref().zip(contents.as_ref()) {
                next.generations().for_each(|generation| contents.give_to(generation));
            }
            if let Some(Serving { live, candidate }) = &next {
                if let Some((file, view)) = catalogue.zip(live.catalogue_view()).filter(|_| was_live != Some(live.id)) {
                    file.serves(&view);
                }
                self.metrics.serving(live.model.name(), live.model.version(), live.model.digest());
                self.metrics.candidate(candidate.as_ref().map(|Candidate { generation, split }| {
                    (generation.model.version(), generation.model.digest(), split.share())
                }));
            }
            (next, (result, left))
        });
        left.iter().for_each(|left| left.close_history_cache());
        self.health.changed();
        result
    }

    /// Predicts the costs of the lanes of `new` generations of `next`.
    fn predict_costs(&self, before: Option<&Serving>, next: &Serving, new: &[&Arc<Generation>]) {
        match before {
            // A generation that was loaded beside live batches is not timed: the live batches are the better timings.
            Some(before) if new.iter().all(|new| new.timings.is_none()) => {
                let live = &before.live;
                let pairs: Vec<_> = new.iter().flat_map(|new| LaneKey::counterparts(live, new)).collect();
                // The rows of a generation that leaves still run.
                let kept: Vec<GenerationId> =
                    before.generations().chain(next.generations()).map(|kept| kept.id).collect();
                self.scheduler.lock().adopt(&pairs, |lane| kept.contains(&lane.generation));
            }
            _ => {
                let routes = new.iter().flat_map(|new| {
                    let timed = new.timings.iter().flat_map(|timings| &timings.routes);
                    timed.map(|(route, ran)| (LaneKey::of(new, *route), *ran))
                });
                let router = new.iter().flat_map(|new| &new.timings).flat_map(|timings| &timings.router).copied();
                self.scheduler.lock().calibrate(&routes.collect::<Vec<_>>(), &router.collect::<Vec<_>>());
            }
        }
    }

    /// Gives a generation the catalogue file, before a swap that would hold up others meanwhile.
    fn give_catalogue(&self, generation: &Generation) {
        if let Some(file) = &self.catalogue {
            file.hold().give_to(generation);
        }
    }
}

fn candidate_of(generation: Generation, share: f64) -> Candidate {
    let split = UserSplit::new(generation.model.name(), generation.model.version(), share);
    Candidate { generation: Arc::new(generation), split }
}

/// The live generation and the candidate.
///
/// # Errors
/// [`Conflict`] if there is no candidate, or if `version` names another.
fn take_candidate(serving: Option<Serving>, version: Option<u64>) -> Result<(Arc<Generation>, Candidate), Conflict> {
    let Some(Serving { live, candidate: Some(candidate) }) = serving else { return Err(Conflict::NoCandidate) };
    let running = candidate.generation.model.version();
    match version {
        Some(asked) if asked != running => Err(Conflict::OtherCandidate { running, asked }),
        _ => Ok((live, candidate)),
    }
}
