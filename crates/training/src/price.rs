use std::ops::RangeInclusive;

/// Steps of bisection. The spent share is a step function of the price, so more steps would not help.
const BISECTIONS: usize = 40;

/// The lowest price of FLOPs at which `spent` is at most `budget`, to 40 bisections. `spent` must not rise with the
/// price.
///
/// The search begins between -1 and 1, or between 0 and 1 if `range` begins at 0. An end doubles while the price lies
/// beyond it, until it has reached the end of `range`. The search may therefore pass an end by a factor of two. If
/// every price spends too much, the result is the upper end; if none does, it is next to the lower end.
pub(crate) fn lowest_price(range: RangeInclusive<f64>, budget: f64, spent: impl Fn(f64) -> f64) -> f64 {
    let (lowest, highest) = range.into_inner();
    let (mut low, mut high) = (lowest.max(-1.0), 1.0);
    while spent(high) > budget && high < highest {
        high *= 2.0;
    }
    while low > lowest && spent(low) < budget {
        low *= 2.0;
    }
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if spent(middle) > budget { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A share that is spent up to a price, and half of it from this price on.
    fn falling_at(step: f64) -> impl Fn(f64) -> f64 {
        move |price| if price < step { 0.8 } else { 0.4 }
    }

    #[test]
    fn the_price_is_the_lowest_that_keeps_the_budget() {
        for step in [-700.0, -0.5, 0.0, 0.3, 1.0, 5.0, 900.0] {
            let price = lowest_price(-1e6..=1e6, 0.5, falling_at(step));
            assert!(price >= step && price - step < 1e-6, "{price} instead of {step}");
        }
    }

    #[test]
    fn the_search_ends_near_the_ends_of_its_range() {
        // Every price keeps the first budget, and none keeps the second one.
        let [enough, too_little] = [0.9, 0.1].map(|budget| lowest_price(-1.0..=1e3, budget, falling_at(5.0)));
        assert!((-1.0..-0.999).contains(&enough), "{enough}");
        assert_eq!(too_little, 1024.0);
        assert!(lowest_price(0.0..=1e6, 0.9, falling_at(5.0)) < 1e-9);
    }
}
