/// How many of a number of trials succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proportion {
    /// The successes, at most `trials`.
    pub successes: u64,
    /// The trials.
    pub trials: u64,
}

/// The 97.5 % quantile of the normal distribution: an interval between it and its negative holds 95 %.
const Z: f64 = 1.959_963_984_540_054;

impl Proportion {
    /// The share of the trials that succeeded. `None` without a trial.
    pub fn share(self) -> Option<f64> {
        (self.trials > 0).then(|| self.successes as f64 / self.trials as f64)
    }

    /// Wilson's 95 % interval of the share, from 0 to 1. `None` without a trial.
    ///
    /// Unlike the normal interval it holds its confidence for few trials and for shares near 0 (Wilson, "Probable inference,
    /// the law of succession, and statistical inference", JASA 1927). It takes the trials for independent.
    ///
    /// ```
    /// use canet_domain::Proportion;
    ///
    /// let [low, high] = Proportion { successes: 1, trials: 10 }.interval().unwrap();
    /// assert!((low - 0.0179).abs() < 1e-4 && (high - 0.4042).abs() < 1e-4);
    /// ```
    pub fn interval(self) -> Option<[f64; 2]> {
        let (share, trials) = (self.share()?, self.trials as f64);
        let scale = 1.0 + Z * Z / trials;
        let middle = (share + Z * Z / (2.0 * trials)) / scale;
        let half = Z / scale * (share * (1.0 - share) / trials + Z * Z / (4.0 * trials * trials)).sqrt();
        Some([(middle - half).max(0.0), (middle + half).min(1.0)])
    }
}

#[cfg(test)]
mod tests {
    use super::Proportion;

    #[test]
    fn intervals_are_those_of_the_literature() {
        // Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
        for (successes, trials, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let [found_low, found_high] = Proportion { successes, trials }.interval().unwrap();
            assert!((found_low - low).abs() < 5e-5 && (found_high - high).abs() < 5e-5, "{successes} of {trials}");
        }
    }

    #[test]
    fn without_a_trial_nothing_is_known() {
        assert_eq!(Proportion::default().share(), None);
        assert_eq!(Proportion::default().interval(), None);
        let [low, high] = Proportion { successes: 3, trials: 3 }.interval().unwrap();
        assert!(low > 0.4 && high == 1.0);
    }
}
