//! Parsers of numbers with bounds, for flags of several commands.

/// Above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0, "it must be a number above 0")
}

/// From 0 up.
#[cfg(feature = "libtorch")]
pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0, "it must be a number from 0 up")
}

/// From 0 to below 1: nothing is left of the whole at 1.
#[cfg(feature = "libtorch")]
pub(super) fn share_below_one(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..1.0).contains(&value), "it must be a number from 0 to below 1")
}

/// Above 0, at most 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value <= 1.0, "it must be a number above 0 and at most 1")
}

/// From 0 to 1.
#[cfg(feature = "libtorch")]
pub(super) fn at_most_one(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1.0).contains(&value), "it must be a number from 0 to 1")
}

fn number(text: &str, allowed: impl Fn(f64) -> bool, rule: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| value.is_finite() && allowed(*value)).ok_or_else(|| rule.to_owned())
}
