use std::str::FromStr;

use super::LineFault;

/// One interaction, as a file holds it.
#[derive(Clone, Copy)]
pub(crate) struct Interaction<'a> {
    pub(crate) user: Id<'a>,
    pub(crate) item: Id<'a>,
    /// `None` if the order of the lines is the order of time.
    pub(crate) time: Option<Timestamp>,
}

/// The external id of a user or an item. It is not empty, has no blanks around it, and holds no tab or line break, so a
/// line-based file can hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// Checks an id, without the blanks around it. `name` names the column or field in the error.
    ///
    /// # Errors
    /// [`LineFault::EmptyId`] or [`LineFault::UnusableId`].
    pub(crate) fn new(name: &'static str, text: &'a str) -> Result<Id<'a>, LineFault> {
        match text.trim() {
            "" => Err(LineFault::EmptyId(name)),
            id if id.contains(['\t', '\n', '\r']) => Err(LineFault::UnusableId(name)),
            id => Ok(Id(id)),
        }
    }

    /// The ids of a line that separates them by blanks. They need no check, because every tab and line break is a blank.
    pub(crate) fn split(line: &'a str) -> impl Iterator<Item = Id<'a>> + Clone {
        line.split_whitespace().map(Id)
    }

    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }
}

/// A point in time, in any unit.
///
/// The order is that of the number. Whole numbers beyond 2^53, such as nanoseconds since 1970, may be equal as float64;
/// then their integer parts decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(crate) struct Timestamp {
    number: f64,
    integer: i64,
}

impl FromStr for Timestamp {
    type Err = LineFault;

    /// # Errors
    /// [`LineFault::Timestamp`] if the text is not a finite number.
    fn from_str(text: &str) -> Result<Timestamp, LineFault> {
        match text.parse() {
            Ok(number) if f64::is_finite(number) => {
                Ok(Timestamp { number, integer: text.parse().unwrap_or(number as i64) })
            }
            _ => Err(LineFault::Timestamp(text.chars().take(40).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn ids_are_trimmed_and_checked() {
        assert_eq!(Id::new("user", " a b\r").map(Id::as_str), Ok("a b"));
        assert_eq!(Id::new("user", " \t"), Err(LineFault::EmptyId("user")));
        for text in ["a\tb", "a\nb", "a\rb"] {
            assert_eq!(Id::new("item", text), Err(LineFault::UnusableId("item")), "{text:?}");
        }
    }

    #[test]
    fn timestamps_are_ordered_beyond_the_precision_of_float64() {
        assert!(timestamp("1700000000000000001") < timestamp("1700000000000000002"));
        assert!(timestamp("-1.5") < timestamp("-1.25") && timestamp("1e-300") > timestamp("0"));
        assert_eq!(timestamp("-0.0"), timestamp("0"));
    }

    #[test]
    fn only_finite_numbers_are_timestamps() {
        for text in ["", "x1", "NaN", "inf", "1 2"] {
            assert_eq!(text.parse::<Timestamp>(), Err(LineFault::Timestamp(text.to_owned())));
        }
    }
}
