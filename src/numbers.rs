//! Parsers of numbers within bounds, for the flags of several commands.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Seconds, above 0 and at most a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    const DAY: f64 = 24.0 * 60.0 * 60.0;
    time(text, Duration::from_secs(1), DAY)
        .ok_or_else(|| "it must be a number of seconds above 0 and at most 86400, a day".to_owned())
}

/// Seconds within a range.
pub(crate) fn seconds_within(range: RangeInclusive<f64>) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let number = text.parse::<f64>().ok().filter(|number| range.contains(number));
        number
            .and_then(|number| Duration::try_from_secs_f64(number).ok())
            .ok_or_else(|| format!("it must be a number of seconds from {} to {}", range.start(), range.end()))
    }
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

/// Bytes, as in 256MB, 1.5GiB or 0.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
        ("", 1),
    ];
    let upper = text.trim().to_ascii_uppercase();
    let parsed = UNITS.iter().find_map(|(name, unit)| {
        let number = upper.strip_suffix(name)?.trim().parse::<f64>().ok()?;
        let bytes = number * *unit as f64;
        // The cast is exact enough below 2^63, and every such number is a size.
        (0.0..i64::MAX as f64).contains(&bytes).then_some(bytes as u64)
    });
    parsed
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "it must be a size of 0 or more, as 256MB, 1.5GiB or 0".to_owned())
}

/// Bytes above 0, as in 256MB or 1.5GiB.
pub(crate) fn some_bytes(text: &str) -> Result<usize, String> {
    bytes(text)
        .ok()
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "it must be a size of 1 byte or more, as 256MB or 1.5GiB".to_owned())
}

/// A number above 0.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0, "it must be a number above 0")
}

/// A number of 0 or more.
pub(crate) fn non_negative(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0, "it must be a number of 0 or more")
}

/// The budget that every command takes unless told.
pub(crate) const DEFAULT_BUDGET: f64 = 0.3;

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
    fn times_within_a_range_may_be_its_ends() {
        let parse = seconds_within(0.0..=3600.0);
        assert_eq!((parse("0"), parse("3600")), (Ok(Duration::ZERO), Ok(Duration::from_secs(3600))));
        for text in ["-0.1", "3600.9", "NaN", "inf", ""] {
            assert!(parse(text).unwrap_err().ends_with("from 0 to 3600"), "{text}");
        }
    }

    #[test]
    fn sizes_have_decimal_or_binary_units_or_none() {
        assert_eq!((bytes("0"), bytes("4096"), bytes("12 B")), (Ok(0), Ok(4096), Ok(12)));
        assert_eq!((bytes("256MB"), bytes("1.5gib")), (Ok(256_000_000), Ok(3 << 29)));
        for text in ["", "MB", "-1MB", "1e30GB", "inf", "NaN", "12 apples", "1 MB 2"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(some_bytes("1"), Ok(1));
        for text in ["0", "0GB", "0.4", "-1", ""] {
            assert!(some_bytes(text).is_err(), "{text}");
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
