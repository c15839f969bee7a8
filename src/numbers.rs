//! Parsers of numbers within bounds, for the flags of several commands.

use std::time::Duration;

/// Seconds, above 0 and at most a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    const DAY: f64 = 24.0 * 60.0 * 60.0;
    time(text, Duration::from_secs(1), DAY)
        .ok_or_else(|| "it must be a number of seconds above 0 and at most 86400, a day".to_owned())
}

/// Minutes, above 0 and at most ten years.
pub(crate) fn minutes(text: &str) -> Result<Duration, String> {
    const YEARS: f64 = 10.0 * 365.0 * 24.0 * 60.0;
    time(text, Duration::from_secs(60), YEARS)
        .ok_or_else(|| "it must be a number of minutes above 0 and at most 5256000".to_owned())
}

/// A number of units, above 0 and at most `most`. The bound keeps sums of times from overflowing.
fn time(text: &str, unit: Duration, most: f64) -> Option<Duration> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=most).contains(number))?;
    Duration::try_from_secs_f64(number * unit.as_secs_f64()).ok().filter(|time| !time.is_zero())
}

/// A number above 0.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0, "it must be a number above 0")
}

/// A number of 0 or more.
pub(crate) fn non_negative(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0, "it must be a number of 0 or more")
}

/// A share below 1, or 0.
pub(crate) fn share_below_one(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..1.0).contains(&value), "it must be a number of at least 0 and below 1")
}

/// A share above 0.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value <= 1.0, "it must be a number above 0 and at most 1")
}

/// A share, or 0.
pub(crate) fn share_or_zero(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1.0).contains(&value), "it must be a number from 0 to 1")
}

fn number(text: &str, allowed: impl Fn(f64) -> bool, rule: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| value.is_finite() && allowed(*value)).ok_or_else(|| rule.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_above_zero_and_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("86400"), Ok(Duration::from_secs(86_400)));
        for text in ["0", "-1", "86401", "1e-30", "NaN", "inf", "soon", ""] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_above_zero_and_at_most_one() {
        assert_eq!((share("0.3"), share("1")), (Ok(0.3), Ok(1.0)));
        for text in ["0", "1.1", "-0.1", "NaN", "half"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
