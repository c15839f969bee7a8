/// A linear scale from values to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Maps the values `low` to `high` to the pixels `from` to `to`. A range of one value is widened.
    pub(super) fn new([low, high]: [f64; 2], [from, to]: [f64; 2]) -> Axis {
        let (low, high) = if high > low { (low, high) } else { (low - 1e-3, low + 1e-3) };
        Axis { low, high, from, to }
    }

    /// [`Axis::new`] with the range extended on either side by a share of itself.
    pub(super) fn padded([low, high]: [f64; 2], share: f64, pixels: [f64; 2]) -> Axis {
        let more = share * (high - low);
        Axis::new([low - more, high + more], pixels)
    }

    /// The pixel of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// The smallest value of the range.
    pub(super) fn low(&self) -> f64 {
        self.low
    }

    /// About `count` round values in the range.
    pub(super) fn ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / count.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|place| place as f64 * step).collect()
    }
}

/// The smallest and the largest value, or 0 and 1 for no values.
pub(super) fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let [low, high] =
        values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| [low.min(value), high.max(value)]);
    if low <= high { [low, high] } else { [0.0, 1.0] }
}
