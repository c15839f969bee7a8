//! Formats numbers for the page and the plots.

use std::fmt::Write as _;

use super::findings::Value;

/// `.0867`
pub(super) fn plain(value: f64) -> String {
    decimal(value, "")
}

/// `+.0012`, and negative values with U+2212 instead of a hyphen.
pub(super) fn signed(value: f64) -> String {
    decimal(value, "+")
}

/// Four decimals, without a leading zero. A value that rounds to zero has no sign.
fn decimal(value: f64, positive: &str) -> String {
    let digits = format!("{:.4}", value.abs());
    let sign = match value {
        _ if digits == "0.0000" => "",
        value if value < 0.0 => "−",
        _ => positive,
    };
    format!("{sign}{}", digits.strip_prefix('0').unwrap_or(&digits))
}

/// `+.0004 to +.0020`
pub(super) fn range([low, high]: [f64; 2]) -> String {
    format!("{} to {}", signed(low), signed(high))
}

/// `71 %` with a non-breaking space. Below ten per cent it has one decimal, unless that is zero.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let whole = percent.abs() >= 9.95 || (percent - percent.round()).abs() < 0.05;
    // Adding 0.0 turns a negative zero into zero.
    if whole { format!("{:.0}\u{a0}%", percent.round() + 0.0) } else { format!("{percent:.1}\u{a0}%") }
}

/// `36.5`
pub(super) fn mega(flops: f64) -> String {
    format!("{:.1}", flops / 1e6)
}

/// `1.42 ms`, `48 µs`
pub(super) fn time(seconds: f64) -> String {
    if seconds < 1e-3 { format!("{:.0} µs", seconds * 1e6) } else { format!("{:.2} ms", seconds * 1e3) }
}

/// `.0867 ±.0068`, and the standard deviation over models if there are several.
pub(super) fn value(value: &Value) -> String {
    let mut text = plain(value.mean);
    if let Some(se) = value.se {
        let _ = write!(text, " ±{}", plain(se));
    }
    if let Some(spread) = value.spread {
        let _ = write!(text, ", models ±{}", plain(spread));
    }
    text
}

/// `+.0012 (+.0004 to +.0020)`
pub(super) fn difference(value: &Value) -> String {
    match value.interval {
        Some(interval) => format!("{} ({})", signed(value.mean), range(interval)),
        None => signed(value.mean),
    }
}

/// Escapes text for HTML and SVG.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML does not allow control characters, even escaped.
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
