//! Columns that hold times, by their names and their sampled values.

use super::super::TimeFormat;
use super::super::error::ColumnFault;
use super::super::time::{SECOND, Time};
use super::super::times::{looks_like_time, nanoseconds};

/// What is known of a column's values before the whole file is read.
pub(crate) enum Sampled {
    /// The first values. An empty text is a missing value.
    Texts(Vec<String>),
    /// The first values of a column whose type is a date or a timestamp.
    Typed(Vec<String>),
    /// The one value of all rows, which a folder's name has.
    Constant(String),
    /// The values are of a type that is not read.
    Unread(&'static str),
}

/// What a column's sampled values look like.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Look {
    /// Dates, date-times, or numbers since 1970.
    Times {
        /// One of the values.
        example: String,
        /// Whether one of them has a time of day.
        fine: bool,
    },
    /// Numbers that are no times since 1970.
    Numbers(String),
    /// Anything else, or nothing.
    Other,
}

/// A column that holds times of day, while the column of times that is read holds dates.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finer {
    pub(crate) column: usize,
    pub(crate) value: String,
}

impl Sampled {
    pub(super) fn look(&self) -> Look {
        let texts = match self {
            Sampled::Texts(texts) | Sampled::Typed(texts) => texts.as_slice(),
            Sampled::Constant(text) => std::slice::from_ref(text),
            Sampled::Unread(_) => &[],
        };
        let mut values = texts.iter().filter(|text| !text.is_empty());
        let is_typed = matches!(self, Sampled::Typed(_));
        let Some(first) = values.clone().next() else {
            let example = TYPED.to_owned();
            return if is_typed { Look::Times { example, fine: false } } else { Look::Other };
        };
        if is_typed || values.clone().all(|text| looks_like_time(text)) {
            let example = if is_typed { TYPED.to_owned() } else { first.clone() };
            return Look::Times { example, fine: values.any(|text| !is_midnight(text)) };
        }
        let is_number = |text: &str| matches!(Time::parse(text, ""), Ok(Time::Whole(_) | Time::Fine(_)));
        if values.all(|text| is_number(text) && !looks_like_time(text)) {
            return Look::Numbers(first.clone());
        }
        Look::Other
    }

    /// Whether a column with a common name of times may be the time. A folder's `day=14` is not.
    pub(super) fn may_be_time(&self) -> bool {
        match self {
            Sampled::Constant(text) => text.is_empty() || looks_like_time(text),
            _ => true,
        }
    }

    /// A value of a column whose values need help to be read as times: the name is that of a time, or the values are dates of
    /// another form.
    fn unread_time(&self, name: &str) -> Option<String> {
        let name = TimeName::of(name);
        let is_moment = name.as_ref().is_some_and(|name| name.is_moment);
        let texts = match self {
            Sampled::Texts(texts) => texts.as_slice(),
            Sampled::Constant(text) => std::slice::from_ref(text),
            Sampled::Unread(kind) => return (is_moment && kind.contains("decimal")).then(|| (*kind).to_owned()),
            Sampled::Typed(_) => return None,
        };
        let mut values = texts.iter().filter(|text| !text.is_empty());
        let first = values.clone().next()?;
        let numbers: Option<Vec<f64>> = values.clone().map(|text| text.parse().ok()).collect();
        let needs_help = match numbers {
            // Flags such as `has_date` are 0 and 1.
            Some(numbers) if is_moment && numbers.iter().any(|number| number.abs() > 1.0) => true,
            Some(_) => name.is_some() && values.all(|text| is_compact_date(text)),
            None => {
                let is_date = || has_year(first) && TimeFormat::guess(first).is_some();
                values.all(|text| is_like_date(text)) && (name.is_some() || is_date())
            }
        };
        needs_help.then(|| first.clone())
    }
}

/// The example of a column whose type is a date or a timestamp.
const TYPED: &str = "its type is a date or a timestamp";

/// The columns of a file, apart from the user's and the item's.
pub(super) struct Others<'a, F> {
    pub(super) names: &'a [String],
    pub(super) columns: Vec<usize>,
    pub(super) sampled: F,
}

impl<F: FnMut(usize) -> Sampled> Others<'_, F> {
    /// The first column that looks like a time, with one of its values. `finer` demands times of day.
    fn time(&mut self, except: Option<usize>, finer: bool) -> Option<Finer> {
        let columns = self.columns.iter().filter(|column| Some(**column) != except);
        let sampled = &mut self.sampled;
        columns.copied().find_map(|column| match sampled(column).look() {
            Look::Times { example, fine } if fine || !finer => Some(Finer { column, value: example }),
            _ => None,
        })
    }

    /// Checks that no column is missed if none is read as the time.
    pub(super) fn check_untimed(mut self) -> Result<(), ColumnFault> {
        if let Some(Finer { column, value }) = self.time(None, false) {
            return Err(ColumnFault::UnusedTime { name: self.names[column].clone(), value });
        }
        for column in self.columns {
            let name = &self.names[column];
            if let Some(value) = (self.sampled)(column).unread_time(name) {
                return Err(ColumnFault::UnreadTime { name: name.clone(), value });
            }
        }
        Ok(())
    }

    /// Checks that the column of times, which was found by its name, is the best one. Returns a finer one, if there is one.
    pub(super) fn check_timed(mut self, time: usize) -> Result<Option<Finer>, ColumnFault> {
        match (self.sampled)(time).look() {
            Look::Times { fine: false, .. } => Ok(self.time(Some(time), true)),
            Look::Numbers(number) => match self.time(Some(time), false) {
                Some(Finer { column, value }) => Err(ColumnFault::BetterTime {
                    name: self.names[column].as_str().into(),
                    value: value.into(),
                    read: self.names[time].as_str().into(),
                    number: number.into(),
                }),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// Whether a key that first appears behind the sample is a time.
pub(super) fn is_late_time(name: &str, value: &str) -> bool {
    matches!(Time::parse(value, ""), Ok(Time::Date(_))) || (TimeName::of(name).is_some() && looks_like_time(value))
}

/// Whether a time has no time of day.
fn is_midnight(text: &str) -> bool {
    nanoseconds(text).is_some_and(|time| time % (86_400 * i128::from(SECOND)) == 0)
}

/// A name of which a word means a time.
struct TimeName {
    /// Whether it means a moment, as `order_date` does. `watch_time` may be a duration.
    is_moment: bool,
}

impl TimeName {
    fn of(name: &str) -> Option<TimeName> {
        let words = words(name);
        let at = words.len() > 1 && words.last().is_some_and(|last| last == "at");
        let is_date = |word: &String| {
            let ends = |ending| word.ends_with(ending) && !NO_DATES.contains(&word.as_str());
            matches!(word.as_str(), "dt" | "ts") || ["date", "datetime", "timestamp"].into_iter().any(ends)
        };
        let is_time = |word: &String| word.ends_with("time") && !NO_TIMES.contains(&word.as_str());
        let is_moment = at || words.last().is_some_and(is_date);
        (is_moment || words.iter().any(|word| is_date(word) || is_time(word))).then_some(TimeName { is_moment })
    }
}

/// Words that end like a date and mean none.
const NO_DATES: [&str; 7] = ["update", "candidate", "mandate", "validate", "liquidate", "accommodate", "consolidate"];

/// Words that end like a time and mean a duration or nothing of the kind.
const NO_TIMES: [&str; 12] = [
    "lifetime", "runtime", "overtime", "uptime", "downtime", "playtime", "parttime", "fulltime", "halftime", "daytime",
    "sometime", "anytime",
];

/// The words of a name in lower case, without digits at their ends. Capitals begin words too.
fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let (mut words, mut word) = (Vec::new(), String::new());
    for (place, char) in chars.iter().enumerate() {
        let before = place.checked_sub(1).map(|place| chars[place]);
        let after = chars.get(place + 1);
        // `orderDate` has two words, and so has `TSValue`.
        let hump = char.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase() || (before.is_uppercase() && after.is_some_and(|after| after.is_lowercase()))
            });
        if !char.is_alphanumeric() || hump {
            words.push(std::mem::take(&mut word));
        }
        if char.is_alphanumeric() {
            word.extend(char.to_lowercase());
        }
    }
    words.push(word);
    let trimmed = words.into_iter().map(|word| word.trim_end_matches(|char: char| char.is_ascii_digit()).to_owned());
    trimmed.filter(|word| !word.is_empty()).collect()
}

/// Whether a number is a date of eight digits, perhaps with hours, minutes and seconds.
fn is_compact_date(text: &str) -> bool {
    let part = |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<u32>().ok());
    matches!(text.len(), 8 | 10 | 12 | 14)
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && part(0..4).is_some_and(|year| (1900..2100).contains(&year))
        && part(4..6).is_some_and(|month| (1..=12).contains(&month))
        && part(6..8).is_some_and(|day| (1..=31).contains(&day))
}

/// Whether a number of four digits is a year from 1970 on.
fn has_year(text: &str) -> bool {
    let mut numbers = text.split(|char: char| !char.is_ascii_digit());
    numbers.any(|digits| digits.len() == 4 && digits.parse().is_ok_and(|year| (1970..2100).contains(&year)))
}

/// Whether a text is shaped like a date: three numbers, or two and the name of a month. A time of day alone is not.
fn is_like_date(text: &str) -> bool {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let numbers = text.split(|char: char| !char.is_ascii_digit()).filter(|digits| !digits.is_empty()).count();
    let lower = text.to_lowercase();
    let is_time_of_day = text.contains(':') && text.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte));
    text.len() <= 40
        && !is_time_of_day
        && (numbers >= 3 || (numbers == 2 && MONTHS.iter().any(|month| lower.contains(month))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Sampled {
        Sampled::Texts(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn values_show_whether_they_are_times_and_how_fine() {
        for (values, fine) in [
            (&["2023-11-14", "", "2023-11-15"][..], Some(false)),
            (&["2023-11-14T00:00:00Z", "2023-11-15 00:00"], Some(false)),
            (&["2023-11-14", "2023-11-15 10:00"], Some(true)),
            (&["1700005060"], Some(true)),
            // Amazon's reviews have seconds of whole days.
            (&["1700006400", "1700092800"], Some(false)),
            (&["221320", "101112"], None),
            (&["x"], None),
            (&[""], None),
        ] {
            let found = match texts(values).look() {
                Look::Times { fine, .. } => Some(fine),
                _ => None,
            };
            assert_eq!(found, fine, "{values:?}");
        }
        assert_eq!(texts(&["", "221320", "7.5"]).look(), Look::Numbers("221320".to_owned()));
        assert_eq!(texts(&["7", "1700005060"]).look(), Look::Other);
    }

    #[test]
    fn times_that_need_help_are_known_by_their_names_and_shapes() {
        for (name, value) in [
            ("purchase_dt", "20231114"),
            ("order_date_key", "20231114"),
            ("last_time", "20231114225040"),
            ("Review Date", "11/14/2023"),
            ("reviewDate", "09 13, 2009"),
            ("orderdate", "Nov 14, 2023 10:15 PM"),
            ("logTS", "14"),
            ("bought_at", "45244.95"),
            ("last_update_time", "14.11.2023 22:50"),
            ("when", "11/14/2023"),
        ] {
            assert_eq!(texts(&["", value]).unread_time(name).as_deref(), Some(value), "{name}");
        }
        for (name, value) in [
            ("update_count", "17"),
            ("update_count", "20231114"),
            ("lifetime_value", "20231114"),
            ("overtime", "20231114"),
            ("candidate", "20231114"),
            ("watch_time", "35.5"),
            ("watch_time", "00:12:35"),
            ("time_spent", "120"),
            ("time_zone", "UTC+1"),
            ("time_of_day", "morning"),
            ("has_date", "1"),
            ("at", "17"),
            ("format", "20231114"),
            ("category_at_home", "17"),
            ("price", "20231114"),
            ("version", "1.12.103"),
            ("address", "10.0.20.23"),
        ] {
            assert_eq!(texts(&[value]).unread_time(name), None, "{name} {value}");
        }
    }
}
