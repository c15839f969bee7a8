/// The quantile of waits that the factor covers.
const QUANTILE: f64 = 0.99;

/// How far one wait moves the factor at most.
const STEP: f64 = 0.02;

/// Sharing batches at most doubles a wait. Other processes on the machine lengthen waits too, but their effect shows in
/// the costs of batches. If the factor covered it as well, the queue of a busy machine would be too short to fill
/// batches.
const FACTOR: (f64, f64) = (1.0, 2.0);

/// How much longer rows wait than the work ahead of them takes.
///
/// A batch takes every row that waits in its lane, also those that arrived after rows of other lanes. With many lanes
/// a row waits up to twice as long as the work that it found. This type follows the 99 % quantile of (time waited /
/// time of the work found). Each wait above the factor raises it by a step, each wait below lowers it by a hundredth
/// of a step. The two balance when one wait in a hundred is above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct WaitQuantile(f64);

impl Default for WaitQuantile {
    fn default() -> WaitQuantile {
        WaitQuantile(FACTOR.0)
    }
}

impl WaitQuantile {
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

#[cfg(test)]
mod tests {
    use super::WaitQuantile;

    #[test]
    fn the_factor_settles_where_one_wait_in_a_hundred_is_above_it() {
        let mut quantile = WaitQuantile::default();
        // Evenly spread from 0.5 to 1.5: the 99 % quantile is 1.49.
        for n in 0..20_000_u32 {
            quantile.observe(0.5 + f64::from(n * 37 % 1000) / 1000.0);
        }
        assert!((1.4..=1.5).contains(&quantile.factor()), "{quantile:?}");
    }

    #[test]
    fn the_factor_stays_between_one_and_two() {
        let mut quantile = WaitQuantile::default();
        (0..1000).for_each(|_| quantile.observe(100.0));
        assert!((quantile.factor() - 2.0).abs() < 1e-9);
        (0..100_000).for_each(|_| quantile.observe(0.0));
        assert!((quantile.factor() - 1.0).abs() < 1e-9);
    }
}
