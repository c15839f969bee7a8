/// The share of waits that the factor is to cover.
const QUANTILE: f64 = 0.99;

/// How far one wait moves the factor at most.
const STEP: f64 = 0.02;

/// Riding doubles a wait at most. What other processes take from the machine shows in the costs of batches; were it
/// covered here too, a busy machine's queue would become too short to fill batches.
const FACTOR: (f64, f64) = (1.0, 2.0);

/// How much longer rows wait than the work ahead of them says.
///
/// A batch takes in whatever waits in its lane, also rows that came after others in other lanes: with many lanes a
/// row waits up to twice as long as the work that it found. This follows the 99 % quantile of (time waited / work
/// found): up by a step for each wait beyond, down by a hundredth of one for each below, in balance where one in a
/// hundred is beyond.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stretch(f64);

impl Default for Stretch {
    fn default() -> Stretch {
        Stretch(FACTOR.0)
    }
}

impl Stretch {
    /// The factor, at least 1.
    pub(crate) fn factor(self) -> f64 {
        self.0
    }

    /// Learns from a row that waited `ratio` times the work that it found.
    pub(crate) fn observe(&mut self, ratio: f64) {
        let step = if ratio > self.0 { STEP * QUANTILE } else { -STEP * (1.0 - QUANTILE) };
        self.0 = (self.0 + step).clamp(FACTOR.0, FACTOR.1);
    }
}
