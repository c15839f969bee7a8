use std::fmt;
use std::str::FromStr;

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
    #[error("write COLUMN=VALUE, COLUMN!=VALUE, or a comparison with a number such as COLUMN>=4")]
    Form,
    /// A comparison needs a number.
    #[error("{0:?} is not a number, which >=, <=, > and < need")]
    NotANumber(String),
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
                _ => return Err(ConditionError::NotANumber(value.to_owned())),
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
            Test::Number(comparison, number) => {
                let sign = match comparison {
                    Comparison::Least => ">=",
                    Comparison::Most => "<=",
                    Comparison::Above => ">",
                    Comparison::Below => "<",
                };
                write!(f, "{sign}{number}")
            }
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
                Test::Number(comparison, number) => value.parse::<f64>().is_ok_and(|value| match comparison {
                    Comparison::Least => value >= *number,
                    Comparison::Most => value <= *number,
                    Comparison::Above => value > *number,
                    Comparison::Below => value < *number,
                }),
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
        assert_eq!("r>=x".parse::<Condition>(), Err(ConditionError::NotANumber("x".to_owned())));
        assert_eq!("r>=4".parse::<Condition>().unwrap().to_string(), "r>=4");
    }
}
