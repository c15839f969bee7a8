//! What the loads tell the watch, and the candidate that nobody may make live by accident.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::Stamp;
use crate::ServingVersion;

/// What the loads tell the watch. Both share it.
#[derive(Debug, Default)]
pub(crate) struct WatchNotes(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    baseline: Baseline,
    reserved: Option<Reserved>,
    /// Versions that an order loaded since the watch last asked, as they were just before that.
    ordered: BTreeMap<u64, Stamp>,
    /// The digest of each version that has served.
    served: BTreeMap<u64, String>,
}

/// Which state of the highest version is not new to the watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Baseline {
    /// Every version is new.
    #[default]
    Nothing,
    /// This one, which was there before the first load.
    State(Stamp),
    /// Whatever the first look finds. An operator named the live version and nobody could look before the first load, so
    /// what is there may be older than that order.
    FirstLook,
}

/// A candidate of the command line that could not be loaded at the start. Only the watch, as the candidate, and an order that
/// names it load it. Otherwise it would answer everybody.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reserved {
    pub version: u64,
    /// The share of the users whom it is to answer.
    pub share: f64,
    /// The state of its files that was tried. `None` if they are to be tried again without a change.
    pub tried: Option<Stamp>,
    /// Whether an operator withdrew it before it was loaded: then only an order that names it loads it.
    pub is_withdrawn: bool,
}

impl WatchNotes {
    /// Notes what is not new to the watch. The first load calls it, before the watch begins.
    pub(crate) fn set_baseline(&self, baseline: Baseline) {
        self.0.lock().baseline = baseline;
    }

    pub(crate) fn baseline(&self) -> Baseline {
        self.0.lock().baseline.clone()
    }

    /// Keeps a version for the candidate until it is one or an order loads it.
    pub(crate) fn reserve(&self, candidate: Reserved) {
        self.0.lock().reserved = Some(candidate);
    }

    /// The version that is kept for the candidate.
    pub(crate) fn reserved(&self) -> Option<Reserved> {
        self.0.lock().reserved.clone()
    }

    /// Withdraws the version that is kept for the candidate, if it is `version`. `None` stands for any version. Returns the
    /// version.
    pub(crate) fn withdraw(&self, version: Option<u64>) -> Option<u64> {
        let mut notes = self.0.lock();
        let reserved = notes.reserved.as_mut().filter(|reserved| !reserved.is_withdrawn)?;
        if version.is_some_and(|version| version != reserved.version) {
            return None;
        }
        reserved.is_withdrawn = true;
        Some(reserved.version)
    }

    /// Notes that a version is loaded because somebody asked for it, so that the watch does not load it once more. `stamp` is
    /// its state before that, if it is known.
    pub(crate) fn note_order(&self, version: u64, stamp: Option<Stamp>) {
        let mut notes = self.0.lock();
        notes.reserved.take_if(|reserved| reserved.version == version);
        notes.ordered.extend(stamp.map(|stamp| (version, stamp)));
    }

    /// Whether somebody's order loaded a version since the watch last asked.
    pub(crate) fn is_ordered(&self, version: u64) -> bool {
        self.0.lock().ordered.contains_key(&version)
    }

    /// The versions that somebody's order loaded since the last call.
    pub(super) fn take_ordered(&self) -> BTreeMap<u64, Stamp> {
        std::mem::take(&mut self.0.lock().ordered)
    }

    /// Notes that a version serves.
    pub(crate) fn note_served(&self, served: &ServingVersion) {
        self.0.lock().served.insert(served.version, served.digest.clone());
    }

    /// Whether a version served before with this digest.
    pub(crate) fn has_served(&self, version: u64, digest: &str) -> bool {
        self.0.lock().served.get(&version).is_some_and(|served| served == digest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::stamp;
    use super::*;

    #[test]
    fn an_order_is_known_until_the_watch_asks() {
        let notes = WatchNotes::default();
        notes.note_order(2, None);
        notes.note_order(3, Some(stamp(3, 9, 1)));
        assert!(notes.is_ordered(3) && !notes.is_ordered(2));
        assert_eq!(notes.take_ordered(), BTreeMap::from([(3, stamp(3, 9, 1))]));
        assert!(!notes.is_ordered(3) && notes.take_ordered().is_empty());
    }

    #[test]
    fn a_candidate_stays_reserved_until_its_own_version_is_loaded() {
        let notes = WatchNotes::default();
        let reserved = Reserved { version: 12, share: 0.05, tried: None, is_withdrawn: false };
        notes.reserve(reserved.clone());
        notes.note_order(11, Some(stamp(11, 9, 1)));
        assert_eq!(notes.reserved(), Some(reserved));
        // Withdrawn, it is kept from everybody all the same.
        assert_eq!([Some(11), Some(12), None].map(|version| notes.withdraw(version)), [None, Some(12), None]);
        assert!(notes.reserved().is_some_and(|reserved| reserved.is_withdrawn));
        notes.note_order(12, None);
        assert_eq!(notes.reserved(), None);
    }
}
