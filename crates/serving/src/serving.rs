use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{Generation, UserSplit};

/// The generations that serve at one moment. A call keeps them until it is answered.
#[derive(Clone)]
pub struct Serving {
    /// Answers every request that the candidate does not.
    pub live: Arc<Generation>,
    /// Answers a share of the users beside the live generation.
    pub candidate: Option<Candidate>,
}

/// A generation that answers a share of the users.
#[derive(Clone)]
pub struct Candidate {
    /// The generation.
    pub generation: Arc<Generation>,
    /// Which users these are.
    pub split: UserSplit,
}

/// One of the generations of a [`Serving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The live generation.
    Live,
    /// The candidate.
    Candidate,
}

impl Serving {
    /// One generation without a candidate.
    pub fn only(live: Arc<Generation>) -> Serving {
        Serving { live, candidate: None }
    }

    /// The generation of a side. Without a candidate that is the live one.
    pub fn generation(&self, side: Side) -> &Arc<Generation> {
        match (&self.candidate, side) {
            (Some(candidate), Side::Candidate) => &candidate.generation,
            _ => &self.live,
        }
    }

    /// Each generation once, the live one first.
    pub fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        [&self.live].into_iter().chain(self.candidate.as_ref().map(|candidate| &candidate.generation))
    }
}

/// The generations that serve now, if any. Readers load one pointer; writers take turns.
#[derive(Default)]
pub(crate) struct Current {
    serving: ArcSwapOption<Serving>,
    writing: Mutex<()>,
}

impl Current {
    /// The generations to pin in a call.
    pub(crate) fn get(&self) -> Option<Serving> {
        self.serving.load().as_deref().cloned()
    }

    /// The live generation.
    pub(crate) fn live(&self) -> Option<Arc<Generation>> {
        self.serving.load().as_ref().map(|serving| Arc::clone(&serving.live))
    }

    /// Calls `change` with what serves now, stores what it returns to serve, if anything, and returns its other result.
    pub(crate) fn change<T>(&self, change: impl FnOnce(Option<Serving>) -> (Option<Serving>, T)) -> T {
        let _writing = self.writing.lock();
        let (next, result) = change(self.get());
        if let Some(next) = next {
            self.serving.store(Some(Arc::new(next)));
        }
        result
    }
}
