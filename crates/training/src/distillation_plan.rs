//! How long the router learns to reproduce the predictions of the slices' utility.

/// Histories of a step.
pub(crate) const BATCH: usize = 256;

/// The router reads each user about this many times, within bounds on the steps.
const PASSES: usize = 100;
const FEWEST_STEPS: usize = 100;
const MOST_STEPS: usize = 3000;

/// The steps in which the router learns, for `sequences` users.
pub(crate) fn steps(sequences: usize) -> u64 {
    (sequences * PASSES / BATCH).clamp(FEWEST_STEPS, MOST_STEPS) as u64
}
