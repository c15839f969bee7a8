use std::fmt;
use std::str::FromStr;

use super::time::Time;
use super::times::nanoseconds;

/// A condition on a row, such as `event=purchase` or `rating>=4`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The column's name.
    pub(crate) column: String,
    pub(crate) test: Test,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    /// The value is this text.
    Is(String),
    /// The value is another text.
    IsNot(String),
    /// The value is a number that compares so.
    Number(Comparison, f64),
    /// The value is a time that compares so with this text's, in nanoseconds since 1970.
    Time(Comparison, i64, String),
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
                _ => match Time::parse(value, column) {
                    Ok(Time::Date(time)) => Test::Time(comparison, time, value.to_owned()),
                    _ => return Err(ConditionError::NoComparison(value.to_owned())),
                },
            },
            Some((value, None)) => Test::IsNot(value.to_owned()),
            None => {
                let value = rest.strip_prefix('=').ok_or(ConditionError::Form)?;
                Test::Is(value.strip_prefix('=').unwrap_or(value).trim().to_owned())
            }
        };
        Ok(Condition { column: column.trim().to_owned(), test })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        match &self.test {
            Test::Is(value) => write!(f, "={value}"),
            Test::IsNot(value) => write!(f, "!={value}"),
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
    /// Values that were not selected, while no row was.
    seen: Vec<Box<str>>,
}

impl ColumnTest {
    /// Values that an error shows.
    const SHOWN: usize = 10;

    pub(crate) fn new(column: usize, conditions: Vec<Condition>) -> ColumnTest {
        ColumnTest { column, conditions, seen: Vec::new() }
    }

    /// Whether a value meets the conditions.
    pub(crate) fn selects(&self, value: &str) -> bool {
        let mut one_of = None;
        for condition in &self.conditions {
            let met = match &condition.test {
                Test::Is(expected) => {
                    *one_of.get_or_insert(false) |= value == expected;
                    continue;
                }
                Test::IsNot(expected) => value != expected,
                Test::Number(comparison, number) => {
                    value.parse::<f64>().is_ok_and(|value| comparison.holds(value, *number))
                }
                Test::Time(comparison, bound, _) => {
                    nanoseconds(value).is_some_and(|time| comparison.holds(time, i128::from(*bound)))
                }
            };
            if !met {
                return false;
            }
        }
        one_of.unwrap_or(true)
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
            (&["rating>=4", "rating<5"], &["4", "4.5"], &["3.9", "5", "good", ""]),
            (&["rating>4", "rating<=5"], &["5"], &["4", "6"]),
            (
                &["ts>=2023-11-14", "ts<2023-11-15"],
                &["2023-11-14", "2023-11-14T23:59:59Z", "2023-11-15T00:30:00+01:00", "1700000000", "1700000000123"],
                &["2023-11-13T23:59:59.999Z", "2023-11-15", "1600000000", "1.6e9", "soon", ""],
            ),
            (&["ts>2023-11-14T22:13:20Z"], &["1700000000.5", "1700000000000001"], &["1700000000"]),
        ] {
            let test = test(conditions);
            assert!(selected.iter().all(|value| test.selects(value)), "{conditions:?}");
            assert!(!others.iter().any(|value| test.selects(value)), "{conditions:?}");
        }
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
