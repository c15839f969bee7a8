use std::fmt;
use std::str::FromStr;

use super::time::{Time, date, date_of_digits, shown};
use super::times::nanoseconds;
use super::{LineFault, TimeFormat};

/// A condition on a row, such as `event=purchase` or `rating>=4`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The column's name.
    pub(crate) column: String,
    pub(crate) test: Test,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    /// The value is this one.
    Is(Expected),
    /// The value is another one.
    IsNot(Expected),
    /// The value is a number that compares so.
    Number(Comparison, f64),
    /// The value is a time that compares so with this text's, in nanoseconds since 1970.
    Time(Comparison, i128, String),
}

/// What `=` and `!=` compare a value with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    text: String,
    meaning: Meaning,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    Text,
    /// `true` or `false`.
    Truth,
    Number(f64),
    /// Nanoseconds since 1970.
    Date(i128),
}

impl Expected {
    fn new(text: &str) -> Expected {
        let meaning = match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Meaning::Number(number),
            _ if is_truth(text) => Meaning::Truth,
            _ => date(text).map_or(Meaning::Text, Meaning::Date),
        };
        Expected { text: text.to_owned(), meaning }
    }

    /// Whether a value is this one. Whole numbers are texts, because `07` and `7` are two ids.
    fn is(&self, value: &str, format: Option<&TimeFormat>) -> bool {
        if value == self.text {
            return true;
        }
        match self.meaning {
            Meaning::Text => false,
            Meaning::Truth => value.eq_ignore_ascii_case(&self.text),
            Meaning::Number(number) => {
                (is_fractional(&self.text) || is_fractional(value)) && value.parse() == Ok(number)
            }
            Meaning::Date(time) => date_among_dates(value, format).or_else(|| date(value)) == Some(time),
        }
    }
}

fn is_truth(text: &str) -> bool {
    ["true", "false"].iter().any(|truth| text.eq_ignore_ascii_case(truth))
}

/// Whether a number is written with a decimal point or an exponent.
fn is_fractional(number: &str) -> bool {
    number.contains(['.', 'e', 'E'])
}

/// Nanoseconds since 1970 of a value that a format reads or whose digits are a date. Ten digits are none: seconds since 1970 have
/// as many.
fn date_among_dates(value: &str, format: Option<&TimeFormat>) -> Option<i128> {
    if let Some(format) = format {
        return format.nanoseconds(value);
    }
    if !matches!(value.len(), 8 | 12 | 14) {
        return None;
    }
    match Time::parse(value, "") {
        Ok(Time::Whole(number)) => date_of_digits(number).map(i128::from),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Comparison {
    Least,
    Most,
    Above,
    Below,
}

/// Why a text is not a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// The text has no operator.
    #[error("write COLUMN=VALUE, COLUMN!=VALUE, or a comparison with a number or a date such as COLUMN>=4")]
    Form,
    /// A comparison needs a number or a date.
    #[error("{0:?} is neither a number nor an ISO 8601 date such as 2023-11-14, which >=, <=, > and < need")]
    NoComparison(String),
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Condition, ConditionError> {
        let at = text.find(['=', '!', '<', '>']).filter(|at| *at > 0).ok_or(ConditionError::Form)?;
        let (column, rest) = text.split_at(at);
        let operators = [
            ("!=", None),
            (">=", Some(Comparison::Least)),
            ("<=", Some(Comparison::Most)),
            (">", Some(Comparison::Above)),
            ("<", Some(Comparison::Below)),
        ];
        let found =
            operators.iter().find_map(|(sign, comparison)| Some((rest.strip_prefix(sign)?.trim(), *comparison)));
        let test = match found {
            Some((value, Some(comparison))) => match value.parse::<f64>() {
                Ok(number) if number.is_finite() => Test::Number(comparison, number),
                _ => match date(value) {
                    Some(time) => Test::Time(comparison, time, value.to_owned()),
                    None => return Err(ConditionError::NoComparison(value.to_owned())),
                },
            },
            Some((value, None)) => Test::IsNot(Expected::new(value)),
            None => {
                let value = rest.strip_prefix('=').ok_or(ConditionError::Form)?;
                Test::Is(Expected::new(value.strip_prefix('=').unwrap_or(value).trim()))
            }
        };
        Ok(Condition { column: column.trim().to_owned(), test })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        match &self.test {
            Test::Is(expected) => write!(f, "={}", expected.text),
            Test::IsNot(expected) => write!(f, "!={}", expected.text),
            Test::Number(comparison, number) => write!(f, "{}{number}", comparison.sign()),
            Test::Time(comparison, _, text) => write!(f, "{}{text}", comparison.sign()),
        }
    }
}

impl Comparison {
    fn sign(self) -> &'static str {
        match self {
            Comparison::Least => ">=",
            Comparison::Most => "<=",
            Comparison::Above => ">",
            Comparison::Below => "<",
        }
    }

    fn holds<T: PartialOrd>(self, value: T, bound: T) -> bool {
        match self {
            Comparison::Least => value >= bound,
            Comparison::Most => value <= bound,
            Comparison::Above => value > bound,
            Comparison::Below => value < bound,
        }
    }
}

/// The conditions on one column of a file.
#[derive(Clone, Debug)]
pub(crate) struct ColumnTest {
    /// The column's place in the file.
    pub(crate) column: usize,
    conditions: Vec<Condition>,
    /// The format of the column's times, if it is the column of times and the user named one.
    pub(crate) time_format: Option<TimeFormat>,
    /// Values that were not selected, while no row was.
    seen: Vec<Box<str>>,
}

impl ColumnTest {
    /// Values that an error shows.
    const SHOWN: usize = 10;

    pub(crate) fn new(column: usize, conditions: Vec<Condition>) -> ColumnTest {
        ColumnTest { column, conditions, time_format: None, seen: Vec::new() }
    }

    /// Whether a value meets the conditions. An empty one meets no comparison.
    ///
    /// # Errors
    /// [`LineFault::Condition`] for a value that a comparison cannot compare. Equality comes first, so `!=` keeps such a value
    /// from the comparisons.
    pub(crate) fn selects(&self, value: &str) -> Result<bool, LineFault> {
        let format = self.time_format.as_ref();
        let mut one_of = None;
        for condition in &self.conditions {
            match &condition.test {
                Test::Is(expected) => *one_of.get_or_insert(false) |= expected.is(value, format),
                Test::IsNot(expected) if expected.is(value, format) => return Ok(false),
                _ => {}
            }
        }
        if one_of == Some(false) {
            return Ok(false);
        }
        for condition in &self.conditions {
            let met = match &condition.test {
                Test::Is(_) | Test::IsNot(_) => continue,
                _ if value.is_empty() => return Ok(false),
                Test::Number(comparison, bound) => value.parse().ok().map(|number| comparison.holds(number, *bound)),
                Test::Time(comparison, bound, _) => {
                    let time = match date_among_dates(value, format) {
                        None if format.is_none() => nanoseconds(value),
                        time => time,
                    };
                    time.map(|time| comparison.holds(time, *bound))
                }
            };
            match met {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => return Err(self.fault(condition, value)),
            }
        }
        Ok(true)
    }

    fn fault(&self, condition: &Condition, value: &str) -> LineFault {
        let needed = match (&condition.test, &self.time_format) {
            (Test::Time(..), Some(_)) => "a time in the form that --time-format names",
            (Test::Time(..), None) => "a date or a number since 1970",
            _ => "a number",
        };
        LineFault::Condition {
            column: condition.column.clone(),
            text: shown(value),
            comparison: format!("{condition} needs {needed}"),
        }
    }

    /// Remembers a value for the error of a selection that finds no row.
    pub(crate) fn remember(&mut self, value: &str) {
        if self.seen.len() < ColumnTest::SHOWN && !self.seen.iter().any(|seen| **seen == *value) {
            self.seen.push(value.chars().take(40).collect::<String>().into());
        }
    }

    /// The conditions and the values that were seen instead; `None` if there were no such values.
    pub(crate) fn explain(&self) -> Option<(String, String)> {
        if self.seen.is_empty() {
            return None;
        }
        let conditions: Vec<String> = self.conditions.iter().map(ToString::to_string).collect();
        let seen: Vec<&str> = self.seen.iter().map(|value| if value.is_empty() { "\"\"" } else { value }).collect();
        Some((conditions.join(", "), seen.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(conditions: &[&str]) -> ColumnTest {
        ColumnTest::new(0, conditions.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn conditions_select_by_text_and_by_number() {
        for (conditions, selected, others) in [
            (&["event=purchase"][..], &["purchase"][..], &["view", "Purchase", ""][..]),
            (&["event==buy", "event = view"], &["buy", "view"], &["cart"]),
            (&["event!=view", "event!=cart"], &["buy"], &["view", "cart"]),
            (&["rating>=4", "rating<5"], &["4", "4.5"], &["3.9", "5", "NaN", ""]),
            (&["rating>4", "rating<=5"], &["5"], &["4", "6"]),
            (
                &["ts>=2023-11-14", "ts<2023-11-15"],
                &["2023-11-14", "2023-11-14T23:59:59Z", "2023-11-15T00:30:00+01:00", "1700000000", "1700000000123"],
                &["2023-11-13T23:59:59.999Z", "2023-11-15", "1600000000", "1.6e9", ""],
            ),
            (
                &["day>=2023-11-14", "day<2023-11-15"],
                &["20231114", "20231114235959", "202311142359"],
                &["20231113", "20231115", "20231115000000", "00010101", "0001-01-01", "9999-12-31"],
            ),
            (&["until>=2023-11-14"], &["9999-12-31", "20991231"], &["0001-01-01", "20231113", "21000101", "2023"]),
            (&["ts>2023-11-14T22:13:20Z"], &["1700000000.5", "1700000000000001"], &["1700000000"]),
        ] {
            let test = test(conditions);
            let wrong = |value: &&&str, expected| test.selects(value) != Ok(expected);
            assert_eq!(selected.iter().find(|value| wrong(value, true)), None, "{conditions:?}");
            assert_eq!(others.iter().find(|value| wrong(value, false)), None, "{conditions:?}");
        }
    }

    #[test]
    fn values_are_equal_as_numbers_truths_and_dates() {
        for (condition, equal, others) in [
            ("r=5", &["5", "5.0", "5.", "5e0"][..], &["05", "+5", "5.5", "five", ""][..]),
            ("r=5.0", &["5", "5.00", "05"], &["5.1", "nan"]),
            ("sku=7", &["7"], &["07", "007"]),
            ("r=.5", &["0.5", "5e-1"], &["5"]),
            ("bought=true", &["true", "True", "TRUE"], &["1", "false", ""]),
            ("bought=False", &["false", "FALSE"], &["0", "true"]),
            (
                "day=2023-11-14",
                &["2023-11-14T00:00:00Z", "2023/11/14", "20231114", "2023-11-14 01:00:00+01:00"],
                &["2023-11-14T00:00:01", "20231115", "1699920000", ""],
            ),
            ("name=nan", &["nan"], &["NaN", "inf"]),
        ] {
            let (is, is_not) = (test(&[condition]), test(&[&condition.replacen('=', "!=", 1)]));
            for (values, expected) in [(equal, true), (others, false)] {
                for value in values {
                    assert_eq!((is.selects(value), is_not.selects(value)), (Ok(expected), Ok(!expected)), "{value}");
                }
            }
        }
    }

    #[test]
    fn a_value_that_no_comparison_understands_is_a_fault() {
        for (conditions, value, expected) in [
            (
                &["rating>=4"][..],
                "good",
                "`rating` is \"good\", but rating>=4 needs a number. Leave such lines out: --where 'rating!=good'",
            ),
            (&["rating>=4"], "4,5", "`rating` is \"4,5\", but rating>=4 needs a number"),
            (&["ts<2023-11-15"], "soon", "`ts` is \"soon\", but ts<2023-11-15 needs a date or a number since 1970"),
            (&["ts<2023-11-15", "ts>=2023-11-01"], "11/14/2023", "`ts` is \"11/14/2023\", but ts<2023-11-15 needs"),
        ] {
            let fault = test(conditions).selects(value).unwrap_err().to_string();
            assert!(fault.starts_with(expected), "{fault}");
        }
        assert_eq!(test(&["rating>=4", "rating!=good"]).selects("good"), Ok(false));
        assert_eq!(test(&["rating>=4", "rating=5"]).selects("good"), Ok(false));
    }

    #[test]
    fn a_format_reads_the_column_of_times() {
        let by_format = |condition: &str, format: &str, value: &str| {
            let mut test = test(&[condition]);
            test.time_format = Some(format.parse().unwrap());
            test.selects(value)
        };
        let us = "%m/%d/%Y";
        assert_eq!(by_format("d<2023-11-15", us, "11/14/2023"), Ok(true));
        assert_eq!(by_format("d<2023-11-14", us, "11/14/2023"), Ok(false));
        assert_eq!(by_format("d=2023-11-14", us, "11/14/2023"), Ok(true));
        assert_eq!(by_format("d<2023-11-15", "%d%m%Y", "14112023"), Ok(true));
        let fault = by_format("d<2023-11-15", us, "20231114").unwrap_err().to_string();
        assert!(fault.contains("d<2023-11-15 needs a time in the form that --time-format names"), "{fault}");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["event", "=buy", "a!b", ""] {
            assert_eq!(text.parse::<Condition>(), Err(ConditionError::Form), "{text}");
        }
        for value in ["x", "2023-13-01", ""] {
            let refused = Err(ConditionError::NoComparison(value.to_owned()));
            assert_eq!(format!("r>={value}").parse::<Condition>(), refused);
        }
        for text in ["r>=4", "ts<2023-11-14T22:13:20Z"] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), text);
        }
    }
}
